"""What a comparison says of its answers."""

from __future__ import annotations

from fopru_graph.report.compare import ComparedAnswer


def test_tokens_are_a_share_of_those_of_the_unpruned_model() -> None:
    """A picture that was made smaller has fewer and keeps all of them: that is pruning all the same."""
    tokens = {"encoded": 64, "kept": 64, "final": 64}
    smaller = ComparedAnswer("downsample", 0.25, visual_tokens=tokens, whole=256)
    assert (smaller.share, smaller.tokens) == (0.25, "64")
    assert ComparedAnswer("downsample", 0.25, visual_tokens=tokens).share == 1.0
    assert ComparedAnswer("downsample", 0.25, error="no memory", whole=256).share is None
    assert "whole" not in smaller.to_json()
