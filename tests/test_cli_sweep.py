"""``fopru-graph sweep`` on the demo model: cells in processes of their own, resumed, reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.test_cli import PIPELINES, invoke

BASELINE, RANK, FASTV = (str(PIPELINES / f"{name}.yaml") for name in ("baseline", "fopru_rank", "fastv"))
FEW = ("--task", "scenes", "--limit", "6")


def sweep(out, *arguments):
    return invoke("sweep", *arguments, "--out", str(out))


def cells(result):
    return {cell["label"]: cell for cell in json.loads(result.stdout)["cells"]}


def test_every_combination_is_a_cell_and_a_second_run_does_nothing_again(tmp_path):
    arguments = (BASELINE, RANK, *FEW, "--ratio", "1,0.25", "--jobs", "2", "--json")
    result = sweep(tmp_path, *arguments)
    assert result.exit_code == 0, result.stderr
    found = cells(result)
    assert set(found) == {"baseline--scenes--r1", "fopru_rank--scenes--r1", "fopru_rank--scenes--r0.25"}
    for label, cell in found.items():
        assert (cell["state"], cell["rc"], cell["n"], cell["errors"]) == ("done", 0, 6, 0)
        assert json.loads((tmp_path / label / "summary.json").read_text())["accuracy"] == cell["accuracy"]
        assert (tmp_path / "logs" / f"{label}.log").stat().st_size > 0
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")}
    again = sweep(tmp_path, *arguments)
    assert again.exit_code == 0 and cells(again) == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")} == times
    table = sweep(tmp_path, *arguments[:-1])
    assert "fopru_rank" in table.stdout and "done" in table.stdout


def test_a_cell_that_cannot_load_its_model_fails_alone(tmp_path):
    result = sweep(tmp_path, RANK, *FEW, "--ratio", "0.25", "--set", f"model=demo,{tmp_path}/nowhere", "--json")
    assert result.exit_code == 3
    states = [(cell["settings"]["model"], cell["state"]) for cell in cells(result).values()]
    assert sorted(state for _, state in states) == ["done", "failed"]
    assert "nowhere" in next(model for model, state in states if state == "failed")
    logs = "".join(path.read_text() for path in (tmp_path / "logs").glob("*.log"))
    assert "neither a folder nor a hub name" in logs and "Traceback" not in logs


def test_stopped_and_started_again_it_ends_as_if_nothing_had_been(tmp_path):
    command = [sys.executable, "-m", "fopru_graph", "sweep", RANK, FASTV, "--task", "scenes", "--limit", "20"]
    command += ["--ratio", "0.25", "--jobs", "1", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 120
    while not list(tmp_path.glob("*/shards/*.jsonl")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = sweep(tmp_path, *command[4:6], *FEW[:2], "--limit", "20", "--ratio", "0.25", "--json")
    assert result.exit_code == 0, result.stderr
    assert {cell["state"] for cell in cells(result).values()} == {"done"}
    for folder in ("fopru_rank--scenes--r0.25", "fastv--scenes--r0.25"):
        rows = [json.loads(line)["index"] for line in (tmp_path / folder / "results.jsonl").read_text().splitlines()]
        assert rows == list(range(20))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([RANK, "--task", "scene"], "scenes"),
        ([RANK, *FEW, "--ratio", "1,2"], "not in (0, 1]"),
        ([RANK, *FEW, "--ratio", "x"], "no list of numbers"),
        ([RANK, *FEW, "--set", "prune.rato=1,2"], "rato"),
        ([RANK, *FEW, "--set", "prune.ratio=1,2"], "less than or equal to 1"),
        ([RANK, *FEW, "--zip", "--set", "prune.over=tile,image", "--ratio", "1,0.5,0.25"], "same length"),
        ([RANK, *FEW, "--executor", "kubernetes"], "kubernetes"),
        ([RANK, *FEW, "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["nowhere.yaml", *FEW], "nowhere.yaml"),
    ],
)
def test_bad_usage_starts_nothing(tmp_path, arguments, said):
    result = sweep(tmp_path / "out", *arguments)
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_planning_loads_no_torch(tmp_path):
    """The parent of many processes stays small, and mistakes are told at once."""
    code = f"""
import sys
from pathlib import Path
from fopru_graph.commands.opening import ModelOptions
from fopru_graph.commands.sweep import SweepOptions, plan_cells
out = Path({str(tmp_path)!r})
options = SweepOptions("scenes", "1,0.5", (), False, (), None, out, None, "local", (), False, False)
cells = plan_cells([Path({BASELINE!r}), Path({RANK!r})], None, options, ModelOptions())
print(len(cells), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
