"""SparseVLM (arXiv 2410.04417): text tokens that have to do with the pictures rate the visual tokens; some come back.

What is dropped but rated well is recycled: clustered, each cluster averaged into its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from fopru_graph.pruning.density_peaks import density_peaks
from fopru_graph.pruning.in_llm import attention_of, text_behind
from fopru_graph.pruning.linear_merge import mean_of_members
from fopru_graph.pruning.similarity import product_blocks
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
    text[:, -1] |= ~text.any(1)
    rows = text.int().argsort(dim=1, descending=True, stable=True)[:, : max(1, *view.text_counts)]  # (B, R), all text
    real = text.gather(1, rows)
    embeds = view.embeds.to(view.hidden.device).float()
    relevance = torch.zeros(rows.shape, device=embeds.device)
    for block, products in product_blocks(embeds, torch.take_along_dim(embeds, rows[..., None], 1)):
        shares = products.masked_fill(~real[:, None], -torch.inf).softmax(-1)
        relevance += (shares * view.visual[:, block, None]).sum(1)
    raters = real & (relevance > relevance.sum(1, keepdim=True) / real.sum(1, keepdim=True))
    raters = torch.where(raters.any(1, keepdim=True), raters, real)
    return (attention_of(view, rows) * raters[..., None]).sum(1) / raters.sum(1, keepdim=True)


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
        return mean_of_members(_plan(view, self.recycle)[1], keep)


_plans: WeakKeyDictionary[LayerView, tuple[torch.Tensor, torch.Tensor]] = WeakKeyDictionary()


def _plan(view: LayerView, recycle: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores (B, M), and the token (B, M) that each goes on in, −1 for none: made once for a view."""
    if view not in _plans:
        ratings = rater_scores(view)
        into = torch.arange(ratings.shape[1], device=ratings.device).repeat(len(ratings), 1)
        for sample, (count, budget) in enumerate(zip(view.visual_counts, view.budget, strict=True)):
            if recycle and 1 < budget < count:
                _recycle(view, sample, recycle, ratings[sample], into[sample])
        _plans[view] = ratings, into
    return _plans[view]


def _recycle(view: LayerView, sample: int, share: float, ratings: torch.Tensor, into: torch.Tensor) -> None:
    """Raise the ratings (M,) of a sample's centres above all, and write into ``into`` (M,) where dropped tokens go."""
    count, budget = view.visual_counts[sample], view.budget[sample]
    recycled = min(count - budget, int(share * (count - budget)) + 1)
    centres = min(recycled // RECYCLED_PER_CENTRE + 1, budget - 1)
    ranked = ratings.masked_fill(~view.visual[sample], -torch.inf).argsort(descending=True, stable=True)
    dropped = ranked[budget - centres : count]
    back = dropped[: int(share * len(dropped)) + 1]
    peaks, cluster = density_peaks(view.hidden[sample, back], centres)
    ratings[back[peaks]] += 2.0  # no attention is above 1
    into[dropped] = -1
    into[back] = back[peaks][cluster]
