"""``fopru-graph sweep`` on the demo model: cells in processes of their own, resumed, reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from fopru_graph.commands.arguments import ModelOptions
from fopru_graph.commands.sweep import SweepOptions, plan_cells
from tests.test_cli import PIPELINES, invoke

DEMO = PIPELINES.parent / "fopru_graph" / "demo" / "model"
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


@pytest.mark.slow  # with cells that answer nothing: tests/sweep/test_workers.py
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


def test_ctrl_c_stops_the_cells_and_gives_them_back(tmp_path):
    command = [sys.executable, "-m", "fopru_graph", "sweep", RANK, "--task", "scenes", "--limit", "400", "--json"]
    process = subprocess.Popen([*command, "--out", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shards, until = tmp_path / "fopru_rank--scenes--as-written" / "shards", time.monotonic() + 120
    while not list(shards.glob("*.jsonl")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130 and b"the same command goes on from there" in stderr
    (cell,) = json.loads(stdout)["cells"]
    assert (cell["state"], cell["attempts"], cell["accuracy"]) == ("pending", 0, None)
    log = (tmp_path / "logs" / f"{cell['label']}.log").read_text()
    assert "interrupted" in log and "Traceback" not in log  # it was asked, and had the time to say so


def test_what_failed_is_run_again_only_on_demand(tmp_path):
    model = tmp_path / "model"
    arguments = (BASELINE, *FEW, "--set", f"model={model}", "--json")
    assert sweep(tmp_path, *arguments).exit_code == 3
    shutil.copytree(DEMO, model)
    (cell,) = cells(sweep(tmp_path, *arguments)).values()
    assert (cell["state"], cell["attempts"]) == ("failed", 1)
    result = sweep(tmp_path, *arguments, "--retry")
    (cell,) = cells(result).values()
    assert (result.exit_code, cell["state"], cell["attempts"], cell["n"]) == (0, "done", 2, 6)


def test_a_sweep_whose_every_sample_failed_is_no_success_and_shows_their_most_common_error(tmp_path):
    names = ["gone.png", "gone.png", "gone.png"]
    rows = [{"question": "Is there a cat?", "answer": "yes", "image": name} for name in names]
    (tmp_path / "pope.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = sweep(tmp_path / "out", BASELINE, "--task", "pope", "--data", str(tmp_path / "pope.jsonl"))
    assert result.exit_code == 3 and "failed" in result.stdout
    assert "all 3 samples failed, 1 of them with: pope.jsonl row 1:" in result.stderr


@pytest.mark.parametrize(("errors", "code"), [(0, 0), (2, 3)])
def test_a_sweep_with_failed_samples_ends_like_an_evaluation_with_some(tmp_path, errors, code):
    (cell,) = plan(tmp_path, ["baseline"])
    common = {"message": "no memory", "count": 2} if errors else None
    summary = {"accuracy": 0.5, "n": 4, "errors": errors, "common_error": common, "identity": cell.identity()}
    (tmp_path / cell.label).mkdir()
    (tmp_path / cell.label / "summary.json").write_text(json.dumps(summary))
    result = sweep(tmp_path, BASELINE, "--task", "scenes", "--dtype", "float32")
    assert result.exit_code == code and "done" in result.stdout
    assert ("2 of 6 samples failed with: no memory" in result.stderr) == (errors > 0)


def test_results_of_something_else_are_refused_with_the_sentence_of_eval(tmp_path):
    arguments = (BASELINE, *FEW, "--json")
    (cell,) = cells(sweep(tmp_path, *arguments)).values()
    for name in ("cell.json", "summary.json"):
        path = tmp_path / cell["label"] / name
        held = json.loads(path.read_text())
        held["identity"] = {**held["identity"], "key": "k", "data": "d"} if name == "cell.json" else "another"
        path.write_text(json.dumps(held))
    result = sweep(tmp_path, *arguments)
    (cell,) = cells(result).values()
    assert (result.exit_code, cell["state"], cell["accuracy"]) == (3, "failed", None)
    assert "holds results of another configuration: data differ" in cell["error"]
    assert "the same command with --replace" in result.stderr and "--retry" not in result.stderr
    (cell,) = cells(sweep(tmp_path, *arguments, "--replace")).values()
    assert (cell["state"], cell["n"]) == ("done", 6)


def planned(tmp_path, files, ratio=None, sets=(), zipped=False):
    cells = plan(tmp_path, files, ratio, sets, zipped)
    return [(cell.facts["pipeline"], cell.facts["ratio"], cell.facts["settings"]) for cell in cells]


def plan(tmp_path, files, ratio=None, sets=(), zipped=False):
    options = SweepOptions("scenes", ratio, sets, zipped=zipped, out=tmp_path)
    return plan_cells([PIPELINES / f"{name}.yaml" for name in files], None, options, ModelOptions(dtype="float32"))


def test_a_setting_applies_where_it_has_a_place(tmp_path):
    assert planned(tmp_path, ["baseline", "fopru_rank", "prumerge"], "1,0.5", ("prune.over=tile,image",)) == [
        ("baseline", 1.0, {}),  # drops nothing: one cell
        ("fopru_rank", 1.0, {"prune.over": "tile"}),
        ("fopru_rank", 0.5, {"prune.over": "tile"}),
        ("fopru_rank", 1.0, {"prune.over": "image"}),
        ("fopru_rank", 0.5, {"prune.over": "image"}),
        ("prumerge", None, {}),  # finds its own number of tokens
    ]


def test_a_cell_runs_no_module_of_the_current_folder(tmp_path):
    (tmp_path / "random.py").write_text("raise RuntimeError('not the module')")
    (cell,) = plan(tmp_path, ["baseline"])
    argv = [*cell.argv[: cell.argv.index("eval")], "tasks"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "scenes" in done.stdout, done.stderr


def test_lists_in_step(tmp_path):
    assert planned(tmp_path, ["fopru_rank"], "0.5,0.25", ("prune.over=tile,image",), zipped=True) == [
        ("fopru_rank", 0.5, {"prune.over": "tile"}),
        ("fopru_rank", 0.25, {"prune.over": "image"}),
    ]


def test_a_value_with_a_comma_is_quoted(tmp_path):
    found = planned(tmp_path, ["fopru_rank"], sets=("prompt='red, or blue ?',what ?",))
    assert [settings["prompt"] for _, _, settings in found] == ["red, or blue ?", "what ?"]


def test_cells_take_over_what_is_said_of_the_model(tmp_path):
    options = SweepOptions("scenes", limit=5, out=tmp_path, retry=True, batch_size=8)
    (cell,) = plan_cells([PIPELINES / "baseline.yaml"], None, options, ModelOptions("cpu", "float32", "eager"))
    assert cell.argv[1:5] == ("-P", "-m", "fopru_graph", "eval")
    text = " ".join(cell.argv[4:])
    assert "--limit 5 --retry --device cpu --dtype float32 --attn eager --batch-size 8" in text and text.endswith(
        "--json"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([RANK, "--task", "scene"], "scenes"),
        ([RANK, *FEW, "--ratio", "1,2"], "not in (0, 1]"),
        ([RANK, *FEW, "--ratio", "x"], "no list of numbers"),
        ([RANK, *FEW, "--set", "prune.rato=1,2"], "rato"),
        ([RANK, *FEW, "--set", "prune.ratio=1,2"], "less than or equal to 1"),
        ([RANK, *FEW, "--zip", "--set", "prune.over=tile,image", "--ratio", "1,0.5,0.25"], "same length"),
        ([RANK, *FEW, "--ratio", "0.5", "--set", "prune.ratio=0.25"], "set the same input"),
        ([RANK, RANK, *FEW, "--ratio", "0.5", "--set", "prune.over"], "there is no ="),
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
from fopru_graph.commands.arguments import ModelOptions
from fopru_graph.commands.sweep import SweepOptions, plan_cells
out = Path({str(tmp_path)!r})
options = SweepOptions("scenes", "1,0.5", out=out)
cells = plan_cells([Path({BASELINE!r}), Path({RANK!r})], None, options, ModelOptions())
print(len(cells), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False"]
