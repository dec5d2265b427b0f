"""AddUniform: tokens at uniform distances beside the selected ones."""

from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="prune")
class AddUniform(Node):
    """Keep also the visual tokens at uniform distances, about three for each selected one, tile by tile (PruMerge+)."""

    def run(self, selection: values.Selection) -> values.Selection:
        from fopru_graph.pruning.uniform import add_uniform

        pairs = zip(selection.indices, selection.counts, strict=True)
        return values.Selection(tuple(add_uniform(kept, count) for kept, count in pairs), selection.counts)
