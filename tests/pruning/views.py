"""Made-up views of pruners inside the language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.pruning.select import kept_count
from fopru_graph.values import LayerView

TEXT, VISUAL, PADDING = "t", "v", "-"


def view(
    kinds: Sequence[str], seed: int = 0, ratio: float | None = 0.25, tokens: int | None = None, **given
) -> LayerView:
    """Random samples, each a word of t (text), v (visual) and - (padding, at its left), all of one length.

    Its pruner keeps ``ratio`` of the visual tokens, or ``tokens``. ``given`` replaces tensors of the view, and
    ``embeds``.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, length, heads, groups, width = len(kinds), len(kinds[0]), 4, 2, 16
    counts = tuple(sample.count(VISUAL) for sample in kinds)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(batch, *shape, generator=generator)

    drawn = {
        "query": draw(heads, length, 8),
        "key": draw(groups, length, 8),
        "value": draw(groups, length, 8),
        "hidden": draw(length, width),
        "embeds": draw(length, width),
    }
    drawn |= given
    visual = torch.tensor([[kind == VISUAL for kind in sample] for sample in kinds])
    text = torch.tensor([[kind == TEXT for kind in sample] for sample in kinds])
    real = visual | text
    mask = None if real.all() else real[:, None, None, :] & torch.ones(length, length, dtype=torch.bool).tril()
    embeds = drawn.pop("embeds")
    return LayerView(
        layer=2,
        scale=0.5,
        mask=given.get("mask", mask),
        visual=visual,
        text=text,
        places=torch.arange(length).expand(batch, -1),
        visual_counts=counts,
        text_counts=tuple(text.sum(1).tolist()),
        budget=tuple(kept_count(count, ratio, tokens) for count in counts),
        _embeds=lambda: embeds,
        **{name: tensor for name, tensor in drawn.items() if name != "mask"},
    )


def chosen(scores: torch.Tensor, sample: LayerView) -> list[list[int]]:
    """Each sample's visual tokens that a pruner with these scores keeps, ascending."""
    ranked = scores.masked_fill(~sample.visual, -torch.inf).argsort(dim=1, descending=True, stable=True).tolist()
    return [sorted(order[:count]) for order, count in zip(ranked, sample.budget, strict=True)]
