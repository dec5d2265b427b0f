from __future__ import annotations

from functools import partial
from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._merge import Merged, merge_selected


@node(category="merge")
class MergeDropped(Node):
    """Add to each kept token those with similar keys, and sum all dropped ones in one further token (PruMerge).

    Tokens are weighted by their significance. The further token replaces the most significant dropped one.
    Wire Project to both outputs.
    """

    attention_work = "similarity"

    def run(
        self,
        features: values.VisionFeatures,
        selection: values.Selection,
        significance: values.Significance,
        neighbours: Annotated[int, Field(ge=0, description="similar tokens that are added to a kept one")] = 32,
    ) -> Merged:
        from fopru_graph.pruning.prumerge import merge_map
        from fopru_graph.pruning.select import check_tokens

        check_tokens(features, significance)
        return merge_selected(features, selection, partial(merge_map, neighbours=neighbours), significance.scores)
