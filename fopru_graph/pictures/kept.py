"""From the values on a pipeline's edges to the picture of kept tokens, and that picture as a PNG file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.pictures.overlay import draw_kept
from fopru_graph.values import Generation, Selection, Significance, VisionFeatures


def kept_picture(
    features: VisionFeatures,
    selection: Selection | None = None,
    generation: Generation | None = None,
    significance: Significance | None = None,
    title: str = "",
) -> Image.Image:
    """Draw the panels of every tile, one tile below the other.

    Without ``selection`` all tokens count as kept before the language model. Without ``generation`` there is no panel
    of the tokens that are left after in-LLM pruning, without ``significance`` none of the scores.
    """
    pictures = []
    for i, tile in enumerate(features.tiles):
        count = len(tile.features)
        selected = _mask(count, selection.indices[i].cpu().numpy() if selection else np.arange(count))
        final = None
        if generation is not None:
            kept = np.concatenate([pairs.numpy() for pairs in generation.kept])  # (K, 2): tile, index
            final = _mask(count, kept[kept[:, 0] == i, 1])
        scores = significance.scores[i].float().cpu().numpy() if significance else None
        areas = selection.areas[i].cpu().numpy() if selection and selection.areas else None
        seen = features.seen(i).numpy()
        pictures.append(
            draw_kept(seen, tile.grid, selected, final, scores, title, areas=areas, resolution=features.resolution)
        )
    return stack(pictures)


def _mask(count: int, indices: np.ndarray) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    mask[indices] = True
    return mask


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put pictures below each other on white. Raises ValueError for an empty list."""
    if not pictures:
        raise ValueError("there is no picture to stack")
    result = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        result.paste(picture, (0, top))
        top += picture.height
    return result


def save_png(picture: Image.Image, path: str | Path, metadata: dict[str, str]) -> None:
    """Write a PNG with ``metadata`` as iTXt chunks; a reader never sees half of it, missing folders are made.

    Args:
        picture: what to write.
        path: the file; it becomes a PNG whatever its suffix is.
        metadata: keys of 1 to 79 Latin-1 characters, values any text.

    Raises:
        UserError: the file cannot be written there.
        ValueError: a key of ``metadata`` is not Latin-1.
    """
    info, path, stream = PngInfo(), Path(path), io.BytesIO()
    for key, text in metadata.items():
        info.add_itxt(key, text)
    try:
        picture.save(stream, "PNG", pnginfo=info, compress_level=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, stream.getvalue())
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be written: {error.strerror or error}", "choose another output file"
        ) from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The texts that a PNG carries; none for a missing file, or one that is no PNG."""
    try:
        with Image.open(path) as picture:
            return {str(key): value for key, value in picture.info.items() if isinstance(value, str)}
    except OSError:
        return {}
