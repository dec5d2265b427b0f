"""Scores from the encoder's attention against one weight at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fopru_graph.errors import UserError
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.pruning.attention import (
    attention_means,
    cls_attention,
    pool_scores,
    queries_at_a_time,
    significance,
)
from fopru_graph.values import Tile, TileAttention, VisionFeatures


def slow_map(query, key, scale):
    """The head-averaged attention map, one entry at a time, in float64."""
    heads, count, _ = query.shape
    total = torch.zeros(count, count, dtype=torch.float64)
    for h in range(heads):
        for i in range(count):
            logits = [float(query[h, i].double() @ key[h, j].double()) * scale for j in range(count)]
            peak = max(logits)
            weights = [math.exp(x - peak) for x in logits]
            for j in range(count):
                total[i, j] += weights[j] / sum(weights) / heads
    return total


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("block", [1, 100, 10_000])  # one row at a time, a few, all
def test_attention_means_equal_the_full_map(prefix, block):
    generator = torch.Generator().manual_seed(prefix)
    query, key = torch.randn(2, 3, prefix + 9, 8, generator=generator)
    given_, received = attention_means(query, key, 0.3, prefix, block)
    full = slow_map(query, key, 0.3)[prefix:, prefix:]
    for i in range(9):
        assert given_[i].item() == pytest.approx(sum(full[i, j].item() for j in range(9)) / 9, abs=1e-6)
        assert received[i].item() == pytest.approx(sum(full[j, i].item() for j in range(9)) / 9, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_block_changes_no_more_than_the_rounding_of_the_means(dtype):
    query, key = torch.randn(2, 4, 601, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    whole = attention_means(query, key, 0.25, 1, block=1 << 23)
    for block in (None, 1, 1 << 15):
        for mean, expected in zip(attention_means(query, key, 0.25, 1, block), whole, strict=True):
            assert torch.allclose(mean, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_are_laid_out_once_for_the_products_of_all_blocks(dtype):
    layouts = []

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
            if function is torch.ops.aten.bmm.default:
                layouts.append((args[1].data_ptr(), args[1].is_contiguous()))
            return function(*args, **(kwargs or {}))

    heads_last = torch.randn(2, 601, 4, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    with Products():
        attention_means(*heads_last.transpose(1, 2), 0.25, 1, block=1 << 15)  # as towers hand them over
    assert len(layouts) > 1
    assert len(set(layouts)) == 1
    assert all(contiguous for _, contiguous in layouts)


@pytest.mark.parametrize(("patches", "queries"), [(576, 56), (729, 44), (2304, 32), (4096, 32)])
def test_blocks_stay_in_a_processor_s_cache_but_never_have_few_queries(patches, queries):
    assert queries_at_a_time(torch.device("cpu"), 16 * patches) == queries


@pytest.mark.parametrize(("gigabytes", "weights"), [(4, 1 << 22), (8, 1 << 23), (80, 1 << 25)])
def test_blocks_on_a_gpu_grow_with_the_memory_of_the_gpu_that_holds_the_tensors(monkeypatch, gigabytes, weights):
    sizes = {"cuda:0": 1, "cuda:1": gigabytes}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=sizes[str(device)] << 30)
    )
    assert queries_at_a_time(torch.device("cuda:1"), 16 * 2304) == weights // (16 * 2304)
    assert queries_at_a_time(torch.device("cuda:1"), 1 << 40) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert queries_at_a_time(torch.device("cuda:1"), 1 << 20) == 32


def test_without_a_prefix_given_is_constant_so_received_wins():
    query, key = torch.randn(2, 4, 25, 8, generator=torch.Generator().manual_seed(0))
    given_, received = attention_means(query, key, 1.0)
    assert given_.std() < 1e-7 < received.std()
    assert significance(given_, received)[1]


def test_the_larger_variance_wins_and_a_tie_goes_to_received():
    flat, spread = torch.full((4,), 0.5), torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert not significance(spread, flat)[1]
    assert significance(flat, spread)[1]
    scores, side = significance(spread, spread.flip(0))
    assert side
    assert torch.equal(scores, spread.flip(0))
    assert torch.equal(significance(spread, flat, "received")[0], flat)
    with pytest.raises(UserError, match="sideways"):
        significance(flat, spread, "sideways")


def slow_row(query, key, scale, prefix, joint):
    """The CLS row in float64: every head by itself, or all of them as one."""
    heads, count, size = query.shape
    query, key = query.double(), key.double()
    if joint:
        logits = [
            sum(float(query[h, 0] @ key[h, j]) for h in range(heads)) / math.sqrt(heads * size) for j in range(count)
        ]
        rows = [logits]
    else:
        rows = [[float(query[h, 0] @ key[h, j]) * scale for j in range(count)] for h in range(heads)]
    row = [0.0] * count
    for logits in rows:
        weights = [math.exp(x - max(logits)) for x in logits]
        row = [old + new / sum(weights) / len(rows) for old, new in zip(row, weights, strict=True)]
    return row[prefix:]


@pytest.mark.parametrize("prefix", [1, 2, 5])
@pytest.mark.parametrize("heads", ["mean", "joint"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_row_equals_softmax_by_hand(prefix, heads, dtype):
    query, key = torch.randn(2, 3, prefix + 9, 8, generator=torch.Generator().manual_seed(prefix)).to(dtype)
    found = cls_attention(TileAttention(query, key, 8**-0.5, prefix, has_cls=True), heads)
    assert found.dtype == torch.float32 and found.shape == (9,)
    assert found.tolist() == pytest.approx(slow_row(query, key, 8**-0.5, prefix, heads == "joint"), abs=1e-6)
    assert 0 < found.sum() < 1  # what CLS pays to itself is cut off, not spread


def test_joint_and_mean_differ_and_one_head_is_both():
    query, key = torch.randn(2, 3, 10, 8, generator=torch.Generator().manual_seed(0))
    several = TileAttention(query, key, 0.3, 1, has_cls=True)
    assert not torch.allclose(cls_attention(several), cls_attention(several, "joint"), atol=1e-3)
    single = TileAttention(query[:1], key[:1], 0.3, 1, has_cls=True)
    assert torch.allclose(cls_attention(single, "mean"), cls_attention(single, "joint"))


@pytest.mark.parametrize("prefix", [0, 1, 4])
def test_a_tower_without_cls_is_refused_with_the_alternative_whatever_stands_before_its_patches(prefix):
    query, key = torch.randn(2, 3, 9, 8)
    with pytest.raises(UserError, match="no CLS token") as refused:
        cls_attention(TileAttention(query, key, 0.3, prefix))
    assert "type: Significance" in refused.value.hint


def test_other_heads_than_mean_and_joint_are_refused():
    query, key = torch.randn(2, 3, 9, 8)
    with pytest.raises(UserError, match="middle"):
        cls_attention(TileAttention(query, key, 0.3, 1, has_cls=True), "middle")


def features(patch_groups=None, weights=None):
    """Two tiles of one image, nine patches behind one CLS token."""
    made = []
    for seed in (0, 1):
        query, key = torch.randn(2, 3, 10, 8, generator=torch.Generator().manual_seed(seed))
        count = 9 if patch_groups is None else len(patch_groups)
        attention = TileAttention(query, key, 0.3, 1, patch_groups, weights, has_cls=True)
        made.append(Tile(torch.zeros(count, 4), (1, count), 0, attention, tile_position=(0, seed)))
    return VisionFeatures(tuple(made), ())


def test_the_node_scores_tile_by_tile_and_pools_merged_patches():
    plain = features()
    scores = ClsAttention()(features=plain)
    rows = [cls_attention(tile.attention) for tile in plain.tiles]
    assert all(torch.equal(a, b) for a, b in zip(scores.scores, rows, strict=True))
    assert (
        scores.direction_names == ("cls", "cls")
        and scores.tile_positions == ((0, 0), (0, 1))
        and scores.images == (0, 0)
    )
    patch_groups = torch.tensor([[0, 8], [3, 4]])
    pooled = ClsAttention()(features=features(patch_groups))
    shares = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    weighted = ClsAttention()(features=features(patch_groups, shares))
    for row, mean, share in zip(rows, pooled.scores, weighted.scores, strict=True):
        assert mean.tolist() == pytest.approx([(row[0] + row[8]).item() / 2, (row[3] + row[4]).item() / 2])
        assert share.tolist() == pytest.approx([(0.25 * row[0] + 0.75 * row[8]).item(), row[3].item()])


def test_it_is_a_row_of_the_map_that_fopru_reduces():
    """With CLS as the only prefix, all rows but that of CLS are FoPru's: the two scores have nothing in common."""
    query, key = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(3))
    full = torch.softmax(query[0] @ key[0].T * 0.5, -1)
    assert torch.allclose(cls_attention(TileAttention(query, key, 0.5, 1, has_cls=True)), full[0, 1:])
    assert torch.allclose(attention_means(query, key, 0.5, 1)[1], full[1:, 1:].mean(0))


def test_weighted_pooling_equals_the_sum_by_hand():
    scores, patch_groups = torch.tensor([1.0, 2, 4, 8]), torch.tensor([[0, 1], [3, 3]])
    weights = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    assert pool_scores(scores, patch_groups, weights).tolist() == [1.75, 8.0]
    assert pool_scores(scores, patch_groups).tolist() == [1.5, 8.0]
    assert pool_scores(scores, None) is scores


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_vectors_in_half_precision_are_pooled_in_float32(dtype):
    """Means that half precision rounds to one number tell tokens apart, and so do their cosines."""
    vectors = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    groups = torch.arange(12).view(3, 4)
    pooled = pool_scores(vectors, groups)
    assert torch.allclose(pooled.double(), vectors.double()[groups].mean(1), atol=1e-7)
