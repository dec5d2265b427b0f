"""Capturing steps as CUDA graphs, rehearsed without CUDA: where, when, with what memory, and what if it goes wrong."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from fopru_graph.errors import Caution
from fopru_graph.lvlm.decoding import captured
from fopru_graph.lvlm.decoding.captured import BUCKET, bucket, capture_device
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.recorder import out_of_memory
from tests import tiny
from tests.lvlm.decoding.fake_cuda import FakeCuda
from tests.lvlm.test_invariants import everything, fastv
from tests.lvlm.zoo import ZOO
from tests.lvlm.zoo import everything as all_tokens

LONG = 12  # tokens of an answer that is worth a capture in its first run
OOM = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.fixture
def cuda(monkeypatch):
    cuda = FakeCuda().install(monkeypatch)
    monkeypatch.setattr(captured, "WORTH", LONG - 2)
    monkeypatch.setattr(captured, "capture_device", lambda family: None if family.uncapturable else cuda.home)
    return cuda


def answer(family, tokens, question="x", pruners=(), new=LONG, loop="static"):
    """Ids of a greedy answer that no stop token ends."""
    family.model.generation_config.eos_token_id = None
    return generate(family, tokens, [question], pruners, max_new_tokens=new, loop=loop).token_ids


def expected_of(family, tokens, *args, **options):
    ids = answer(family, tokens, *args, **options, loop="segments")
    family.forget()
    return ids


@pytest.mark.parametrize("home", ["cuda:0", "cuda:1"])
@pytest.mark.parametrize("pruners", [[], [fastv(2, 0.5)]], ids=["plain", "cut"])
def test_a_step_is_recorded_on_the_device_of_the_model_and_replayed(cuda, home, pruners):
    cuda.home = torch.device(home)
    family = tiny.llava(seed=40)
    tokens = everything(family, 1)
    expected = expected_of(family, tokens, "x", pruners)
    assert answer(family, tokens, "x", pruners) == expected
    (record,), (graph,) = cuda.recorded, cuda.graphs
    assert record["device"] == graph.device == cuda.home and record["mode"] == "thread_local"
    assert record["stream"].waited and record["stream"] in cuda.defaults[cuda.home].waited
    assert graph.kernels and graph.replays == LONG - 1  # every step but the first, which is done twice
    assert cuda.device == torch.device("cuda:0") and not any(cuda.streams.values())


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "gemma3", "paligemma"])
def test_a_step_of_other_decoders_is_recorded_and_replayed(cuda, name):
    family = ZOO[name].build("sdpa")
    tokens = all_tokens(family, [tiny.image(0, 112, 112)])
    expected = expected_of(family, tokens, "x", [fastv(2, 0.5)])
    assert answer(family, tokens, "x", [fastv(2, 0.5)]) == expected
    (graph,) = cuda.graphs
    assert graph.kernels and graph.replays == LONG - 1


def test_two_models_on_two_devices_share_nothing(cuda):
    families = {home: tiny.llava(seed=seed) for home, seed in (("cuda:0", 41), ("cuda:1", 42))}
    tokens = {home: everything(family, 1) for home, family in families.items()}
    expected = {home: expected_of(family, tokens[home]) for home, family in families.items()}
    for home in ("cuda:0", "cuda:1", "cuda:0", "cuda:1"):
        cuda.home = torch.device(home)
        assert answer(families[home], tokens[home]) == expected[home]
    assert [str(record["device"]) for record in cuda.recorded] == ["cuda:0", "cuda:1"]
    first, second = cuda.recorded
    assert first["pool"] != second["pool"] and first["stream"] is not second["stream"]


def test_a_generation_tells_its_loop_and_whether_its_steps_were_captured(cuda):
    family = tiny.llava(seed=45)
    tokens = everything(family, 1)
    family.model.generation_config.eos_token_id = None
    first, again = (generate(family, tokens, ["x"], max_new_tokens=LONG, loop="static") for _ in range(2))
    assert (first.loop, first.captured, sorted(first.once)) == ("static", True, [0])
    assert (again.loop, again.captured, sorted(again.once)) == ("static", True, [0])
    cuda.errors = [RuntimeError("operation not permitted")]
    family.forget()
    with pytest.warns(Caution, match="not captured"):
        refused = generate(family, tokens, ["x"], max_new_tokens=LONG, loop="static")
    assert not refused.captured


@pytest.mark.parametrize("fault", ["replays_nothing", "replays_other_values"])
def test_a_replay_that_gives_something_else_is_never_used(cuda, fault):
    family = tiny.llava(seed=43)
    tokens = everything(family, 1)
    expected = expected_of(family, tokens)
    setattr(cuda, fault, True)
    with pytest.warns(Caution, match="not captured .* its replay gives other logits"):
        assert answer(family, tokens) == expected
    assert answer(family, tokens, "another") == expected_of(family, tokens, "another")
    assert len(cuda.recorded) == 1  # for good


def test_a_recording_that_fails_is_told_and_not_tried_again(cuda):
    family = tiny.llava(seed=27)
    tokens = everything(family, 1)
    expected = expected_of(family, tokens)
    cuda.errors = [RuntimeError("operation not permitted when stream is capturing")]
    with pytest.warns(Caution, match="not captured .* operation not permitted"):
        assert answer(family, tokens) == expected
    assert answer(family, tokens) == expected
    assert len(cuda.recorded) == 1 and not any(cuda.streams.values())  # the caller has its stream back


def test_without_memory_for_a_recording_the_rest_is_freed_and_it_is_tried_once_more(cuda):
    family = tiny.llava(seed=44)
    tokens = everything(family, 1)
    expected = expected_of(family, tokens)
    answer(family, tokens, "x", [fastv(2, 0.5)])
    cuda.errors = [torch.OutOfMemoryError(OOM)]
    assert answer(family, tokens) == expected
    assert len(family.steps) == 1 and cuda.emptied == 1
    assert cuda.graphs[-1].replays == LONG - 1


def test_with_no_memory_at_all_the_step_runs_without_and_others_may_try(cuda):
    family = tiny.llava(seed=45)
    tokens = everything(family, 1)
    expected = expected_of(family, tokens)
    cuda.errors = [torch.OutOfMemoryError(OOM), torch.OutOfMemoryError(OOM)]
    with pytest.warns(Caution, match="out of memory"):
        assert answer(family, tokens) == expected
    assert answer(family, tokens) == expected and len(cuda.recorded) == 2
    answer(family, tokens, "x", [fastv(2, 0.5)])
    assert len(cuda.recorded) == 3 and cuda.graphs[-1].replays == LONG - 1


def test_want_of_memory_is_seen_behind_the_error_that_ends_a_recording():
    error = RuntimeError("operation failed due to a previous error during capture")
    error.__context__ = torch.OutOfMemoryError(OOM)
    assert out_of_memory(error)
    assert out_of_memory(RuntimeError("CUDA error: out of memory")) and not out_of_memory(RuntimeError("other"))


def test_a_short_answer_is_captured_only_once_its_shape_is_seen_again(cuda):
    family = tiny.llava(seed=46)
    tokens = everything(family, 1)
    answer(family, tokens, new=4)
    assert not cuda.recorded
    answer(family, tokens, "y", new=4)
    answer(family, tokens, "z", new=4)
    assert len(cuda.recorded) == 1
    answer(family, tokens, "x", [fastv(2, 0.5)], new=4)
    assert len(cuda.recorded) == 1


def test_all_steps_of_a_model_share_one_pool_and_one_stream(cuda):
    family = tiny.llava(seed=47)
    tokens = everything(family, 1)
    for pruners in ([], [fastv(2, 0.5)], [fastv(1, 0.5)]):
        answer(family, tokens, "x", pruners)
    assert len({record["pool"] for record in cuda.recorded}) == len({id(r["stream"]) for r in cuda.recorded}) == 1
    assert len(cuda.recorded) == 3


def test_buckets_are_coarse_and_waste_at_most_a_quarter():
    assert bucket(1) == bucket(BUCKET) == BUCKET and bucket(BUCKET + 1) == 2 * BUCKET
    for tokens in range(1, 20_000, 7):
        assert tokens <= bucket(tokens) < max(tokens + BUCKET, 1.25 * tokens + 1)
    assert len({bucket(tokens) for tokens in range(1, 20_000)}) < 25


def test_steps_share_what_the_weights_leave_free(monkeypatch):
    family = tiny.llava(seed=48)
    tokens = everything(family, 1)
    answer(family, tokens, new=4)
    (step,) = family.steps.values()
    left_by_weights = 6 * step.kv_bytes  # a third are two steps
    monkeypatch.setattr(
        captured, "free_memory", lambda _device: left_by_weights - sum(s.kv_bytes for s in family.steps.values())
    )
    for layer in (1, 2, 3):
        answer(family, tokens, "x", [fastv(layer, 0.5)], new=4)
    assert [cuts for _, _, cuts, _ in family.steps] == [(2,), (3,)]


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_a_model_that_nobody_holds_is_freed_without_the_collector(cuda, loop):
    family = tiny.llava(seed=49)
    tokens = everything(family, 1)
    answer(family, tokens, loop=loop)
    left = [weakref.ref(family), weakref.ref(family.model.lm_head.weight), *map(weakref.ref, family.steps.values())]
    gc.collect()
    gc.disable()
    try:
        cuda.graphs.clear()
        del family
        assert not any(ref() for ref in left)
    finally:
        gc.enable()


def test_the_device_of_captures_is_the_models():
    class OnSecond:
        device, uncapturable = torch.device("cuda:1"), False

    assert capture_device(OnSecond()) == torch.device("cuda:1")
    OnSecond.uncapturable = True
    assert capture_device(OnSecond()) is None and capture_device(tiny.llava()) is None
