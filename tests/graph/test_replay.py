"""A record that is run again says what has changed since, and does not answer anew without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.graph import Graph, Node, Registry, RunRecord, RunResult, node
from fopru_graph.identity import content

PACK = """\
from fopru_graph.graph import Node, node

@node(category="toy")
class Shout(Node):
    \"""Louder.\"""

    def run(self, text: str) -> str:
        return text.upper()
"""


@node(category="toy")
class Fetch(Node):
    """Its fingerprint has several parts."""

    state: dict[str, Any] = {"weights": "0" * 64, "device": "cuda"}

    def run(self, name: str = "model") -> str:
        return name

    def fingerprint(self, name: str = "model") -> dict[str, Any]:
        if "unknown" in self.state:
            raise OSError
        return self.state


@pytest.fixture
def recorded(registry: Registry, tmp_path: Path) -> RunRecord:
    """Of a run that read a file and fetched a model; it went over the disk."""
    registry.add(Fetch)
    (tmp_path / "picture.txt").write_text("a cat")
    graph = Graph("g", registry=registry)
    path = graph.input("image", "path", str(tmp_path / "picture.txt"))
    graph.output("text", graph.Join(texts=[graph.ReadFile(path=path, id="read"), graph.Fetch(id="model")]))
    graph.run().record.save(tmp_path / "run.json")
    return RunRecord.load(tmp_path / "run.json")


def replay(record: RunRecord, registry: Registry, **sets: Any) -> RunResult:
    return Graph.from_record(record, registry).run(sets=sets)


def warnings(result: RunResult) -> list[str]:
    assert [f"{warning.node}: {warning.message}" for warning in result.warnings] == result.record.warnings
    assert not any(warning.lost for warning in result.warnings)
    return result.record.warnings


def test_nothing_changed_says_nothing(recorded, registry):
    result = replay(recorded, registry)
    assert (result["text"], warnings(result)) == ("a cat model", [])


def test_a_file_with_another_content_is_named(recorded, registry, tmp_path):
    (tmp_path / "picture.txt").write_text("a dog")
    result = replay(recorded, registry)
    assert result["text"] == "a dog model"
    assert warnings(result) == [f"read: the content of path '{tmp_path}/picture.txt' has changed since the record"]
    again = replay(result.record, registry)  # the record of the replay is of the new picture
    assert warnings(again) == []


def test_the_same_content_is_the_same(recorded, registry, tmp_path):
    (tmp_path / "picture.txt").unlink()
    (tmp_path / "picture.txt").write_text("a cat")
    assert warnings(replay(recorded, registry)) == []


def test_what_the_user_sets_is_no_surprise(recorded, registry, tmp_path):
    (tmp_path / "other.txt").write_text("a bird")
    result = replay(recorded, registry, image=str(tmp_path / "other.txt"))
    assert (result["text"], warnings(result)) == ("a bird model", [])


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"weights": "1" * 64, "device": "cuda"}, "weights changed since the record"),
        ({"weights": "0" * 64, "device": "cpu"}, "device changed from cuda to cpu since the record"),
        ({"unknown": True}, "whether what it reads has changed since the record cannot be told"),
    ],
)
def test_the_parts_of_a_fingerprint_that_changed_are_named(state, says, recorded, registry, monkeypatch):
    monkeypatch.setattr(Fetch, "state", state)
    assert warnings(replay(recorded, registry)) == [f"model: {says}"]


def test_other_versions_are_named_once(recorded, registry, monkeypatch):
    recorded.versions["torch"] = "1.0"
    for entry in recorded.nodes.values():
        entry["key"], entry["made_of"]["versions"] = "other", "other"
    assert warnings(replay(recorded, registry)) == [f"replay: torch was 1.0, is {content.versions()['torch']}"]


def test_other_code_is_named(recorded, registry):
    for name in ("read", "join"):
        recorded.nodes[name]["key"], recorded.nodes[name]["made_of"]["source"] = "other", {"code": "other"}
    assert warnings(replay(recorded, registry)) == ["replay: the code of ReadFile, Join has changed since the record"]


def test_a_record_of_an_earlier_version_is_compared_by_its_keys(recorded, registry, tmp_path):
    data = recorded.to_json()
    for entry in data["nodes"].values():
        del entry["made_of"], entry["inputs"]
    del data["warnings"], data["packs"]
    (tmp_path / "old.json").write_text(json.dumps(data))
    old = RunRecord.load(tmp_path / "old.json")
    assert warnings(replay(old, registry)) == []
    (tmp_path / "picture.txt").write_text("a dog")
    assert warnings(replay(old, registry)) == [
        "replay: read, join differ from the record, which is too old to say in what"
    ]


def test_the_folders_of_nodes_are_recorded_by_content(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "shout.py").write_text(PACK)
    registry = Registry()
    registry.load_folder(tmp_path / "mine")
    graph = Graph("g", registry=registry)
    graph.output("text", graph.Shout(text="a"))
    record = graph.run().record
    [(path, digest)] = record.packs.items()
    assert path == str(tmp_path / "mine")
    (tmp_path / "mine" / "shout.py").write_text(PACK.replace("upper", "casefold"))
    changed = Registry()
    changed.load_folder(tmp_path / "mine")
    assert changed.packs[path] != digest
    result = replay(record, changed)
    assert (result["text"], warnings(result)) == ("a", ["replay: the code of Shout has changed since the record"])
