"""DART against a loop written from its rule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fopru_graph.pruning.dart import least_duplicated
from tests.pruning.views import chosen, view


def cosine(a, b):
    norms = float(a.norm() * b.norm())
    return float(a @ b) / norms if norms > 0 else 0.0


def by_hand(sample, row=0, visual_pivots=4, text_pivots=4):
    """The kept indices of one sample, pivot by pivot."""
    budget = sample.budget[row]
    norm = [float(sample.key[row, :, i].double().abs().sum()) for i in range(sample.key.shape[2])]
    visual = sample.visual[row].nonzero()[:, 0].tolist()
    text = [i for i in sample.text[row].nonzero()[:, 0].tolist() if i > min(visual)]
    strongest = [sorted(kind, key=lambda i: (-norm[i], i)) for kind in (visual, text)]
    kept = strongest[0][: min(visual_pivots, budget)]
    pivots = kept + strongest[1][:text_pivots]
    rest = budget - len(kept)
    states = sample.hidden[row].double()
    for turn, pivot in enumerate(pivots):
        quota = rest // len(pivots) + (turn < rest % len(pivots))
        left = [i for i in visual if i not in kept]
        kept = kept + sorted(left, key=lambda i: (cosine(states[i], states[pivot]), i))[:quota]
    return sorted(kept)


SAMPLES = {
    "one": ["ttvvvvvvvvvvvvvvvvvvvvvvvvtttttt"],
    "padded, two pictures, few words": ["tvvvvvvvvvvvvvvtvvvvvvvvvvvvtttt", "------ttvvvvvvvvvvvvvvvvvvvvvvtt"],
    "no text behind": ["ttttvvvvvvvvvvvvvvvvvvvvvvvvvvvv"],
    "one visual token": ["tttttttttvtttttt"],
}


@pytest.mark.parametrize("ratio", [0.05, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("kinds", SAMPLES)
def test_it_is_its_rule(kinds, ratio):
    for seed in range(3):
        sample = view(SAMPLES[kinds], seed, ratio)
        scores = least_duplicated(sample)
        assert tuple(scores.sum(1)) == sample.budget and not scores[~sample.visual].any()
        assert chosen(scores, sample) == [by_hand(sample, row) for row in range(len(scores))]


def test_other_numbers_of_pivots_and_of_tokens():
    for visual_pivots, text_pivots, tokens in ((1, 0, 7), (2, 3, 20), (6, 1, 3), (30, 9, 24)):
        sample = view(SAMPLES["one"], 5, tokens=tokens)
        scores = least_duplicated(sample, visual_pivots, text_pivots)
        assert chosen(scores, sample) == [by_hand(sample, 0, visual_pivots, text_pivots)]


def test_equal_keys_and_duplicated_or_zero_states_go_by_index():
    kinds = ["t" + "v" * 16 + "tttt"]
    hidden, key = torch.zeros(1, 21, 16), torch.ones(1, 2, 21, 8)
    zero = view(kinds, ratio=0.5, hidden=hidden, key=key)
    assert chosen(least_duplicated(zero), zero) == [[*range(1, 9)]]
    hidden[:, :9, 0] = hidden[:, 9:, 1] = 1.0  # two kinds of tokens
    for tokens in (3, 8, 13):
        sample = view(kinds, tokens=tokens, hidden=hidden, key=key)
        assert chosen(least_duplicated(sample), sample) == [by_hand(sample)]


def test_half_precision_is_compared_in_float32():
    sample = view(SAMPLES["one"], 2, 0.4)
    low = replace(sample, key=sample.key.bfloat16(), hidden=sample.hidden.bfloat16())
    same = replace(low, key=low.key.float(), hidden=low.hidden.float())
    assert torch.equal(least_duplicated(low), least_duplicated(same))
