from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Over, Ratio, Tokens


@node(category="prune")
class DiversityPrune(Node):
    """Keep visual tokens that are unlike each other or stand for all, one after the other by what each adds.

    farthest: max-min distance (DivPrune, arXiv 2503.02175). determinant: greedy DPP, conditioned by relevance
    (CDPruner, 2506.10967). coverage: facility location, weighted by saliency (SCOPE, 2510.24214). transport: the log-det
    surrogate of optimal transport (OTPrune, 2602.20205). Before the language model; the first, second and last read
    projected tokens (ProjectAll). No method needs CLS or text itself: what is wired as significance may.

    Deviations: tokens that the kept ones span (or cover) already come last by relevance (or index), where published
    loops divide rounding by rounding. No newline is a candidate. In DivPrune k is rounded down. OTPrune's columns are
    brought to length one. SCOPE's exponent of the saliency is 1.
    """

    attention_work = "similarity"

    def run(
        self,
        features: values.VisionFeatures,
        gain: Annotated[
            Literal["farthest", "determinant", "coverage", "transport"], Field(description="what a token adds")
        ],
        significance: Annotated[
            values.Significance | None, Field(description="relevance or saliency that determinant and coverage weigh by")
        ] = None,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        over: Over = "tile",
    ) -> values.Selection:
        from fopru_graph.pruning.diversity import diversity_prune

        return diversity_prune(features, gain, significance, ratio, tokens, over)
