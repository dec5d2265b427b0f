"""The masks of a step of fixed shape: made once, and such that CUDA's fused kernels take them as they are."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fopru_graph.lvlm.decoding.captured import CapturedRunner
from fopru_graph.lvlm.decoding.masks import HIDDEN, additive_mask, visible_keys
from fopru_graph.lvlm.inputs.prompt import build_prompt
from tests import tiny
from tests.lvlm.test_invariants import everything, fastv

CUTS = {"none": [], "two": [(1, 0.5), (3, 0.5)]}
ALIGNED = 8  # elements: torch copies an additive mask whose strides are no multiple of it, in every layer
MAKES_MASKS = {"where", "logical_not", "bitwise_not", "masked_fill", "constant_pad_nd", "zeros_like"}


def stepping(family, cuts, prompts=("what?", "a longer question")):
    """A runner after its first step."""
    prompt = build_prompt(family, list(prompts), everything(family, len(prompts)))
    runner = CapturedRunner(family, prompt, [fastv(*cut) for cut in cuts], 9)
    runner.prefill()
    runner.step(torch.zeros(len(prompts), dtype=torch.long))
    return runner


@pytest.fixture
def calls(monkeypatch):
    """The tensors of every call of torch's fused attention: query, key, value and mask."""
    made, attend = [], torch.nn.functional.scaled_dot_product_attention

    def noting(query, key, value, attn_mask=None, **options):
        made.append((query, key, value, attn_mask))
        return attend(query, key, value, attn_mask=attn_mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    return made


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_fused_kernels_take_the_masks_of_a_step_as_they_are(calls, kv_heads, dtype, cuts):
    """What torch's `can_use_efficient_attention` and its preparation of masks ask for, besides the GPU."""
    family = tiny.llava("qwen2", kv_heads=kv_heads, sliding_window=10, dtype=dtype, seed=60)
    with torch.inference_mode():
        runner = stepping(family, cuts)
        calls.clear()
        runner.step(torch.ones(2, dtype=torch.long))
    assert len(calls) == len(family.layers)
    for query, key, value, mask in calls:
        assert mask.dtype == query.dtype == key.dtype == value.dtype == dtype
        assert mask.isfinite().all() and (mask.max(-1).values == 0).all()
        assert mask.stride(-1) == 1 and not any(stride % ALIGNED for stride in mask.stride()[:-1])
        assert mask.storage_offset() == key.storage_offset() == value.storage_offset() == 0
        assert key.stride(-1) == value.stride(-1) == query.stride(-1) == 1
        assert all(a in (1, b) for a, b in zip(mask.shape, (*query.shape[:3], key.shape[2]), strict=True))
        assert key.shape[1] == query.shape[1] == kv_heads  # grouped queries: no head of keys is copied


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("text", "window", "kinds"), [("llama", None, 1), ("mistral", 10, 1), ("qwen2", 10, 2)])
def test_layers_of_one_segment_and_window_share_one_mask(calls, text, window, kinds, cuts):
    family = tiny.llava(text, layers=6, sliding_window=window, seed=61)
    with torch.inference_mode():
        runner = stepping(family, cuts)
        calls.clear()
        runner.step(torch.ones(2, dtype=torch.long))
    masks = [mask for *_, mask in calls]
    windows = [window for segment in runner.segments for window in segment.windows]
    segments = [segment.index for segment in runner.segments for _ in segment.layers]
    places = zip(segments, windows, (mask.data_ptr() for mask in masks), strict=True)
    assert len({(index, window) for index, window, _ in places}) == len({mask.data_ptr() for mask in masks})
    assert len(set(windows)) == kinds


class Operations(TorchDispatchMode):
    """Counts the operations of a ``with`` block by their names."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.name().removeprefix("aten::").split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_layer_converts_or_pads_its_mask(dtype):
    found = []
    for layers in (3, 6):
        family = tiny.llava(layers=layers, dtype=dtype, seed=62)
        with torch.no_grad():  # in inference mode what attention is made of would not be seen
            runner = stepping(family, [(2, 0.5)])
            with Operations() as operations:
                runner.step(torch.ones(2, dtype=torch.long))
        found.append({name: count for name, count in operations.counts.items() if name in MAKES_MASKS})
    assert found[0] == found[1] and found[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 5])
def test_floats_hide_what_the_bools_hide(dtype, window):
    generator = torch.Generator().manual_seed(63)
    query, key, value = (torch.randn(2, 4, n, 8, generator=generator).to(dtype) for n in (1, 24, 24))
    keys = torch.arange(24).expand(2, -1).masked_fill(torch.tensor([[True] * 3 + [False] * 21, [False] * 24]), HIDDEN)
    queries = torch.tensor([[12], [20]])
    attend = torch.nn.functional.scaled_dot_product_attention
    ours = attend(query, key, value, attn_mask=additive_mask(queries, keys, dtype, window))
    assert torch.equal(ours, attend(query, key, value, attn_mask=visible_keys(queries, keys, window)))
