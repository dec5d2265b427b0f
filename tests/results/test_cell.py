"""The results folder: nothing is lost, nothing is made twice, nothing of another configuration is touched."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fopru_graph.errors import UserError
from fopru_graph.results.cell import Cell

PARTS = {"versions": {"torch": "2"}, "data": "x", "pipeline": {"prune": {"inputs": {"ratio": 0.25}}}}
IDENTITY = {"format": 1, "pipeline": "a", "identity": {"key": "k", **PARTS}}


def row(index, status="ok", **more):
    return {"index": index, "id": f"toy/{index}", "status": status, **more}


@pytest.fixture
def cell(tmp_path):
    cell = Cell(tmp_path / "cell", IDENTITY, 6)
    cell.claim()
    return cell


def fill(cell, rank, rows):
    with cell.shard(rank) as shard:
        for one in rows:
            shard.append(one)


def test_rows_of_all_ranks_come_back_in_order(cell):
    fill(cell, 0, [row(0), row(4)])
    fill(cell, 1, [row(3), row(1)])
    cell.scan()
    assert [one["index"] for one in cell.rows()] == [0, 1, 3, 4]
    assert list(cell.missing(0, 1, False)) == [2, 5]
    assert [list(cell.missing(rank, 2, False)) for rank in (0, 1)] == [[2], [5]]
    cell.merge()
    lines = (cell.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 3, 4]


def test_processes_that_finish_a_cell_at_once_all_succeed(cell):
    """Each writes a file of its own before it takes the name; the last one stays, and they are equal."""
    fill(cell, 0, [row(index) for index in range(6)])
    cells = [Cell(cell.folder, IDENTITY, 6) for _ in range(2)]
    for each in cells:
        each.scan()
    inner = cells[0].rows
    cells[0].rows = lambda: (cells[1].merge(), inner())[1]  # the other one merges while this one writes
    cells[0].merge()
    lines = (cell.folder / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(6))
    assert sorted(path.name for path in cell.folder.iterdir()) == ["cell.json", "results.jsonl", "shards"]


def test_a_torn_line_is_made_again_and_does_not_swallow_the_next(cell):
    fill(cell, 0, [row(0), row(1)])
    path = cell.folder / "shards" / "rank0.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    cell.scan()
    assert cell.torn == 1 and list(cell.missing(0, 1, False)) == [1, 2, 3, 4, 5]
    fill(cell, 0, [row(1), row(2)])
    cell.scan()
    assert [one["index"] for one in cell.rows()] == [0, 1, 2]


def test_a_good_row_counts_before_a_failed_one_whichever_comes_first(cell):
    fill(cell, 0, [row(0, "error"), row(1, answer="first")])
    fill(cell, 1, [row(0), row(1, "error")])
    cell.scan()
    assert [one["status"] for one in cell.rows()] == ["ok", "ok"]


def test_failed_samples_are_run_again_on_demand_only(cell):
    fill(cell, 0, [row(0, "error"), row(1)])
    cell.scan()
    assert list(cell.missing(0, 1, retry=False)) == [2, 3, 4, 5]
    assert list(cell.missing(0, 1, retry=True)) == [0, 2, 3, 4, 5]


def test_the_same_configuration_goes_on_and_another_is_refused_untouched(cell):
    fill(cell, 0, [row(0)])
    before = {path: path.read_bytes() for path in cell.folder.rglob("*") if path.is_file()}
    Cell(cell.folder, IDENTITY | {"started": "later", "command": ["x"]}, 6).claim()
    for key, value, shown in (
        (
            "pipeline",
            {"prune": {"inputs": {"ratio": 0.5}}},
            "pipeline differ; pipeline.prune.inputs.ratio was 0.25, now it is 0.5",
        ),
        ("versions", {"torch": "3"}, 'versions differ; versions.torch was "2", now it is "3"'),
    ):
        with pytest.raises(UserError, match=r"another configuration") as caught:
            Cell(cell.folder, IDENTITY | {"identity": {"key": "other", **PARTS, key: value}}, 6).claim()
        assert shown in caught.value.message
    assert {path: path.read_bytes() for path in cell.folder.rglob("*") if path.is_file()} == before


def test_results_of_another_configuration_are_replaced_on_demand_unless_they_are_being_written(cell):
    fill(cell, 0, [row(0), row(1)])
    Cell(cell.folder, IDENTITY, 6).claim(replace=True)
    other = Cell(cell.folder, IDENTITY | {"identity": {"key": "other", **PARTS, "versions": {"torch": "3"}}}, 6)
    with cell.shard(0), pytest.raises(UserError, match="another process is writing"):
        other.claim(replace=True)
    cell.scan()
    assert cell.done == 2
    other.claim(replace=True)
    other.scan()
    assert other.done == 0
    other.claim()
    with pytest.raises(UserError, match="another configuration") as caught:
        cell.claim()
    assert "--replace" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 2}'])
def test_a_folder_that_nobody_knows_is_refused(cell, text):
    (cell.folder / "cell.json").write_text(text)
    with pytest.raises(UserError):
        Cell(cell.folder, IDENTITY, 6).claim()
    assert (cell.folder / "cell.json").read_text() == text
    (cell.folder / "cell.json").unlink()
    fill(cell, 0, [row(0)])
    with pytest.raises(UserError, match="nobody knows"):
        Cell(cell.folder, IDENTITY, 6).claim()


def test_a_folder_of_an_earlier_version_is_refused_untouched(cell):
    earlier = {"format": 1, "pipeline": "a", "weights": ["model.safetensors 14"], "versions": {"torch": "2"}}
    (cell.folder / "cell.json").write_text(json.dumps(earlier))
    with pytest.raises(UserError, match="results of an earlier version"):
        Cell(cell.folder, IDENTITY, 6).claim()
    assert json.loads((cell.folder / "cell.json").read_text()) == earlier


def test_a_row_of_other_picture_files_does_not_count(cell):
    fill(cell, 0, [row(0, picture_files=["a"]), row(1, picture_files=["b"]), row(2)])
    now = {0: ["a"], 1: ["c"], 2: []}
    again = Cell(cell.folder, IDENTITY, 3, now.__getitem__)
    again.scan()
    assert list(again.missing(0, 1, retry=False)) == [1]
    fill(again, 0, [row(1, picture_files=["c"])])
    again.scan()
    assert [found.get("picture_files") for found in again.rows()] == [["a"], ["c"], None]


def test_two_processes_do_not_write_one_shard(cell):
    with cell.shard(0):
        code = (
            "from pathlib import Path; from fopru_graph.results.cell import Cell; "
            f"c = Cell(Path({str(cell.folder)!r}), {{}}, 6)\nwith c.shard(0): pass"
        )
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another process is writing" in other.stderr
    with cell.shard(0):
        pass


def test_a_full_disk_keeps_what_was_written(cell):
    """A limit on the size of files stands for the disk: a write beyond it fails half way, as on a full one."""
    fill(cell, 0, [row(0)])
    code = f"""
import resource, signal
from pathlib import Path
from fopru_graph.results.cell import Cell
from fopru_graph.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
cell = Cell(Path({str(cell.folder)!r}), {{}}, 600)
try:
    with cell.shard(0) as shard:
        for index in range(1, 600):
            shard.append({{"index": index, "id": str(index), "status": "ok"}})
except UserError as error:
    print(error.message, "|", error.hint)
"""
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout and "is kept" in done.stdout, done.stderr
    assert str(cell.folder) in done.stdout
    again = Cell(cell.folder, IDENTITY, 600)
    again.scan()
    kept = again.done
    assert kept > 10 and again.torn <= 1
    fill(again, 0, [row(599)])
    again.scan()
    assert again.done == kept + 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        Cell(tmp_path / "cell", IDENTITY, 6).claim()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "cell").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        Cell(Path(tmp_path / "cell"), IDENTITY, 6).claim()
    assert (tmp_path / "cell").read_text() == "mine"


def test_merging_many_rows_keeps_memory_flat(tmp_path):
    """10,000 rows of 4 kB: reading them back holds none of them."""
    cell = Cell(tmp_path, IDENTITY, 10_000)
    cell.claim()
    fill(cell, 0, (row(index, answer="x" * 4000) for index in range(10_000)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cell.scan()
    cell.merge()
    assert sum(1 for _ in cell.rows()) == 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 12_000  # KiB; the rows are 40,000
