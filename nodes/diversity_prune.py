from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import BudgetInput, Over, Ratio, Start, Tokens


@node(category="prune")
class DiversityPrune(Node):
    """Keep visual tokens that are unlike each other or stand for all, one after the other by what each adds.

    farthest: max-min distance (DivPrune, arXiv 2503.02175). determinant: greedy DPP, weighed by relevance (CDPruner,
    2506.10967). coverage: facility location, weighed by saliency (SCOPE, 2510.24214). transport: the log-det surrogate
    of optimal transport (OTPrune, 2602.20205). All before the language model; SCOPE reads the encoder's tokens, the
    others projected ones (ProjectAll). CLS or text is needed only by what is wired as significance.

    Deviations: tokens that the kept ones span already come last by relevance and those that they cover by index, where
    published loops order them by rounding errors. Newlines are no candidates. k is rounded down. SCOPE's exponent of
    the saliency is 1. OTPrune's columns get mean 0 and variance 1; of length one, as "normalised" may also be read,
    its kernel is all but the identity in narrow models.
    """

    attention_work = "similarity"

    def run(
        self,
        features: values.VisionFeatures,
        gain: Annotated[
            Literal["farthest", "determinant", "coverage", "transport"], Field(description="what a token adds")
        ],
        significance: Annotated[
            values.Significance | None,
            Field(description="relevance or saliency that determinant and coverage weigh by"),
        ] = None,
        ratio: Ratio = 0.25,
        tokens: Tokens = None,
        over: Over = "tile",
        budget: BudgetInput = None,
        start: Start = None,
    ) -> values.Selection:
        from fopru_graph.pruning.diversity import diversity_prune

        return diversity_prune(features, gain, significance, ratio, tokens, over, budget, start)
