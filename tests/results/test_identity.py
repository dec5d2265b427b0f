"""The one identity, by changing one thing at a time: for the engine's cache, for a cell and for a sweep.

What a result follows from must change its identity, everything else must not. `Bench` below is a folder with all that a
cell is made of: a pipeline with a block, a pack of nodes, a checkpoint, and data that names its pictures.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import configurations_of
from fopru_graph.evaluation.runner import identity_of
from fopru_graph.evaluation.task import Score
from fopru_graph.evaluation.tasks import get_task
from fopru_graph.graph import Executor, Graph, Registry
from fopru_graph.identity import digest, versions
from fopru_graph.lvlm.loading.checkpoint import DEMO
from fopru_graph.results import identity as identity_module
from fopru_graph.results.cell import Cell
from fopru_graph.results.identity import difference
from fopru_graph.sweep import plan as sweep_plan
from tests.evaluation.datafiles import png, write_lines

PIPELINE = """\
format: 1
name: pruned
nodes:
  model:    {type: LoadModel, inputs: {name: MODEL, dtype: float32}}
  image:    {type: LoadImage, inputs: {path: PICTURE}}
  encode:   {type: VisionEncode, inputs: {model: $model, image: $image}}
  pick:     {type: ./pick.yaml, inputs: {features: $encode}}
  project:  {type: Project, inputs: {model: $model, features: $encode, selection: $pick}}
  generate: {type: LLMGenerate, inputs: {model: $model, tokens: $project, prompt: what ?}}
outputs: {text: $generate.text}
"""
BLOCK = """\
format: 1
inputs: {features: {type: VisionFeatures}}
nodes:
  score: {type: KeyNorm, inputs: {features: $inputs.features}}
  keep:  {type: RankPrune, inputs: {significance: $score, ratio: 0.25}}
outputs: {kept: $keep}
"""
PACK = {
    "__init__.py": "from .key_norm import KeyNorm\n",
    "base.py": "from fopru_graph import Node\nclass Scorer(Node):\n    POWER = 1\n",
    "helper.py": "def norms(key):\n    return key.norm(dim=-1).mean(0)\n",
    "key_norm.py": '''from fopru_graph import node, values
from .base import Scorer
SCALE = 2.0
@node(category="score")
class KeyNorm(Scorer):
    """Score visual tokens by the length of their keys."""
    def run(self, features: values.VisionFeatures) -> values.Significance:
        from .helper import norms
        parts = [tile.attention for tile in features.tiles]
        return values.Significance.of(features, [SCALE * norms(part.key[:, part.prefix :]) for part in parts], "norm")
''',
}


class Bench:
    """The files of a cell in one folder; `identities` asks all three askers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(DEMO, folder / "model")
        (folder / "mine").mkdir()
        for name, text in PACK.items():
            (folder / "mine" / name).write_text(text)
        (folder / "pick.yaml").write_text(BLOCK)
        for name in ("a.png", "b.png", "c.png"):
            (folder / name).write_bytes(png(side=5 + ord(name[0])))
        rows = [{"question": "q", "answer": "yes", "category": "all", "image": name} for name in ("a.png", "b.png")]
        write_lines(folder / "pope.jsonl", rows)
        self.sets: dict[str, str] = {}
        self.write_pipeline()

    def write_pipeline(self, **changes: str) -> None:
        text = PIPELINE.replace("MODEL", str(self.folder / "model")).replace("PICTURE", str(self.folder / "c.png"))
        for old, new in changes.items():
            text = text.replace(old, new)
        (self.folder / "pruned.yaml").write_text(text)

    def graph(self) -> Graph:
        registry = Registry.default()
        assert registry.load_folder(self.folder / "mine") == []
        graph = Graph.load(self.folder / "pruned.yaml", registry)
        for target, value in self.sets.items():
            graph.set(target, value)
        return graph

    def identities(self) -> dict[str, str]:
        """What cache, cell and sweep take this folder for."""
        graph, task = self.graph(), get_task("pope")
        (configuration,) = configurations_of(graph, None, {})
        data = str(self.folder / "pope.jsonl")
        return {
            "cache": Executor(graph.registry).plan(graph).steps["generate"].key,
            "cell": identity_of(graph, task, task.open(data, None))["key"],
            "sweep": sweep_plan.expected_identity(configuration, "pope", data, None),
        }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "first")


def edit(name: str, old: str, new: str) -> Callable[[Bench], None]:
    def change(bench: Bench) -> None:
        text = (bench.folder / name).read_text()
        assert old in text
        (bench.folder / name).write_text(text.replace(old, new))

    return change


def other_weights(bench: Bench) -> None:
    with (bench.folder / "model" / "model.safetensors").open("r+b") as stream:  # of equal size
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))


def other_template(bench: Bench) -> None:
    file = bench.folder / "model" / "chat_template.jinja"
    file.write_text((file.read_text() if file.is_file() else "") + " ")


def set_to(target: str, value: str) -> Callable[[Bench], None]:
    return lambda bench: bench.sets.update({target: value})


def other_picture(name: str) -> Callable[[Bench], None]:
    return lambda bench: (bench.folder / name).write_bytes(png("blue", side=5 + ord(name[0]))) and None


EVERYWHERE = {"cache", "cell", "sweep"}
CHANGES = {
    "a block's file": (edit("pick.yaml", "ratio: 0.25", "ratio: 0.5"), EVERYWHERE),
    "the pipeline's file": (edit("pruned.yaml", "prompt: what ?", "prompt: what ?, pruners: []"), EVERYWHERE),
    "a node's file": (edit("mine/key_norm.py", "SCALE * norms", "norms"), EVERYWHERE),
    "a constant": (edit("mine/key_norm.py", "SCALE = 2.0", "SCALE = 3.0"), EVERYWHERE),
    "a helper": (edit("mine/helper.py", "mean(0)", "amax(0)"), EVERYWHERE),
    "a base class": (edit("mine/base.py", "POWER = 1", "POWER = 2"), EVERYWHERE),
    "weights of equal size": (other_weights, EVERYWHERE),
    "the chat template": (other_template, EVERYWHERE),
    "the processor": (edit("model/processor_config.json", "{", "{ "), EVERYWHERE),
    "the dtype": (set_to("model.dtype", "bfloat16"), EVERYWHERE),
    "the attention kernel": (set_to("model.attention", "eager"), EVERYWHERE),
    "a setting": (set_to("generate.loop", "thin"), EVERYWHERE),
    "a picture that the data names": (other_picture("b.png"), {"sweep"}),  # and the rows of the cell, see below
    "a row of the data": (edit("pope.jsonl", '"answer": "yes"', '"answer": "no"'), {"cell", "sweep"}),
    "the picture of the pipeline": (other_picture("c.png"), {"cache"}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_result_follows_from_changes_its_identity(bench: Bench, what: str) -> None:
    change, asked = CHANGES[what]
    before = bench.identities()
    change(bench)
    after = bench.identities()
    assert {name for name in before if before[name] != after[name]} == asked


def comment(bench: Bench) -> None:
    edit("pruned.yaml", "nodes:", "# a comment\nnodes:")(bench)
    edit("pick.yaml", "nodes:", "# a comment\nnodes:")(bench)


def touched(bench: Bench) -> None:
    for file in bench.folder.rglob("*"):
        os.utime(file, (1, 1))


def unrelated(bench: Bench) -> None:
    (bench.folder / "mine" / "another.py").write_text("NOTHING = 0\n")
    (bench.folder / "model" / "README.md").write_text("words")
    (bench.folder / "d.png").write_bytes(png())


@pytest.mark.parametrize("change", [comment, touched, unrelated, set_to("model.device", "cpu")])
def test_what_does_not_matter_changes_nothing(bench: Bench, change: Callable[[Bench], None]) -> None:
    before = bench.identities()
    change(bench)
    assert bench.identities() == before


@pytest.mark.parametrize(("native", "meant"), [(False, "float32"), (True, "bfloat16")])
def test_an_automatic_dtype_is_the_one_that_this_cpu_gets(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, native: bool, meant: str
) -> None:
    monkeypatch.setattr("fopru_graph.lvlm.loading.load.computes_bfloat16", lambda: native)
    asked = {}
    for dtype in ("auto", "float32", "bfloat16"):
        bench.sets["model.dtype"] = dtype
        asked[dtype] = bench.identities()
    assert asked["auto"] == asked[meant]
    assert all(asked["float32"][name] != asked["bfloat16"][name] for name in asked[meant])


def test_a_copy_at_another_path_is_the_same(bench: Bench, tmp_path: Path) -> None:
    assert Bench(tmp_path / "second").identities() == bench.identities()


def test_a_global_set_at_run_time_changes_the_key(bench: Bench) -> None:
    graph = bench.graph()
    executor = Executor(graph.registry)
    before = executor.plan(graph).steps["generate"].key
    module = sys.modules[graph.registry.get("KeyNorm").cls.__module__]
    module.SCALE = 4.0
    assert executor.plan(graph).steps["generate"].key != before
    module.SCALE = 2.0
    assert executor.plan(graph).steps["generate"].key == before


def test_other_versions_change_every_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bench.identities()
    newer = {**versions(), "transformers": "6.0"}
    monkeypatch.setattr(sys.modules["fopru_graph.graph.steps"], "versions_digest", lambda: digest(newer))
    monkeypatch.setattr(identity_module, "versions", lambda: newer)
    after = bench.identities()
    assert all(before[name] != after[name] for name in before)


def test_another_rule_of_scoring_is_another_cell(bench: Bench) -> None:
    graph, task = bench.graph(), get_task("pope")
    records = task.open(str(bench.folder / "pope.jsonl"), None)
    before = identity_of(graph, task, records)
    for other in (
        dataclasses.replace(task, scorer="pope@2"),
        dataclasses.replace(task, score=lambda _answer, _record: Score(1.0)),
        dataclasses.replace(task, max_new_tokens=1),
    ):
        assert "task" in str(difference(before, identity_of(graph, other, records)))


def test_the_number_of_a_device_is_no_part_of_a_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    records = get_task("pope").open(str(bench.folder / "pope.jsonl"), None)

    def asked(device: str) -> tuple[str, str]:
        bench.sets["model.device"] = device
        graph = bench.graph()
        plan = Executor(graph.registry).plan(graph)
        return plan.steps["generate"].key, identity_of(graph, get_task("pope"), records)["key"]

    cpu, cuda, first, third = map(asked, ("cpu", "cuda", "cuda:0", "cuda:3"))
    assert cpu[1] != cuda[1] == first[1] == third[1]  # the ranks of one evaluation fill one folder
    assert cuda[0] == first[0] != third[0]  # a model in the memory of another device is another value


def test_a_branch_of_the_hub_that_moved_is_another_model(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--toys--llava"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(DEMO, folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    bench.sets["model.name"] = "toys/llava"

    def at(commit: str, **more: str) -> dict[str, str]:
        (folder / "refs" / "main").write_text(commit * 40)
        bench.sets |= more
        return bench.identities()

    before, moved = at("a"), at("b")
    assert all(before[name] != moved[name] for name in before)
    assert at("b", **{"model.revision": "a" * 40}) == before  # the commit by its own name


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a helper", "source.mine.helper was "),
        ("weights of equal size", "pipeline.model.fingerprint.weights was "),
        ("a setting", 'pipeline.generate.inputs.loop was "auto", now it is "thin"'),
    ],
)
def test_a_folder_is_refused_with_what_differs(bench: Bench, tmp_path: Path, what: str, said: str) -> None:
    task = get_task("pope")
    records = task.open(str(bench.folder / "pope.jsonl"), None)

    def claim() -> None:
        identity = {"format": 1, "identity": identity_of(bench.graph(), task, records)}
        Cell(tmp_path / "cell", identity, 2, records.picture_files).claim()

    claim()
    claim()
    kept = (tmp_path / "cell" / "cell.json").read_text()
    CHANGES[what][0](bench)
    with pytest.raises(UserError, match="another configuration") as caught:
        claim()
    assert said in caught.value.message
    assert (tmp_path / "cell" / "cell.json").read_text() == kept


def test_a_row_whose_picture_changed_is_made_again(bench: Bench, tmp_path: Path) -> None:
    records = get_task("pope").open(str(bench.folder / "pope.jsonl"), None)
    cell = Cell(tmp_path / "cell", {"identity": {"key": "k"}}, 2, records.picture_files)
    cell.claim()
    with cell.shard(0) as shard:
        for index in (0, 1):
            files = records.picture_files(index)
            shard.append({"index": index, "id": f"pope/{index}", "status": "ok", "picture_files": files})
    cell.scan()
    assert list(cell.missing(0, 1, retry=False)) == []
    other_picture("b.png")(bench)
    cell.scan()
    assert list(cell.missing(0, 1, retry=False)) == [1]
