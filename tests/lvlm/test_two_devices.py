"""Two models on two simulated devices in one process: whole pipelines, interleaved, each on its own device alone."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.graph import Executor, Graph
from fopru_graph.lvlm.decoding import captured
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.values import ModelHandle
from tests import tiny
from tests.lvlm.accelerator import move, simulated
from tests.lvlm.decoding.fake_cuda import FakeCuda

DEVICES = [torch.device("cuda:0"), torch.device("cuda:1")]
PIPELINES = ["fopru_rank", "fopru_fastv"]
STEPS = 4
SETS = {"prompt": "what does it say?", "generate.max_new_tokens": STEPS}


@pytest.fixture
def families(monkeypatch):
    """A model a device, as `LoadModel` finds them by the device's name."""
    monkeypatch.setattr(captured, "WORTH", 2)
    monkeypatch.setattr(captured, "free_memory", lambda _device: 2**30)
    made = {
        DEVICES[0]: tiny.llava(seed=80, kv_heads=1),
        DEVICES[1]: tiny.llava("qwen2", seed=81, anyres=True, sliding_window=30),
    }
    for family in made.values():
        family.model.generation_config.eos_token_id = [7, 9]
    loading = "fopru_graph.lvlm.loading.load"
    monkeypatch.setattr(f"{loading}.load_model", lambda _, device, *__: ModelHandle(device, made[torch.device(device)]))
    monkeypatch.setattr(f"{loading}.model_identity", lambda _, device, *__: {"device": device})
    return made


def answer(device, pipeline, **sets):
    """The generation of a pipeline that ships, with the model of a device."""
    graph = Graph.load(f"pipelines/{pipeline}.yaml")
    return Executor().run(graph, to="generate", sets=SETS | {"model.device": str(device)} | sets)["generation"]


def test_whole_pipelines_of_two_models_stay_each_on_its_device(families, monkeypatch):
    cuda = FakeCuda().install(monkeypatch)
    runs = [(device, pipeline) for pipeline in PIPELINES for device in DEVICES] * 2
    expected = {run: answer(*run, **{"generate.loop": "segments"}) for run in runs}
    for family in families.values():
        family.forget()
    with simulated() as devices:
        back = [move(family.model, device) for device, family in families.items()]
        for run in runs:
            devices.used.clear()
            found, known = answer(*run), expected[run]
            assert devices.used == {run[0]} and found.device == str(run[0])
            assert found.loop == "static" and found.captured
            assert (found.token_ids, found.kv_lengths) == (known.token_ids, known.kv_lengths)
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.kept, known.kept, strict=True))
    for undo in back:
        undo()
    assert {record["device"] for record in cuda.recorded} == set(DEVICES)
    for device, family in families.items():
        records = [record for record in cuda.recorded if record["device"] == device]
        assert len(records) == len(family.steps) == len(PIPELINES)  # second answers found them
        assert len({record["pool"] for record in records}) == len({id(record["stream"]) for record in records}) == 1
    assert len({record["pool"] for record in cuda.recorded}) == 2


def test_an_answer_within_another_models_answer_changes_neither(families, monkeypatch):
    FakeCuda().install(monkeypatch)
    first, second = families.values()
    tokens = [family.project(family.encode([tiny.image()]), None) for family in (first, second)]
    pairs = zip((first, second), tokens, strict=True)
    expected = [generate(*pair, ["what?"], max_new_tokens=STEPS) for pair in pairs]
    with simulated() as devices:
        back = [move(family.model, device) for device, family in families.items()]
        tokens = [family.project(family.encode([tiny.image()]), None) for family in (first, second)]
        for _ in range(2):  # the second time both replay
            inner = []

            def other(_ids, _logits, inner=inner):
                if len(inner) < 2:
                    inner.append(generate(second, tokens[1], ["what?"], max_new_tokens=STEPS))

            outer = generate(first, tokens[0], ["what?"], max_new_tokens=STEPS, on_step=other)
            assert outer.token_ids == expected[0].token_ids
            assert all(found.token_ids == expected[1].token_ids for found in inner) and len(inner) == 2
            assert outer.captured and inner[-1].captured and devices.used == set(DEVICES)
    for undo in back:
        undo()
