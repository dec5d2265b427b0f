"""SparseVLM against loops written from its rule: raters, ratings, recycling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fopru_graph.pruning.in_llm import attention_of, last_token_attention
from fopru_graph.pruning.sparsevlm import SparseVLM, rater_scores
from tests.pruning.test_density_peaks import by_hand as peaks_by_hand
from tests.pruning.views import chosen, view

SAMPLES = {
    "one": ["ttvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvtttttt"],
    "padded, two pictures": ["tvvvvvvvvvvvvvvvvvvtvvvvvvvvvtttt", "-----------ttvvvvvvvvvvvvvvvvvvtt"],
    "ends with its picture": ["tttvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv"],
    "one word": ["tvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvt"],
}


def attention_by_hand(sample, row, query):
    """(M,) head-mean attention of one token."""
    heads, groups = sample.query.shape[1], sample.key.shape[1]
    seen = [i for i in range(query + 1) if bool(sample.visual[row, i] | sample.text[row, i])]
    mean = torch.zeros(sample.key.shape[2], dtype=torch.float64)
    for head in range(heads):
        keys = sample.key[row, head * groups // heads].double()
        logits = {i: float(sample.query[row, head, query].double() @ keys[i]) * sample.scale for i in seen}
        total = sum(map(math.exp, logits.values()))
        for i in seen:
            mean[i] += math.exp(logits[i]) / total / heads
    return mean


def ratings_by_hand(sample, row):
    visual = sample.visual[row].nonzero()[:, 0].tolist()
    text = [i for i in sample.text[row].nonzero()[:, 0].tolist() if i > visual[0]] or [sample.text.shape[1] - 1]
    embeds = sample.embeds[row].double()
    relevance = torch.stack([(embeds[text] @ embeds[i]).softmax(0) for i in visual]).mean(0)
    raters = [t for t, share in zip(text, relevance.tolist(), strict=True) if share > 1 / len(text)] or text
    return torch.stack([attention_by_hand(sample, row, t) for t in raters]).mean(0)


def plan_by_hand(sample, row=0, recycle=0.3):
    """Which token each goes on in, by index; dropped tokens that are not recycled are missing."""
    ratings, budget = ratings_by_hand(sample, row), sample.budget[row]
    visual = sample.visual[row].nonzero()[:, 0].tolist()
    ranked = sorted(visual, key=lambda i: (-float(ratings[i]), i))
    spare = len(visual) - budget
    centres = min((min(spare, math.floor(recycle * spare) + 1)) // 10 + 1, budget - 1) if spare else 0
    kept, dropped = ranked[: budget - centres], ranked[budget - centres :]
    goes = {i: i for i in kept}
    if centres:
        back = dropped[: min(len(dropped), math.floor(recycle * len(dropped)) + 1)]
        peaks, cluster = peaks_by_hand(sample.hidden[row, back], centres)
        goes |= {i: back[peaks[c]] for i, c in zip(back, cluster, strict=True)}
    return goes


@pytest.mark.parametrize("kinds", SAMPLES)
def test_ratings_are_their_rule(kinds):
    for seed in range(3):
        sample = view(SAMPLES[kinds], seed)
        ours = rater_scores(sample)
        for row in range(len(ours)):
            assert torch.allclose(ours[row].double(), ratings_by_hand(sample, row), atol=1e-6)


@pytest.mark.parametrize("ratio", [0.02, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("kinds", SAMPLES)
def test_what_stays_and_what_goes_where_is_its_rule(kinds, ratio):
    sample, rule = view(SAMPLES[kinds], 7, ratio), SparseVLM()
    plans = [plan_by_hand(sample, row) for row in range(len(SAMPLES[kinds]))]
    stays = chosen(rule.score(sample), sample)
    assert stays == [sorted(set(plan.values())) for plan in plans]
    for row, (keep, plan) in enumerate(zip(stays, plans, strict=True)):
        weights = rule.merge(sample, torch.tensor([keep] * len(plans)))[row]
        for token, into in zip(keep, weights, strict=True):
            members = [i for i, where in plan.items() if where == token]
            expected = torch.zeros(len(into))
            expected[members] = 1 / len(members)
            assert torch.equal(into, expected)


def test_text_goes_on_as_it_is():
    sample, rule = view(SAMPLES["one"], ratio=0.2), SparseVLM()
    text = sample.text.nonzero()[:, 1]
    rule.score(sample)
    assert torch.equal(rule.merge(sample, text[None])[0], torch.eye(sample.text.shape[1])[text])


def test_without_recycling_it_is_a_ranking():
    sample = view(SAMPLES["one"], 3)
    rule, keep = SparseVLM(recycle=0.0), torch.tensor([[0, 5, 40]])
    assert torch.equal(rule.score(sample), rater_scores(sample))
    assert torch.equal(rule.merge(sample, keep)[0], torch.eye(sample.text.shape[1])[keep[0]])


def test_one_word_behind_the_picture_is_fastv_s_rule():
    sample = view(SAMPLES["one word"], 4)
    assert torch.allclose(rater_scores(sample), last_token_attention(sample), atol=1e-6)


def test_equal_ratings_and_equal_states_go_by_index():
    kinds = SAMPLES["one word"]
    same = torch.ones(1, len(kinds[0]), 16)
    sample = view(kinds, tokens=20, hidden=same, embeds=same, key=torch.zeros(1, 2, len(kinds[0]), 8))
    kept = chosen(SparseVLM().score(sample), sample)[0]
    assert kept == [*range(1, 21)] == sorted(set(plan_by_hand(sample).values()))


def test_masks_and_blocks_of_rows_change_nothing(monkeypatch):
    sample = view(["ttvvvvvvvvvvvvttttt"] * 2, 6)
    rows = torch.tensor([[18, 3, 14], [0, 15, 15]])
    plain = attention_of(sample, rows)
    causal = torch.ones(19, 19, dtype=torch.bool).tril()[None, None]
    added = torch.zeros(1, 1, 19, 19).masked_fill(~causal, torch.finfo(torch.float32).min)
    for mask in (causal, added, torch.ones(2, 19)):
        assert torch.equal(attention_of(replace(sample, mask=mask), rows), plain)
    monkeypatch.setattr("fopru_graph.pruning.in_llm.queries_at_a_time", lambda *_: 1)
    monkeypatch.setattr("fopru_graph.pruning.similarity.queries_at_a_time", lambda *_: 2)
    assert torch.allclose(attention_of(sample, rows), plain, atol=1e-7)
    assert torch.allclose(plain.sum(-1), torch.ones(2, 3), atol=1e-6)


def test_half_precision_is_compared_in_float32():
    sample = view(SAMPLES["one"], 2)
    names = ("query", "key", "hidden")
    low = replace(sample, **{name: getattr(sample, name).bfloat16() for name in names})
    same = replace(low, **{name: getattr(low, name).float() for name in names})
    assert torch.equal(SparseVLM().score(low), SparseVLM().score(same))
