"""The shipped pipelines on the bundled model: right answers, counts from tensors, interchangeable."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from fopru_graph.graph import Graph, MemoryCache, NodeError, PipelineError, RunRecord
from fopru_graph.measure.summary import summarise

FOLDER = Path(__file__).resolve().parent.parent / "pipelines"
NAMES = ["baseline", "fastv", "fopru_fastv", "fopru_rank", "fopru_row"]
COUNTS = {  # encoded, kept before the language model, left in its last layer
    "baseline": (256, 256, 256),
    "fopru_rank": (256, 64, 64),
    "fopru_row": (256, 64, 64),
    "fastv": (256, 256, 64),
    "fopru_fastv": (256, 128, 64),
}


def load(name: str) -> Graph:
    return Graph.load(FOLDER / f"{name}.yaml")


def test_every_shipped_file_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_valid_and_byte_stable(name):
    graph = load(name)
    assert graph.problems() == []
    assert graph.name == name
    assert graph.dumps() == (FOLDER / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_pipelines_interchange_same_inputs_same_outputs(name):
    graph, other = load(name), load("baseline")
    assert {k: (v.type, v.default) for k, v in graph.inputs.items()} == {
        k: (v.type, v.default) for k, v in other.inputs.items()
    }
    assert {k: str(v.ref) for k, v in graph.outputs.items()} == {k: str(v.ref) for k, v in other.outputs.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_pipeline_answers_and_counts(name, tmp_path):
    graph = load(name)
    result = graph.run(out=tmp_path)
    assert result["text"] == "stop"
    summary = summarise(result)
    tokens = summary["visual_tokens"]
    assert (tokens["encoded"], tokens["kept"], tokens["final"]) == COUNTS[name]
    report = result.record.nodes["generate"]["report"]
    text_tokens = report["kv_lengths"][0] - COUNTS[name][1]
    expected = [COUNTS[name][1 if layer < 3 else 2] + text_tokens for layer in range(6)]
    assert report["kv_lengths"] == expected
    assert report["kv_bytes"] == sum(expected) * 2 * 2 * 64 * 4
    assert summary["ttft_ms"] >= report["prefill_ms"] > 0
    assert summary["tpot_ms"] > 0 and summary["new_tokens"] == 2
    with PIL.Image.open(result["picture"]) as picture:
        assert picture.width > picture.height > 400


def test_ratio_one_everywhere_is_the_baseline(tmp_path):
    cache = MemoryCache()
    answers = {}
    for name in NAMES:
        graph = load(name)
        for node in ("prune", "fastv"):
            if node in graph.nodes:
                graph.set(f"{node}.ratio", 1.0)
        result = graph.run(to="generate", cache=cache, out=tmp_path)
        generation = result["generation"]
        answers[name] = (generation.token_ids, generation.kv_lengths)
    assert len(set(answers.values())) == 1


def test_inputs_can_be_set(tmp_path):
    graph = load("fopru_fastv")
    graph.set("prune.ratio", 0.25)
    graph.set("image", "demo:bank-corner")
    result = graph.run(out=tmp_path)
    assert result["text"] == "bank"
    graph.set("prompt", "What color is the cross?")
    assert graph.run(out=tmp_path)["text"] == "green"
    tokens = result.record.nodes["generate"]["report"]["visual_tokens"]
    assert (tokens["encoded"], tokens["kept"], tokens["final"]) == (256, 64, 32)


def test_only_what_changed_runs_again(tmp_path):
    cache = MemoryCache()
    graph = load("fopru_rank")
    graph.run(cache=cache, out=tmp_path)
    graph.set("prune.ratio", 0.5)
    again = graph.run(cache=cache, out=tmp_path)
    assert again.cached == {"model", "encode", "significance"}
    assert set(again.timings) - again.cached == {"prune", "reorder", "project", "generate", "picture"}
    assert summarise(again)["ttft_ms"] is None  # encoding was not timed, so no honest sum


def test_a_record_replays(tmp_path):
    graph = load("fopru_fastv")
    graph.set("prompt", "where is the triangle ?")
    first = graph.run(out=tmp_path)
    first.record.save(tmp_path / "run.json")
    replayed = RunRecord.load(tmp_path / "run.json").graph().run(out=tmp_path)
    assert dict(replayed) == dict(first)
    keys = [{name: entry["key"] for name, entry in run.record.nodes.items()} for run in (first, replayed)]
    assert keys[0] == keys[1]


def test_batch_and_several_images_from_yaml(tmp_path):
    graph = load("fopru_fastv")
    graph.add("LoadImage", "second", path="demo:taxi-rank")
    graph.set("encode.image", [graph_ref("image"), graph_ref("second")])
    graph.set("generate.prompt", ["what does the text say ?", "what does the text say ?"])
    assert graph.problems() == [] or all(p.severity == "warning" for p in graph.problems())
    result = graph.run(out=tmp_path)
    assert result["text"] == ["stop", "taxi"]
    assert result.record.nodes["generate"]["report"]["visual_tokens"]["final"] == 128


def graph_ref(name: str):
    from fopru_graph.graph import Ref

    return Ref(name)


def test_a_selection_from_other_features_is_refused_with_the_node_named(tmp_path):
    graph = load("fopru_rank")
    graph.add("LoadImage", "second", path="demo:taxi-rank")
    graph.add("VisionEncode", "both", model=graph_ref("model"), image=[graph_ref("image"), graph_ref("second")])
    graph.set("project.features", graph_ref("both"))
    with pytest.raises(NodeError, match=r"project.*the selection was made from") as caught:
        graph.run(out=tmp_path)
    assert caught.value.hint


def test_a_layer_that_the_model_lacks_is_one_sentence(tmp_path):
    graph = load("fastv")
    graph.set("fastv.layer", 6)
    with pytest.raises(NodeError, match="layers 0 … 5"):
        graph.run(out=tmp_path)


def test_a_budget_outside_its_bounds_never_runs():
    graph = load("fopru_rank")
    graph.set("prune.ratio", 1.5)
    with pytest.raises(PipelineError, match="ratio"):
        graph.run()


def digest(value) -> object:
    """Everything a node could change in one of its inputs, as numbers."""
    import dataclasses

    import torch

    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.double().sum().item()
    if isinstance(value, list | tuple):
        return [digest(item) for item in value]
    if hasattr(value, "family"):
        return [digest(parameter.data) for parameter in value.family.model.parameters()]
    if dataclasses.is_dataclass(value):
        return [digest(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return value.tobytes() if hasattr(value, "tobytes") else value


@pytest.mark.parametrize("name", NAMES)
def test_no_node_changes_its_inputs(name, tmp_path, monkeypatch):
    from fopru_graph.graph import Node

    call, watched = Node.call, []

    def watch(self, inputs, context):
        before = digest(list(inputs.values()))
        result = call(self, inputs, context)
        assert digest(list(inputs.values())) == before, type(self).__name__
        watched.append(type(self).__name__)
        return result

    monkeypatch.setattr(Node, "call", watch)
    load(name).run(out=tmp_path)
    assert {"VisionEncode", "Project", "LLMGenerate", "ShowKept"} <= set(watched)


def test_a_second_run_draws_nothing_as_long_as_the_picture_lies_there(tmp_path):
    graph = load("fopru_fastv")
    first = graph.run(out=tmp_path)
    again = graph.run(out=tmp_path)
    assert {"generate", "picture"} <= again.cached and dict(again) == dict(first)
    graph.set("prune.ratio", 0.25)
    assert "picture" not in graph.run(out=tmp_path).cached
    graph.set("prune.ratio", 0.5)
    assert "picture" not in graph.run(out=tmp_path).cached  # the file shows the other ratio by now


def test_a_second_question_about_the_same_picture_runs_only_what_is_new(tmp_path):
    graph = load("fopru_rank")
    graph.set("prompt", "is there a red circle ?")
    first = graph.run(out=tmp_path)
    assert first.record.nodes["generate"]["report"]["reused_tokens"] == 0
    graph.set("prompt", "is there a blue square ?")
    second = graph.run(out=tmp_path)
    report = second.record.nodes["generate"]["report"]
    assert {"encode", "project"} <= second.cached
    assert report["reused_tokens"] >= 64 + 3  # the kept visual tokens, and the words that both begin with
    fresh = load("fopru_rank")
    fresh.set("prompt", "is there a blue square ?")
    assert fresh.run(out=tmp_path)["text"] == second["text"]
