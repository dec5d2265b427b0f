"""The greedy loop and its gains against loops in plain Python, written from the rules."""

from __future__ import annotations

import math

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.nodes.budget import Budget
from fopru_graph.nodes.diversity_prune import DiversityPrune
from fopru_graph.pruning import batches, gram
from fopru_graph.pruning.diversity import diverse_select
from fopru_graph.pruning.gram import Gram, SquaredGram
from fopru_graph.values import Selection, Significance, Tile, VisionFeatures
from tests.lvlm.accelerator import DeviceTensor, on_host, simulated

GAINS = ("farthest", "determinant", "coverage", "transport")
WEIGHED = ("determinant", "coverage")


def cosines(features):
    rows = [[float(value) for value in row] for row in features.tolist()]
    lengths = [math.sqrt(sum(value * value for value in row)) or 1.0 for row in rows]
    return [
        [sum(a * b for a, b in zip(x, y, strict=True)) / (p * q) for y, q in zip(rows, lengths, strict=True)]
        for x, p in zip(rows, lengths, strict=True)
    ]


def best(gains, taken):
    """The highest gain of those that are not taken; of gains that differ by rounding only the lower index."""
    free = [i for i in range(len(gains)) if i not in taken]
    top = max(gains[i] for i in free)
    return next(i for i in free if gains[i] > top - 1e-9)


def slow_farthest(features, count):
    table = cosines(features)
    distances = [[1 - value for value in row] for row in table]
    everyone, taken = range(len(distances)), []
    while len(taken) < count:
        others = taken or everyone
        gains = [min((distances[i][j] for j in others if j != i), default=2.0) for i in everyone]
        taken.append(best(gains, taken))
    return taken


def determinant(kernel, taken):
    """Of the kernel's part, by elimination with pivots."""
    part, value = [[kernel[i][j] for j in taken] for i in taken], 1.0
    for column in range(len(part)):
        pivot = max(range(column, len(part)), key=lambda row: abs(part[row][column]))
        if abs(part[pivot][column]) < 1e-12:
            return 0.0
        if pivot != column:
            part[column], part[pivot], value = part[pivot], part[column], -value
        value *= part[column][column]
        for row in range(column + 1, len(part)):
            share = part[row][column] / part[column][column]
            part[row] = [a - share * b for a, b in zip(part[row], part[column], strict=True)]
    return value


def slow_determinant(kernel, count):
    taken = []
    while len(taken) < count:
        gains = [0.0 if i in taken else determinant(kernel, [*taken, i]) for i in range(len(kernel))]
        whole = determinant(kernel, taken)
        gains = [gain / whole for gain in gains]
        taken.append(best(gains, taken))
    return taken


def slow_coverage(features, count, weights):
    table = cosines(features)
    covered, taken = [0.0] * len(table), []
    while len(taken) < count:
        gains = [
            weights[j] * sum(max(0.0, row[j] - known) for row, known in zip(table, covered, strict=True))
            for j in range(len(table))
        ]
        taken.append(best(gains, taken))
        covered = [max(known, row[taken[-1]]) for row, known in zip(table, covered, strict=True)]
    return taken


def transport_kernel(features):
    columns = []
    for column in features.double().T.tolist():
        mean = sum(column) / len(column)
        spread = math.sqrt(sum((value - mean) ** 2 for value in column) / len(column))
        columns.append([(value - mean) / spread if spread > 1e-6 else 0.0 for value in column])
    rows = list(zip(*columns, strict=True))
    products = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    return [
        [(i == j) + 0.01 * sum(a * b for a, b in zip(x, y, strict=True)) for j, y in enumerate(products)]
        for i, x in enumerate(products)
    ]


def slow(features, gain, count, weights=None):
    weights = [1.0] * len(features) if weights is None else weights.tolist()
    if gain == "farthest":
        return slow_farthest(features, count)
    if gain == "coverage":
        return slow_coverage(features, count, weights)
    if gain == "transport":
        return slow_determinant(transport_kernel(features), count)
    table = cosines(features)
    return slow_determinant(
        [[p * value * q for value, q in zip(row, weights, strict=True)] for row, p in zip(table, weights, strict=True)],
        count,
    )


def select(features, gain, count, weights=None):
    return diverse_select(features[None], gain, count, None if weights is None else weights[None])[0].tolist()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("gain", GAINS)
def test_every_gain_is_its_slow_reference(gain, whole, monkeypatch):
    """Whether all products are in memory or made a column at a time; in tiles of a batch as in each alone."""
    if not whole:
        monkeypatch.setattr(gram, "WHOLE", 0)
    features, weights = torch.randn(3, 14, 24), torch.rand(3, 14) + 0.1
    given = weights if gain in WEIGHED else None
    picks = diverse_select(features, gain, 9, given)
    for tile in range(3):
        assert picks[tile].tolist() == slow(features[tile], gain, 9, weights[tile] if gain in WEIGHED else None)
    assert torch.equal(diverse_select(features, gain, 9, given), picks)


@pytest.mark.parametrize("gain", GAINS)
def test_one_token_and_all_tokens(gain):
    features = torch.randn(7, 12)
    assert select(features[:1], gain, 1) == [0]
    assert sorted(select(features, gain, 7)) == list(range(7))
    assert select(features, gain, 3) == select(features, gain, 7)[:3]
    assert select(torch.zeros(4, 5), gain, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("gain", GAINS)
def test_of_equal_gains_the_lower_index_is_taken(gain):
    """Tokens whose products are exact: at right angles, or corners of a square."""
    features = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) if gain == "transport" else torch.eye(4)
    assert select(features, gain, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("gain", GAINS)
def test_a_duplicate_comes_after_all_that_is_new(gain):
    kinds = torch.randn(5, 16)
    features = kinds[[0, 1, 0, 2, 1, 3, 4, 0]]
    order = [0, 1, 0, 2, 1, 3, 4, 0]
    count = 4 if gain == "transport" else 5  # around their mean four of five are independent
    assert len({order[pick] for pick in select(features, gain, count)}) == count
    assert sorted(select(features, gain, 8)) == list(range(8))


def test_what_a_zero_vector_is():
    features = torch.cat([torch.eye(4), torch.zeros(2, 4), torch.eye(4)[:1]])
    assert select(features, "determinant", 7) == [0, 1, 2, 3, 6, 4, 5]  # it spans nothing
    assert select(features, "coverage", 7) == [0, 1, 2, 3, 4, 5, 6]  # nor covers
    assert select(features, "farthest", 7) == [1, 0, 2, 3, 4, 5, 6]  # it is no double of any direction; 0 has one


def test_what_the_taken_tokens_span_comes_last_by_relevance():
    features = torch.cat([torch.eye(3), torch.randn(4, 3)])
    weights = torch.tensor([0.9, 1.0, 0.8, 1e-3, 3e-3, 2e-3, 3e-3])
    assert select(features, "determinant", 7, weights) == [1, 0, 2, 4, 6, 5, 3]
    weights = torch.tensor([0.0, 1.0, 0.5])  # the least relevant token of an image
    assert select(torch.eye(3), "determinant", 3, weights) == [1, 2, 0]


def test_constant_weights_change_nothing():
    features = torch.randn(20, 32)
    for gain in WEIGHED:
        assert select(features, gain, 20) == select(features, gain, 20, torch.full((20,), 0.5))


def test_half_precision_is_compared_in_float32():
    features = torch.randn(30, 48).bfloat16()
    for gain in GAINS:
        assert select(features, gain, 12) == select(features.float(), gain, 12)


@pytest.mark.parametrize("gain", GAINS)
def test_a_start_is_taken_first_and_the_others_beside_it(gain):
    features = torch.randn(2, 12, 20)
    whole = diverse_select(features, gain, 8)
    assert torch.equal(diverse_select(features, gain, 8, start=whole[:, :3]), whole)
    start = torch.tensor([[5, 2], [0, 11]])
    picks = diverse_select(features, gain, 8, start=start)
    assert torch.equal(picks[:, :2], start) and all(len(set(row)) == 8 for row in picks.tolist())
    assert torch.equal(diverse_select(features, gain, 2, start=start), start)


@pytest.mark.parametrize("make", [Gram, lambda vectors, columns: SquaredGram(vectors, columns, 0.01)])
def test_products_are_the_same_however_they_are_made(make, monkeypatch):
    vectors = torch.randn(2, 130, 8)
    whole = make(vectors, 130)
    monkeypatch.setattr(gram, "WHOLE", 0)
    lazy = make(vectors, 130)
    assert whole.whole is not None and lazy.whole is None
    picks = torch.tensor([3, 129])
    close = {"rtol": 1e-4, "atol": 1e-3}
    assert torch.allclose(whole.columns(picks), lazy.columns(picks), **close)
    assert torch.allclose(whole.diagonal, lazy.diagonal, **close)
    assert torch.equal(whole.whole, whole.whole.mT)


def test_few_columns_are_made_one_by_one():
    assert Gram(torch.randn(1, 60, 4), 4).whole is None
    assert Gram(torch.randn(1, 60, 4), 5).whole is not None


def tiles_of(*tiles, images=None):
    images = range(len(tiles)) if images is None else images
    made = [Tile(x, (1, len(x)), image, None) for x, image in zip(tiles, images, strict=True)]
    return VisionFeatures(tuple(made), ())


def significance_of(features, scores):
    return Significance.of(features, scores, "toy")


@pytest.mark.parametrize("gain", GAINS)
def test_tiles_and_images_are_pruned_as_if_alone(gain):
    """Two images of three tiles of two sizes: over tiles each tile, over images each image's tiles end to end."""
    made = [torch.randn(n, 24) for n in (8, 12, 8, 8, 12, 8)]
    features = tiles_of(*made, images=[0, 0, 0, 1, 1, 1])
    weights = [torch.rand(len(tile)) + 0.1 for tile in made]
    given = significance_of(features, weights) if gain in WEIGHED else None
    chosen = DiversityPrune()(features=features, gain=gain, significance=given, ratio=0.5)
    for tile, weight, kept in zip(made, weights, chosen.indices, strict=True):
        assert kept.tolist() == slow(tile, gain, len(tile) // 2, weight if given else None)
    assert chosen.counts == features.counts and bool(chosen.scores_finite)
    chosen = DiversityPrune()(features=features, gain=gain, significance=given, tokens=9, over="image")
    for first in (0, 3):
        together = torch.cat(made[first : first + 3])
        expected = slow(together, gain, 9, torch.cat(weights[first : first + 3]) if given else None)
        offsets = (0, 8, 20, 28)
        for number in range(3):
            low, high = offsets[number : number + 2]
            assert chosen.indices[first + number].tolist() == [i - low for i in expected if low <= i < high]


def test_a_batch_that_is_too_large_is_split(monkeypatch):
    features = tiles_of(*torch.randn(5, 10, 12))
    whole = DiversityPrune()(features=features, gain="farthest", ratio=0.5)
    monkeypatch.setattr(batches, "WHOLE", 200)
    parts = DiversityPrune()(features=features, gain="farthest", ratio=0.5)
    assert all(map(torch.equal, whole.indices, parts.indices))


def test_budget_and_start_come_from_other_bricks():
    features = tiles_of(torch.randn(8, 12), torch.randn(16, 12))
    budgets = Budget()(features=features, ratio=0.5, share=0.25)
    start = Selection((torch.tensor([3]), torch.tensor([9, 1])), features.counts)
    first = DiversityPrune()(features=features, gain="farthest", budget=budgets.part)
    assert [len(kept) for kept in first.indices] == [1, 2]
    filled = DiversityPrune()(features=features, gain="farthest", budget=budgets.whole, start=start)
    assert [len(kept) for kept in filled.indices] == [4, 8]
    assert filled.indices[0][0] == 3 and filled.indices[1][:2].tolist() == [9, 1]
    whole = DiversityPrune()(features=features, gain="farthest", ratio=0.5)
    assert all(
        map(
            torch.equal,
            DiversityPrune()(features=features, gain="farthest", ratio=0.5, start=first).indices,
            whole.indices,
        )
    )
    none = Budget()(features=features, ratio=0.5, share=0.0).part
    assert [len(kept) for kept in DiversityPrune()(features=features, gain="farthest", budget=none).indices] == [0, 0]


@pytest.mark.parametrize("gain", GAINS)
def test_no_pick_waits_for_the_device(gain):
    """Only a budget over several tiles does, once, as it does for all scores."""
    made, weights = [torch.randn(8, 12), torch.randn(8, 12)], [torch.rand(8), torch.rand(8)]

    def prune(over, wrap):
        features = tiles_of(*map(wrap, made), images=[0, 0])
        given = significance_of(features, list(map(wrap, weights))) if gain in WEIGHED else None
        return DiversityPrune()(features=features, gain=gain, significance=given, over=over)

    for over, waits in (("tile", 0), ("image", 1)):
        expected = prune(over, torch.Tensor.clone)
        with simulated() as device:
            found = prune(over, DeviceTensor)
        assert len(device.waits) == waits, device.waits
        assert all(torch.equal(on_host(a), b) for a, b in zip(found.indices, expected.indices, strict=True))


def test_wrong_significance_is_refused():
    features = tiles_of(torch.randn(8, 12))
    other = significance_of(tiles_of(torch.randn(9, 12)), [torch.rand(9)])
    with pytest.raises(UserError, match="different tokens"):
        DiversityPrune()(features=features, gain="coverage", significance=other)
    right = significance_of(features, [torch.rand(8)])
    for gain in set(GAINS) - set(WEIGHED):
        with pytest.raises(UserError, match=f"{gain} reads no significance"):
            DiversityPrune()(features=features, gain=gain, significance=right)


@pytest.mark.parametrize("broken", ["features", "significance"])
def test_numbers_that_are_none_are_told(broken):
    made, weights = torch.randn(8, 12), torch.rand(8)
    (made if broken == "features" else weights)[3] = torch.nan
    features = tiles_of(made)
    chosen = DiversityPrune()(features=features, gain="determinant", significance=significance_of(features, [weights]))
    assert not bool(chosen.scores_finite) and len(set(chosen.indices[0].tolist())) == 2
