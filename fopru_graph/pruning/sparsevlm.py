"""SparseVLM (arXiv 2410.04417): text tokens that have to do with the pictures rate the visual tokens; some come back.

What is dropped but rated well is recycled: clustered, each cluster averaged into its centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from fopru_graph.pruning.attention import queries_at_a_time
from fopru_graph.pruning.density_peaks import density_peaks
from fopru_graph.pruning.in_llm import attention_of, text_behind
from fopru_graph.values import LayerView

RECYCLED_PER_CENTRE = 10


def rater_scores(view: LayerView) -> torch.Tensor:
    """Attention of the raters to every token, averaged over heads and raters.

    Raters are the text tokens behind the first visual one to which the visual tokens' embeddings are nearer than on
    average: the softmax over these text tokens of the dot products, averaged over the visual tokens, is above its mean.
    If none is (there is one, or all are alike), all of them rate; without text there, the sample's last token does.

    Returns:
        (B, M) float32.
    """
    text = text_behind(view)
    alone = ~text.any(1)
    text[:, -1] |= alone
    rows = text.int().argsort(dim=1, descending=True, stable=True)[
        :, : max(1, *view.text_counts)
    ]  # all text, as few rows
    real = text.gather(1, rows)
    relevance = _relevance(view, rows, real)
    mean = relevance.sum(1, keepdim=True) / real.sum(1, keepdim=True)
    raters = real & (relevance > mean)
    raters = torch.where(raters.any(1, keepdim=True), raters, real)
    return (attention_of(view, rows) * raters[..., None]).sum(1) / raters.sum(1, keepdim=True)


def _relevance(view: LayerView, rows: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """(B, R): how much of the visual tokens' softmax over the text ``rows`` goes to each, where they are ``real``."""
    embeds = view.embeds.to(view.hidden.device).float()
    text = torch.take_along_dim(embeds, rows[..., None], 1).mT
    total = torch.zeros(rows.shape, device=embeds.device)
    step = queries_at_a_time(embeds.device, rows.numel())
    for part, visual in zip(torch.split(embeds, step, 1), torch.split(view.visual, step, 1), strict=True):
        shares = (part @ text).masked_fill(~real[:, None], -torch.inf).softmax(-1)
        total += (shares * visual[..., None]).sum(1)
    return total / view.visual.sum(1, keepdim=True).clamp(min=1)


@dataclass(frozen=True, eq=False)
class SparseVLM:
    """The rule at one layer: `score` and `merge` of an `InLLMPruner` with a budget.

    The budget K of a sample holds kept tokens and centres. Of the D dropped ones the best rated ⌊``recycle`` · D⌋ + 1
    are clustered by `density_peaks` of their hidden states, around ⌊that / 10⌋ + 1 centres, but K − 1 at most; D counts
    N − K for that, so that the number of centres is known first. Nothing is recycled if ``recycle`` is 0.
    """

    recycle: float = 0.3

    def score(self, view: LayerView) -> torch.Tensor:
        """(B, M) float32: what stays has the highest scores, centres too."""
        return _plan(view, self.recycle)[0]

    def merge(self, view: LayerView, keep: torch.Tensor) -> torch.Tensor:
        """(B, K, M): the mean of each token that stays and those merged into it."""
        into = _plan(view, self.recycle)[1]
        members = (into[:, None, :] == keep[..., None]).float()
        return members / members.sum(-1, keepdim=True).clamp(min=1)


_plans: WeakKeyDictionary[LayerView, tuple[torch.Tensor, torch.Tensor]] = WeakKeyDictionary()


def _plan(view: LayerView, recycle: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores (B, M), and the token (B, M) that each goes on in, −1 for none: made once for a view."""
    if view not in _plans:
        ratings = rater_scores(view)
        into = torch.arange(ratings.shape[1], device=ratings.device).repeat(len(ratings), 1)
        for sample in range(len(ratings) if recycle else 0):
            _recycle(view, sample, recycle, ratings[sample], into[sample])
        _plans[view] = ratings, into
    return _plans[view]


def _recycle(view: LayerView, sample: int, share: float, ratings: torch.Tensor, into: torch.Tensor) -> None:
    """Raise the ratings (M,) of a sample's centres above all, and write into ``into`` (M,) where dropped tokens go."""
    count, budget = view.visual_counts[sample], view.budget[sample]
    centres = min(_recycled(count - budget, share) // RECYCLED_PER_CENTRE + 1, budget - 1)
    if budget == count or centres < 1:
        return
    index = view.visual[sample].int().argsort(descending=True, stable=True)[:count]
    dropped = index[ratings[index].argsort(descending=True, stable=True)][budget - centres :]
    back = dropped[: _recycled(len(dropped), share)]
    peaks, cluster = density_peaks(view.hidden[sample, back], centres)
    ratings[back[peaks]] += 2.0  # no attention is above 1
    into[dropped] = -1
    into[back] = back[peaks][cluster]


def _recycled(dropped: int, share: float) -> int:
    return min(dropped, math.floor(share * dropped) + 1)
