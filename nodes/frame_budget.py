from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Node, node
from fopru_graph.nodes._inputs import Ratio, Tokens


@node(category="prune")
class FrameBudget(Node):
    """Share a video's budget out to its frames, more to those unlike the rest (VidCom², arXiv 2505.14454).

    Of T frames, frame t gets the share (1 + σ_t − 1 / T) / T of the budget, where σ is a softmax of how little its
    tokens are like the video's mean token. Acts after the encoder (and after the projector where that merges patches);
    needs neither text nor attention. Any scorer chooses the tokens: wire `budget` of RankPrune to this. Published
    default: a quarter.

    Deviations: the budget is met exactly, a frame keeps one token at least where there are enough, and what a full
    frame cannot take goes to the others. The temperature is our choice: the sources that we may read do not name it.
    Pictures are refused.
    """

    def run(
        self,
        features: values.VisionFeatures,
        ratio: Ratio = 0.25,
        tokens: Annotated[
            Tokens, Field(description="number of visual tokens to keep of a video; wins over ratio")
        ] = None,
        temperature: Annotated[float, Field(gt=0, description="small: frames unlike the rest get more")] = 0.01,
    ) -> values.Budget:
        from fopru_graph.pruning.frames import share_out

        return values.Budget(share_out(features, ratio, tokens, temperature))
