"""From the values on a pipeline's edges to the picture of kept tokens."""

from __future__ import annotations

import numpy as np
import PIL.Image

from fopru_graph.pictures.overlay import draw_kept, stack
from fopru_graph.values import Generation, Selection, Significance, VisionFeatures


def kept_picture(
    features: VisionFeatures,
    selection: Selection | None = None,
    generation: Generation | None = None,
    significance: Significance | None = None,
    title: str = "",
) -> PIL.Image.Image:
    """One row of panels a tile: what the encoder saw, what was kept before and inside the language model, the scores.

    Without ``selection`` all tokens count as kept before the language model; without ``generation`` nothing is said
    about what happened inside it.
    """
    pictures = []
    for i, tile in enumerate(features.tiles):
        count = len(tile.features)
        selected = _mask(count, selection.indices[i].cpu().numpy() if selection else np.arange(count))
        final = None
        if generation is not None:
            rows = np.concatenate([rows.numpy() for rows in generation.kept])  # (K, 2): tile, index
            final = _mask(count, rows[rows[:, 0] == i, 1])
        scores = significance.scores[i].float().cpu().numpy() if significance else None
        pictures.append(draw_kept(features.seen(i).numpy(), tile.grid, selected, final, scores, title))
    return stack(pictures)


def _mask(count: int, indices: np.ndarray) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    mask[indices] = True
    return mask
