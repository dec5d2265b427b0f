"""A full disk or an unwritable place costs files, never the answer; what could not be written is said."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors import SafetensorError

from fopru_graph.graph import DiskCache, Executor, NodeError, RunWarning
from fopru_graph.graph.files import write_atomically
from fopru_graph.storage import TensorCodec
from tests.graph.conftest import graph, registry  # noqa: F401 - fixtures
from tests.test_cli import COMBINED, PIPELINES, invoke


@contextlib.contextmanager
def full_disk(size: int = 100) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: a longer write fails half way, as on a full disk.

    Modules that are imported meanwhile are not compiled to files: Python leaves half of one, and trips over it later.
    """
    before, compiles = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = compiles


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_full_disk_under_out_and_cache_leaves_the_answer_and_one_warning_for_each_thing_lost(tmp_path):
    with full_disk():
        result = invoke("run", COMBINED, "--json", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert data["outputs"] == {"text": "stop", "picture": None}
    assert [message.split("/")[0] for message in data["warnings"]] == [
        "encode: the outputs cannot be kept on disk: [Errno 27] File too large",
        "picture: '",
        "the record ",
    ]
    assert [line.partition(" ")[0] for line in result.stderr.splitlines()] == ["warning:"] * 3
    assert files(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_a_warning_only(tmp_path, monkeypatch):
    def fails(*_arguments):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(TensorCodec, "dump", fails)
    result = invoke("run", COMBINED, "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"))
    assert (result.exit_code, result.stdout) == (0, "stop\n")
    assert "warning: encode: the outputs cannot be kept on disk: No space left on device" in result.stderr


def test_a_failure_on_a_full_disk_is_still_the_failure(tmp_path):
    with full_disk():
        result = invoke("run", COMBINED, "--json", "--out", str(tmp_path), "--set", "image=nowhere.png")
    assert result.exit_code == 1
    assert "nowhere.png" in json.loads(result.stdout)["error"]["message"]
    assert "the record" in result.stderr and "Traceback" not in result.stderr


def test_a_node_that_cannot_write_its_file_leaves_the_answers_of_the_others(graph, tmp_path):  # noqa: F811
    graph.Write(text="x" * 200, id="write")
    graph.output("text", graph.Text(text="hello"))
    graph.output("path", graph.Write(text="y", file="b.txt", id="other"))
    (tmp_path / "a.txt").mkdir()
    events: list[object] = []
    result = graph.run(out=tmp_path, on_event=events.append)
    assert (result["text"], result["path"]) == ("hello", str(tmp_path / "b.txt"))
    [warning] = result.warnings
    assert (warning.node, warning.lost) == ("write", True) and "Is a directory" in warning.message
    assert [event for event in events if isinstance(event, RunWarning)] == [warning]
    assert result.record.warnings == [f"write: {warning.message}"]
    (tmp_path / "a.txt").rmdir()
    assert graph.run(out=tmp_path).warnings == ()  # it was not taken as done


def test_a_path_that_another_node_reads_cannot_be_spared(graph, tmp_path):  # noqa: F811
    graph.output("text", graph.Join(texts=graph.Write(text="x")))
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(NodeError, match="Is a directory"):
        graph.run(out=tmp_path)


def test_a_cache_folder_that_cannot_be_read_is_passed_over(graph, tmp_path, monkeypatch):  # noqa: F811
    graph.output("x", graph.Kept(id="kept"))
    disk = DiskCache(tmp_path)
    Executor(disk=disk).run(graph)

    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fopru_graph.graph.cache._inode", refuse)
    result = Executor(disk=disk).run(graph)
    assert result["x"] == {"value": 1}
    assert "Permission denied" in result.record.warnings[0]


def test_an_output_folder_without_rights_is_refused_before_anything_runs(tmp_path, monkeypatch):
    def load(*_arguments):
        raise AssertionError("the model is loaded before the folder is looked at")

    monkeypatch.setattr("fopru_graph.lvlm.loading.load.load_model", load)
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    scenes = ["--task", "scenes"]
    for command in (["run", COMBINED], ["bench", COMBINED], ["eval", COMBINED, *scenes], ["tune", COMBINED, *scenes]):
        result = invoke(*command, "--out", str(tmp_path))
        assert result.exit_code in (1, 2) and result.stdout == ""
        said = result.stderr + str(result.exception)
        assert f"the output folder {tmp_path} cannot be written to: Permission denied" in said


@pytest.mark.parametrize("command", [["draw", COMBINED], ["schema"]])
def test_a_file_that_lies_there_survives_a_full_disk(command, tmp_path):
    target = tmp_path / "kept"
    target.write_text("of yesterday")
    with full_disk():
        result = invoke(*command, "-o", str(target))
    assert result.exit_code == 2 and "cannot be written" in result.stderr
    assert target.read_text() == "of yesterday" and files(tmp_path) == [target]


def test_a_bench_whose_files_cannot_be_written_shows_its_figures(tmp_path):
    options = ["--repeat", "1", "--new-tokens", "1", "--ratio", "1", "--out", str(tmp_path), "--json"]
    with full_disk():
        result = invoke("bench", str(PIPELINES / "baseline.yaml"), *options)
    assert result.exit_code == 1 or "cannot be written" in str(result.exception)
    assert json.loads(result.stdout)["variants"][0]["pipeline"] == "baseline"


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    """As root, renaming over it would take /dev/null away from the whole machine."""
    null = tmp_path / "null"
    os.mkfifo(null)
    reader = os.open(null, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(null, b"text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert stat.S_ISFIFO(null.stat().st_mode) and list(tmp_path.iterdir()) == [null]
