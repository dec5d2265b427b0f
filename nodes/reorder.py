from __future__ import annotations

from dataclasses import replace

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="order")
class Reorder(Node):
    """Put the kept visual tokens back into raster order (FoPru §4.4)."""

    def run(self, selection: values.Selection) -> values.Selection:
        from fopru_graph.pruning.select import reorder

        return replace(selection, indices=tuple(map(reorder, selection.indices)))
