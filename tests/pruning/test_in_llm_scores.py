"""The scores of PriorTR and V2Drop against slow references written from their rules."""

from __future__ import annotations

import math

import pytest
import torch

from fopru_graph.pruning.in_llm import attention_of, last_token_attention
from fopru_graph.pruning.prior import prior_corrected_attention
from fopru_graph.pruning.variation import variation
from fopru_graph.values import LayerView

# t text, v visual, . padding or filler; two images in the first samples
SAMPLES = ("ttvvvtvvtt", "..vvvttttt", "...tvttttt", "..ttttttvv", "....ttttvt", "tttttttttt", "vvvvvvvvvv")


def view_of(kinds, mask="bool", dtype=torch.float32, seed=0, groups=2, **changes):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    batch, length = len(kinds), len(kinds[0])
    tokens = torch.tensor([list(map(ord, sample)) for sample in kinds])
    real = tokens != ord(".")
    causal = real[:, None, None, :] & torch.ones(length, length, dtype=torch.bool).tril()
    masks = {
        "none": None,
        "bool": causal,
        "float": torch.zeros(batch, 1, length, length).masked_fill(~causal, torch.finfo(torch.float32).min),
        "two-dimensional": real.long(),
    }
    given = {
        "layer": 3,
        "query": draw(batch, 4, length, 8),
        "key": draw(batch, groups, length, 8),
        "value": draw(batch, groups, length, 8),
        "scale": 0.5,
        "mask": masks[mask],
        "hidden": draw(batch, length, 16),
        "visual": tokens == ord("v"),
        "text": tokens == ord("t"),
        "places": torch.arange(length).expand(batch, -1),
    }
    before = draw(batch, length, 16)
    return LayerView(**(given | {"_states": {1: lambda: before}} | changes))


def attention_by_hand(view, sample, row, real):
    """Attention of one token to every token it sees, mean over heads, one number at a time in double precision."""
    query, key = view.query[sample].double(), view.key[sample].double()
    heads, groups, length = query.shape[0], key.shape[0], query.shape[1]
    total = [0.0] * length
    for head in range(heads):
        logits = [float(query[head, row] @ key[head * groups // heads, j]) * view.scale for j in range(length)]
        weights = [math.exp(logits[j]) if real[j] and j <= row else 0.0 for j in range(length)]
        for j in range(length):
            total[j] += weights[j] / sum(weights) / heads
    return total


def prior_by_hand(view, kinds, sample):
    """P · log(P / Q) of the visual tokens of one sample, in double precision."""
    kind, last = kinds[sample], len(kinds[sample]) - 1
    real, visual = [k != "." for k in kind], [j for j, k in enumerate(kind) if k == "v"]
    scores = [0.0] * len(kind)
    if not visual:
        return scores
    after = [j for j in range(visual[-1] + 1, len(kind)) if kind[j] == "t"]
    p = attention_by_hand(view, sample, last, real)
    p = {j: p[j] / sum(p[i] for i in visual) for j in visual}
    for j in visual:
        scores[j] = p[j]
    if after and after[0] < last:
        q = attention_by_hand(view, sample, after[0], real)
        q = {j: q[j] / sum(q[i] for i in visual) for j in visual}
        for j in visual:
            scores[j] = p[j] * math.log(p[j] / q[j])
    return scores


@pytest.mark.parametrize("mask", ["bool", "float", "two-dimensional", "none"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_prior_corrected_attention_equals_its_rule(mask, groups):
    kinds = [sample for sample in SAMPLES if mask != "none" or "." not in sample]
    view = view_of(kinds, mask, groups=groups)
    ours = prior_corrected_attention(view)
    assert ours.shape == view.visual.shape and ours.dtype == torch.float32
    for sample in range(len(kinds)):
        assert ours[sample].tolist() == pytest.approx(prior_by_hand(view, kinds, sample), abs=1e-6)


@pytest.mark.parametrize("mask", ["bool", "float", "two-dimensional", "none"])
def test_the_attention_of_any_token_is_the_softmax_over_what_it_sees(mask):
    kinds = ["ttvvvtvvtt", "..vvvttttt" if mask != "none" else "vvvvvttttt"]
    view = view_of(kinds, mask)
    rows = torch.tensor([[9, 4, 0], [2, 9, 7]])
    ours = attention_of(view, rows)
    for sample, row in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]:
        real = [kind != "." for kind in kinds[sample]]
        expected = attention_by_hand(view, sample, int(rows[sample, row]), real)
        assert ours[sample, row].tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(attention_of(view, torch.tensor([[9], [9]]))[:, 0], last_token_attention(view))


def test_a_question_that_adds_nothing_gives_all_tokens_the_same_score():
    """Duplicated visual tokens tie exactly, and so does a query that attends as the prior does."""
    view = view_of(["tvvvvvvttt"])
    view.key[:, :, 2:6] = view.key[:, :, 1:2]
    scores = prior_corrected_attention(view)[0]
    assert len(set(scores[1:6].tolist())) == 1 and scores[6] != scores[5]
    view.key[:], view.query[:, :, 9] = view.key[:, :1].clone(), view.query[:, :1, 7].clone()
    view.query[:, :, 7] = view.query[:, :, 9]
    assert prior_corrected_attention(view)[0].abs().max() < 1e-6


def test_attention_that_vanishes_leaves_scores_finite():
    view = view_of(["tvvvtt"])
    view.key[:, :, 2] = -1e3 * view.query[:, ::2, 4]  # the token behind the image gives it a share of zero
    scores = prior_corrected_attention(view)
    assert scores.isfinite().all()
    assert prior_corrected_attention(view_of(["tvvvtt"], query=torch.zeros(1, 4, 6, 8))).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_variation_is_the_distance_in_float32(dtype):
    view = view_of(SAMPLES, dtype=dtype)
    view.hidden[0, 3] = view.hidden_after(-2)[0, 3]
    view.hidden[0, 4:6] = view.hidden_after(-2)[0, 4:6] = 1.0
    ours = variation(view)
    assert ours.dtype == torch.float32 and torch.equal(ours[0, 3:6], torch.zeros(3))
    before = view.hidden_after(1)
    for sample in range(len(SAMPLES)):
        for token in range(10):
            pairs = zip(view.hidden[sample, token].tolist(), before[sample, token].tolist(), strict=True)
            assert float(ours[sample, token]) == pytest.approx(math.sqrt(sum((a - b) ** 2 for a, b in pairs)), rel=1e-5)


@pytest.mark.parametrize("score", [prior_corrected_attention, variation])
def test_scores_repeat_and_do_not_change_what_they_read(score):
    view, same = view_of(SAMPLES), view_of(SAMPLES)
    assert torch.equal(score(view), score(view))
    assert all(torch.equal(getattr(view, name), getattr(same, name)) for name in ("query", "key", "hidden", "visual"))
