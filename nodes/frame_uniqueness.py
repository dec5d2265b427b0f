from __future__ import annotations

from fopru_graph import values
from fopru_graph.graph import Node, node


@node(category="score")
class FrameUniqueness(Node):
    """Score a video's tokens by how little they are like the whole video and their frame (VidCom², arXiv 2505.14454).

    The score is minus the cosine to the mean token of the video and minus that to the mean token of the frame. Acts
    after the encoder (and after the projector where that merges patches); needs neither text nor attention. FrameBudget
    shares the budget out to frames.

    Deviation: cosines; the authors' code compares by Gaussians of several widths over the
    channels that vary least (pull request 47750 of vLLM, which follows it). Pictures are refused.
    """

    attention_work = "none"

    def run(self, features: values.VisionFeatures) -> values.Significance:
        from fopru_graph.pruning.frames import uniqueness, videos_of

        scores = [frame for video in videos_of(features) for frame in uniqueness(video)[0]]
        return values.Significance.of(features, scores, "uniqueness")
