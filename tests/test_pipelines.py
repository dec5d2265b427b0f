"""The shipped pipelines on the bundled model: right answers, counts from tensors, interchangeable."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
import yaml

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, MemoryCache, NodeError, PipelineError, PipelineInput, Ref, RunRecord
from fopru_graph.measure.pipelines import at_ratio
from fopru_graph.measure.timing import summarise

FOLDER = Path(__file__).resolve().parent.parent / "pipelines"
COUNTS = {  # encoded, kept before the language model, left in its last layer
    "apet": (256, 64, 64),
    "baseline": (256, 256, 256),
    "blind": (256, 0, 0),
    "cdpruner": (256, 64, 64),
    "dart": (256, 256, 64),
    "divprune": (256, 64, 64),
    "downsample": (64, 64, 64),
    "fastervlm": (256, 64, 64),
    "fastv": (256, 256, 64),
    "fopru_fastv": (256, 128, 64),
    "fopru_mass": (256, 57, 57),
    "fopru_no_reordering": (256, 64, 64),
    "fopru_no_variance": (256, 64, 64),
    "fopru_rank": (256, 64, 64),
    "fopru_row": (256, 64, 64),
    "hired": (256, 51, 51),
    "hiprune": (256, 64, 64),
    "holov": (256, 64, 64),
    "otprune": (256, 64, 64),
    "priortr": (256, 256, 64),
    "prumerge": (256, 45, 45),
    "prumerge_plus": (256, 256, 256),  # 44 outliers are too many for any distance but 1, see `add_uniform`
    "pyramiddrop": (256, 256, 32),
    "random": (256, 64, 64),
    "scope": (256, 64, 64),
    "sparsevlm": (256, 256, 63),
    "spatial_pool": (256, 64, 64),
    "tome": (256, 64, 64),
    "v2drop": (256, 256, 63),
    "visionzip": (256, 64, 64),
    "vispruner": (256, 64, 64),
    "vscan": (256, 42, 14),
}
CHAINS = {  # not of one cut at layer 3: what each layer sees
    "dart": (256, 256, 64, 64, 64, 64),
    "pyramiddrop": (256, 256, 128, 64, 64, 32),
    "sparsevlm": (256, 101, 101, 63, 63, 63),
    "v2drop": (256, 161, 161, 101, 63, 63),
}
NAMES = sorted(COUNTS)
SETTINGS = ["max_new_tokens", "positions"]
WITHOUT_RATIO = {
    "baseline": "drops nothing",
    "blind": "drops everything",
    "fopru_mass": "the scores say how many; it declares their mass",
    "prumerge": "the scores say how many",
    "prumerge_plus": "the scores say how many",
}
IN_PIECES = {"downsample": 8, "spatial_pool": 8}  # whole rows and windows only
LEFT = {name: counts[2] / 256 for name, counts in COUNTS.items() if name not in WITHOUT_RATIO}
# Whose number of tokens follows the scores: rounding may move a token across the limit on another machine.
FOLLOWING = {"fopru_mass", "prumerge"}


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
    inputs, share = dict(graph.inputs), "mass" if name == "fopru_mass" else "ratio"
    assert list(inputs) == ["model", "image", "prompt", *([share] if share in inputs else []), *SETTINGS]
    assert (share in inputs) == (name not in WITHOUT_RATIO or share == "mass")
    assert inputs.pop(share, PipelineInput("float")).type == "float"
    assert {k: (v.type, v.default) for k, v in inputs.items()} == {
        k: (v.type, v.default) for k, v in other.inputs.items()
    }
    assert {k: str(v.ref) for k, v in graph.outputs.items()} == {k: str(v.ref) for k, v in other.outputs.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_pipeline_answers_and_counts(name, tmp_path):
    graph = load(name)
    result = graph.run(out=tmp_path)
    assert (result["text"] == "stop") == (name != "blind")
    summary = summarise(result)
    tokens = summary["visual_tokens"]
    counts = tokens["encoded"], tokens["kept"], tokens["final"]
    assert counts == pytest.approx(COUNTS[name], abs=2) if name in FOLLOWING else counts == COUNTS[name]
    report = result.record.nodes["generate"]["report"]
    text_tokens = report["kv_lengths"][0] - counts[1]
    seen = CHAINS.get(name) or [counts[1 if layer < 3 else 2] for layer in range(6)]
    expected = [visual + text_tokens for visual in seen]
    assert report["kv_lengths"] == expected
    assert report["kv_bytes"] == sum(expected) * 2 * 2 * 64 * 4
    assert summary["ttft_ms"] >= report["prefill_ms"] > 0
    assert summary["new_tokens"] == 2 or name == "blind"
    assert (summary["tpot_ms"] is None) == (summary["new_tokens"] < 3)  # a first step alone is no time per output token
    with PIL.Image.open(result["picture"]) as picture:
        assert picture.width > picture.height > 400


@pytest.fixture(scope="module")
def shared():
    """What pipelines have in common runs once: the model, the encoded picture."""
    return MemoryCache(10_000)


@pytest.mark.parametrize("name", LEFT)
def test_the_ratio_is_what_the_last_layer_sees(name, shared):
    """Set as an input, and so by the rule of a bench."""
    graph = load(name)
    graph.set("ratio", 0.5)
    assert at_ratio(load(name), 0.5) == graph and graph.inputs["ratio"].default == 0.5
    graph.set("max_new_tokens", 1)
    answer = graph.run(to="generate", cache=shared)["generation"]
    assert answer.visual_per_layer[-1] == pytest.approx(128, abs=IN_PIECES.get(name, 1))
    assert len(answer.token_ids[0]) == 1


@pytest.mark.parametrize("name", ["fopru_fastv", "hiprune", "pyramiddrop"])
def test_a_pipeline_sets_the_ratio_of_another_in_it(name, shared):
    alone, outer = load(name), Graph()
    alone.set("ratio", 0.5)
    outer.output("text", outer.add(name, "inner", ratio=outer.input("share", "float", 0.5)).text)
    answers = [graph.run(to=to, cache=shared) for graph, to in ((alone, "generate"), (outer, "inner/generate"))]
    layers = [answer["generation"].visual_per_layer for answer in answers]
    assert layers[0] == layers[1] and layers[0][-1] == pytest.approx(128, abs=1)


def test_what_a_user_sets_by_itself_does_not_follow_the_input():
    """The ratio of a bench then sets the stages: their product stays what the last layer sees."""
    graph = load("fopru_fastv")
    graph.set("fastv.ratio", 0.9)
    changed = at_ratio(graph, 0.25)
    stages = [changed.node(name).inputs["ratio"] for name in ("prune", "fastv")]
    assert stages == [0.5, 0.5] and changed.inputs["ratio"].default == 0.25
    straight = load("fopru_fastv")
    for name in ("prune", "fastv"):  # would be a quarter of a quarter
        straight.set(f"{name}.ratio", Ref("inputs", "ratio"))
    assert [at_ratio(straight, 0.25).node(name).inputs["ratio"] for name in ("prune", "fastv")] == [0.5, 0.5]


def test_the_ratio_of_a_pipeline_without_stages_is_the_input_that_it_declares():
    graph = load("fopru_mass")
    graph.input("ratio", "float", 0.3)
    with pytest.raises(UserError, match="it chooses the number of tokens itself"):
        at_ratio(graph, 0.5)  # nobody reads it
    graph.set("prune.mass", Ref("inputs", "ratio"))
    assert at_ratio(graph, 0.5).inputs["ratio"].default == 0.5
    with pytest.raises(UserError, match="baseline has no ratio to set: it drops no visual tokens"):
        at_ratio(load("baseline"), 0.5)


@pytest.mark.parametrize("name", ["baseline", "fopru_fastv"])
def test_the_length_and_the_positions_are_inputs(name, shared):
    graph = load(name)
    graph.set("positions", "original")
    graph.set("max_new_tokens", 1)
    assert len(graph.run(to="generate", cache=shared)["generation"].token_ids[0]) == 1
    graph.set("positions", "orignal")
    with pytest.raises(PipelineError, match="must be one of 'renumbered', 'original', 'rebased'.*did you mean"):
        graph.run()


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
    replayed = Graph.from_record(RunRecord.load(tmp_path / "run.json")).run(out=tmp_path)
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


def few_with_all_nodes() -> list[str]:
    """Pipelines that have all node types that ship in any."""
    types: set[str] = set()
    chosen = []
    for name in sorted(NAMES, key=lambda name: (-len(load(name).nodes), name)):
        if new := {entry.type for entry in load(name).nodes.values()} - types:
            types |= new
            chosen.append(name)
    return chosen


@pytest.mark.parametrize("name", few_with_all_nodes())
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
    assert {step["type"] for step in nodes_of(load(name))} == set(watched)


def nodes_of(graph: Graph) -> list[dict]:
    """What the graph's file says of its nodes."""
    return list(yaml.safe_load(graph.dumps())["nodes"].values())


@pytest.mark.parametrize(
    "name",
    [
        "apet",
        "divprune",
        "prumerge",
        "prumerge_plus",
        "spatial_pool",
        "downsample",
        "blind",
        "random",
        "hired",
        "holov",
        "vscan",
    ],
)
def test_several_pictures_are_each_treated_as_alone(name, tmp_path):
    """The published PruMerge passes lists of pictures by; here each has its own threshold."""
    pictures = ("street-sign", "taxi-rank")
    graph, alone = load(name), []
    for picture in pictures:
        one = load(name)
        one.set("image", f"demo:{picture}")
        alone.append(one.run(to="generate", out=tmp_path)["generation"])
    graph.add("LoadImage", "second", path="demo:taxi-rank")
    taker = "smaller" if "smaller" in graph.nodes else "encode"
    graph.set(f"{taker}.image", [graph_ref("image"), graph_ref("second")])
    graph.set("generate.prompt", ["what does the text say ?"] * 2)
    generation = graph.run(to="generate", out=tmp_path)["generation"]
    assert generation.projected == sum(one.projected for one in alone)
    assert generation.token_ids == tuple(one.token_ids[0] for one in alone)
    for kept, one in zip(generation.kept, alone, strict=True):
        assert kept[:, 1].tolist() == one.kept[0][:, 1].tolist()
    graph.set("generate.prompt", "<image> and <image>, is the text the same ?")
    assert graph.run(to="generate", out=tmp_path)["generation"].projected == generation.projected


def test_a_merged_picture_is_reported_once(tmp_path):
    """Nodes that hand features on do not count their tiles and preprocessing again."""
    result = load("prumerge").run(to="generate", out=tmp_path)
    reports = {name: entry["report"] for name, entry in result.record.nodes.items() if entry["report"]}
    assert set(reports) == {"encode", "generate"} and reports["encode"]["tile_tokens"] == [256]


def test_blind_is_shown_as_what_it_is(tmp_path, monkeypatch):
    from fopru_graph.pictures import kept

    drawn = []
    draw = kept.draw_kept
    monkeypatch.setattr(kept, "draw_kept", lambda *given, **more: drawn.append(given) or draw(*given, **more))
    load("blind").run(out=tmp_path)
    _, _, selected, final, _, _ = drawn[0]
    assert not selected.any() and not final.any()


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
