from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class AddUniform(Node):
    """Also keep visual tokens at uniform positions, about three for each selected one, tile by tile (PruMerge+)."""

    def run(self, selection: values.Selection) -> values.Selection:
        from fopru_graph.pruning.prumerge import add_uniform

        return replace(selection, indices=tuple(map(add_uniform, selection.indices, selection.counts)))
