from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class FrameChange(Node):
    """Score a video's tokens by how much they differ from the frame before (EVS, arXiv 2510.14624).

    Acts after the encoder (and after the projector where that merges patches); needs neither text nor attention. With
    `over: image` of RankPrune the budget is the video's, and all of the first frame is kept before anything else.
    Published default: no pruning; vLLM's `video_pruning_rate` is the share dropped.

    Deviation: a budget below one frame is kept to, with the first tokens of that frame, where the published rule keeps
    the whole frame (`vllm/multimodal/evs.py`). Pictures are refused.
    """

    attention_work = "none"

    def run(self, features: values.VisionFeatures) -> values.Significance:
        from fopru_graph.pruning.frames import frame_change, videos_of

        scores = [frame for video in videos_of(features) for frame in frame_change(video)]
        return values.Significance.of(features, scores, "change")
