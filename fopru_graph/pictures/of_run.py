"""What there is to draw in a run of any pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fopru_graph import values
from fopru_graph.graph import Ref, RunResult

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, eq=False)
class PictureValues:
    """The values that the picture of one answer is drawn from.

    Args:
        features: those that the projector got.
        selection: the tokens of each tile that entered the language model.
        generation: the answer.
        significance: the last scores of the features' tokens; None if no node scored them.
    """

    features: values.VisionFeatures
    selection: values.Selection
    generation: values.Generation
    significance: values.Significance | None

    @property
    def areas(self) -> list[npt.NDArray[np.int64]]:
        """`Selection.areas` as arrays."""
        return [area.cpu().numpy() for area in self.selection.areas]

    def drawn(self, title: str = "") -> PIL.Image.Image:
        """The picture, see `kept.kept_picture`."""
        from fopru_graph.pictures.kept import kept_picture

        return kept_picture(self.features, self.selection, self.generation, self.significance, title)


def picture_values(result: RunResult) -> PictureValues | None:
    """Find the values to draw in a run of any pipeline, by their types.

    The kept tokens are read from the tokens that the language model got, not from a selection: a pipeline that prunes
    only inside the language model makes none, and packing may drop more than was selected. None if no node projects
    features or none generates from visual tokens, as in a run of the stock model.
    """
    features = tokens = generation = significance = pooled = None
    for name, step in result.plan.steps.items():
        inputs, outputs = list(_linked_values(step.inputs, result.by_node)), result.by_node.get(name, {}).values()
        if _first_of(values.VisualTokens, outputs) is not None:
            features = _first_of(values.VisionFeatures, inputs) or features
            pooled = _first_of(values.Selection, inputs)
        if (answer := _first_of(values.Generation, outputs)) is not None:
            generation, tokens = answer, _first_of(values.VisualTokens, inputs)
        significance = _first_of(values.Significance, outputs) or significance
    if features is None or tokens is None or generation is None:
        return None
    if significance is not None and tuple(map(len, significance.scores)) != features.counts:
        significance = None  # the scores are of tokens that were pooled afterwards
    entered = _entered(features, tokens)
    if pooled is not None and pooled.counts == features.counts:
        entered = replace(entered, areas=pooled.areas)
    return PictureValues(features, entered, generation, significance)


def _linked_values(inputs: Mapping[str, Any], by_node: Mapping[str, Mapping[str, Any]]) -> Iterator[Any]:
    """The values that a node gets from other nodes."""
    for value in inputs.values():
        outputs = by_node.get(value.node, {}) if isinstance(value, Ref) else {}
        if isinstance(value, Ref) and value.output in outputs:
            yield outputs[value.output or ""]


def _first_of(kind: type[Any], among: Iterable[Any]) -> Any:
    """The first value of a type; None if there is none."""
    return next((value for value in among if isinstance(value, kind)), None)


def _entered(features: values.VisionFeatures, tokens: values.VisualTokens) -> values.Selection:
    """The tokens of every tile that have an embedding in ``tokens``."""
    import torch

    origins = torch.cat([origin.cpu() for origin in tokens.origin])  # (K, 2): tile, index
    indices = tuple(origins[origins[:, 0] == tile, 1] for tile in range(len(features.tiles)))
    return values.Selection(indices, features.counts)
