from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Layer, Ratio


@node(category="prune")
class Schedule(Node):
    """A chain of cuts inside the language model: one pruner's rule at several layers.

    The pruner's own layer and budget do not count, and `--ratio` does not set them. Each of n cuts keeps the n-th root
    of the ratio, of the tokens that reach it; cuts that a shallow model has one layer for follow each other there.

    With FastVPrune it is PyramidDrop (arXiv 2410.17247), which keeps an eighth behind layers 8, 16 and 24 of LLaVA-1.5
    7B's 32. PyramidDrop computes the attention of the layer above each cut beforehand; this takes that of the layer
    below, which is there already. PyramidDrop counts positions anew at each cut, as `positions: renumbered` of
    LLMGenerate does; left out, tokens keep theirs, as models with several position axes were trained.
    """

    def run(
        self,
        pruner: values.InLLMPruner,
        layers: Annotated[
            list[Layer], Field(min_length=1, description="where to cut: numbers of layers, or shares of the depth")
        ],
        ratio: Annotated[
            float, Field(gt=0, le=1, description="share of the visual tokens that is left behind the last cut")
        ] = 0.25,
        ratios: Annotated[
            list[Ratio] | None,
            Field(description="share that each cut keeps of the tokens that reach it; wins over ratio"),
        ] = None,
    ) -> list[values.InLLMPruner]:
        shares = [ratio ** (1 / len(layers))] * len(layers) if ratios is None else ratios
        if len(shares) != len(layers):
            raise UserError(f"there are {len(shares)} ratios for {len(layers)} layers", "give one for each layer")
        return [
            replace(pruner, layer=layer, ratio=share, tokens=None) for layer, share in zip(layers, shares, strict=True)
        ]
