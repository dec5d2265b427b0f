"""``fopru-graph eval`` and ``tune``: the promised figures, and one located sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fopru_graph.demo.scenes import render, sample_scene, scene_rng
from tests.test_cli import PIPELINES, invoke

BASELINE, RANK, FASTV = (str(PIPELINES / f"{name}.yaml") for name in ("baseline", "fopru_rank", "fastv"))
FOPRU_FASTV = str(PIPELINES / "fopru_fastv.yaml")
KEYS = {"pipeline", "task", "ratio", "accuracy", "n", "ci", "errors", "per_type"}


def evaluate(tmp_path, *arguments, out="out"):
    return invoke("eval", *arguments, "--out", str(tmp_path / out))


def rows_of(folder):
    """The merged rows without what the clock says."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_bytes().splitlines()]
    for row in rows:
        del row["timing"]
    return rows


def write_pope(folder, count=60, broken=(), torn=False, drop=None):
    """A local POPE file of scenes: ``broken`` rows name a damaged picture, ``torn`` ends in half a line."""
    folder.mkdir()
    lines = []
    for index in range(count):
        scene = sample_scene(scene_rng("test", index // 10))
        name = f"{index // 10}.png"
        if index % 10 == 0:
            render(scene).save(folder / name)
        if index in broken:
            name = f"broken{index}.png"
            (folder / name).write_bytes((folder / f"{index // 10}.png").read_bytes()[:300])
        record = {"question": "is there a red circle ?", "answer": "yes", "category": "random", "image": name}
        record["id"] = record["question_id"] = str(index)
        lines.append({key: value for key, value in record.items() if key != drop})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "pope.jsonl").write_text(text[:-20] if torn else text)
    return str(folder / "pope.jsonl")


def test_json_has_the_promised_keys(tmp_path):
    result = evaluate(tmp_path, BASELINE, RANK, "--task", "scenes", "--ratio", "1,0.25", "--limit", "20", "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["results"]
    assert [(row["pipeline"], row["task"], row["ratio"]) for row in rows] == [
        ("baseline", "scenes", 1.0), ("fopru_rank", "scenes", 1.0), ("fopru_rank", "scenes", 0.25),
    ]  # fmt: skip
    for row in rows:
        assert row.keys() >= KEYS and row["n"] == 20 and row["errors"] == 0
        assert row["ci"][0] <= row["accuracy"] <= row["ci"][1]
        assert sum(one["n"] for one in row["per_type"].values()) == 20
        assert set(row["per_type"]) <= {"existence", "colour", "shape", "counting", "position", "reading"}
    assert rows[0]["accuracy"] > 0.85
    assert rows[2]["retention"]["final"] == 0.25 and rows[2]["ttft_ms"]["n"] >= 3
    first, second = (rows_of(tmp_path / "out" / f"{name}--scenes--r1") for name in ("baseline", "fopru_rank"))
    assert first == second  # at ratio 1 nothing is pruned


def test_batches_give_the_rows_and_figures_that_samples_give_alone_and_need_no_folder_of_their_own(tmp_path):
    asked = (FOPRU_FASTV, "--task", "scenes", "--limit", "14")
    alone, together = (evaluate(tmp_path, *asked, "--batch-size", size, "--json", out=size) for size in ("1", "4"))
    folder = "fopru_fastv--scenes--as-written"
    assert rows_of(tmp_path / "1" / folder) == rows_of(tmp_path / "4" / folder)
    figures = [json.loads(result.stdout)["results"][0] for result in (alone, together)]
    times = {"ttft_ms", "samples_per_s", "batch_size", "folder"}
    assert figures[0]["batch_size"] == 1 and figures[1]["batch_size"] == 4 and figures[1]["samples_per_s"] > 0
    same = [{key: value for key, value in of_size.items() if key not in times} for of_size in figures]
    assert same[0] == same[1]
    again = evaluate(tmp_path, *asked, "--batch-size", "8", out="1")  # finished: nothing is asked, nothing refused
    assert again.exit_code == 0 and rows_of(tmp_path / "1" / folder) == rows_of(tmp_path / "4" / folder)


def test_a_cell_shows_what_was_kept_and_where_the_encoder_looks(tmp_path):
    assert evaluate(tmp_path, BASELINE, RANK, "--task", "scenes", "--ratio", "0.25", "--limit", "12").exit_code == 0
    whole, pruned = (tmp_path / "out" / name for name in ("baseline--scenes--r1", "fopru_rank--scenes--r0.25"))
    for folder, kept in ((whole, 256), (pruned, 64)):
        facts = [json.loads((folder / "pictures" / f"{n}.json").read_text()) for n in range(2)]
        assert [one["kept"] for one in facts] == [kept, kept] and facts[0]["source"] != facts[1]["source"]
        assert (folder / "pictures" / "0.png").stat().st_size > 1000
    assert len(json.loads((whole / "attention.json").read_text())["pictures"]) == 2
    assert not (pruned / "attention.json").exists()


def test_without_ratio_files_run_as_they_are_written(tmp_path):
    result = evaluate(tmp_path, RANK, "--task", "scenes", "--limit", "3", "--set", "prune.ratio=0.5", "--json")
    (row,) = json.loads(result.stdout)["results"]
    assert row["ratio"] is None and row["retention"]["final"] == 0.5
    table = evaluate(tmp_path, RANK, "--task", "scenes", "--limit", "3", "--set", "prune.ratio=0.5")
    assert "fopru_rank" in table.stdout and "256 → 128 → 128" in table.stdout


def test_tasks_are_listed():
    names = {task["name"] for task in json.loads(invoke("tasks", "--json").stdout)["tasks"]}
    assert names >= {"pope", "mmmu", "scienceqa", "ai2d", "gqa", "textvqa", "ocrbench", "scenes"}
    assert "ocrbench" in invoke("tasks").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([RANK, "--task", "scene"], "scenes"),
        ([RANK, "--task", ","], "there is no task"),
        ([RANK, "--task", "scenes", "--ratio", "0"], "not in (0, 1]"),
        ([RANK, "--task", "scenes", "--set", "prune.rato=1"], "did you mean"),
        ([RANK, RANK, "--task", "scenes"], "two pipelines are called 'fopru_rank'"),
        (["nowhere.yaml", "--task", "scenes"], "nowhere.yaml"),
        ([RANK, "--task", "pope", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_usage_starts_nothing(tmp_path, arguments, said):
    result = evaluate(tmp_path, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_column_is_named_before_anything_runs(tmp_path):
    path = write_pope(tmp_path / "data", drop="answer")
    result = evaluate(tmp_path, RANK, "--task", "pope", "--data", path)
    assert result.exit_code == 2 and "pope.jsonl" in result.stderr and "answer" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_broken_picture_costs_its_row_only(tmp_path):
    path = write_pope(tmp_path / "data", broken=[56])
    result = evaluate(tmp_path, RANK, "--task", "pope", "--data", path, "--ratio", "0.25", "--json")
    assert result.exit_code == 3
    (summary,) = json.loads(result.stdout)["results"]
    assert summary["errors"] == 1 and summary["n"] == 59
    bad = rows_of(tmp_path / "out" / "fopru_rank--pope--r0.25")[56]
    assert bad["status"] == "error" and "pope.jsonl row 57" in bad["error"] and bad["answer"] is None


def test_a_torn_last_line_costs_its_row_only(tmp_path):
    path = write_pope(tmp_path / "data", count=12, torn=True)
    result = evaluate(tmp_path, RANK, "--task", "pope", "--data", path, "--ratio", "0.25", "--json")
    assert result.exit_code == 3
    (summary,) = json.loads(result.stdout)["results"]
    assert summary["errors"] == 1 and summary["n"] == 11 and "pope.jsonl row 12" in summary["common_error"]["message"]


def test_a_question_that_no_file_can_hold_costs_its_row_only(tmp_path):
    write_pope(tmp_path / "data", 2)
    with (tmp_path / "data" / "pope.jsonl").open("a") as stream:
        stream.write(json.dumps({"question": "Is there a \ud800?", "answer": "yes", "image": "0.png"}) + "\n")
    for _ in range(2):  # and again on resuming
        result = evaluate(tmp_path, BASELINE, "--task", "pope", "--data", str(tmp_path / "data"), "--json")
        (summary,) = json.loads(result.stdout)["results"]
        assert (result.exit_code, summary["n"], summary["errors"]) == (3, 2, 1)
    assert rows_of(Path(summary["folder"]))[2]["status"] == "error"


def test_results_of_another_configuration_are_left_alone(tmp_path):
    path = write_pope(tmp_path / "data", count=4)
    assert evaluate(tmp_path, RANK, "--task", "pope", "--data", path, "--ratio", "0.25").exit_code == 0
    folder = tmp_path / "out" / "fopru_rank--pope--r0.25"
    before = {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}
    data = tmp_path / "data" / "pope.jsonl"
    data.write_text(data.read_text() * 2)
    result = evaluate(tmp_path, RANK, "--task", "pope", "--data", path, "--ratio", "0.25")
    assert result.exit_code == 1 and "another configuration: data differ" in result.stderr
    assert {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()} == before


def test_a_pipeline_that_fails_on_every_sample_is_shown_as_failed(tmp_path):
    result = evaluate(tmp_path, FASTV, "--task", "scenes", "--limit", "3", "--set", "fastv.layer=99", "--ratio", "0.5")
    assert result.exit_code == 3 and "Failed" in result.stdout
    assert "all 3 samples failed with: generate: " in result.stderr and "layer" in result.stderr


def test_tune_finds_a_ratio_and_says_how_sure_it_is(tmp_path):
    arguments = ("tune", RANK, FASTV, "--task", "scenes", "--limit", "24", "--max-drop", "5")
    arguments += ("--ratio", "1,0.5,0.25,0.05")
    result = invoke(*arguments, "--out", str(tmp_path / "out"), "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    rank, fastv = data["results"]
    assert (rank["pipeline"], fastv["pipeline"]) == ("fopru_rank", "fastv")
    for one in (rank, fastv):
        assert (one["drops"][-1]["ratio"], one["drops"][-1]["drop"]) == (1.0, 0.0)
        chosen = next(drop for drop in one["drops"] if drop["ratio"] == one["ratio"])
        assert chosen["drop"] <= 5 and chosen["n"] == 24 and one["statement"]
    assert data["best"]["scenes"] in ("fopru_rank", "fastv")
    again = invoke(*arguments, "--out", str(tmp_path / "out"))
    assert again.exit_code == 0 and "smallest within" in again.stdout and "fewest tokens with" in again.stdout


def test_tune_refuses_pipelines_without_a_ratio(tmp_path):
    result = invoke("tune", BASELINE, "--task", "scenes", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2 and "baseline has no ratio to tune" in result.stderr


def start(out, *more, launcher=()):
    command = [*(launcher or (sys.executable, "-m", "fopru_graph")), "eval", RANK]
    command += ["--task", "scenes", "--ratio", "0.25", "--limit", "60", "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def lines_in(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("shards/*.jsonl"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert start(out).wait(120) == 0
    return rows_of(out / "fopru_rank--scenes--r0.25")


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_ends_with_the_same_rows(tmp_path, kills, uninterrupted):
    """SIGKILL at random rows and moments within a row; every sample once, the same bytes but for the clock."""
    draw, folder = random.Random(kills), tmp_path / "fopru_rank--scenes--r0.25"
    for target in sorted(draw.sample(range(1, 58), kills)):
        process = start(tmp_path)
        while lines_in(folder) < target and process.poll() is None:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.03)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
    assert not (folder / "results.jsonl").exists()
    assert start(tmp_path).wait(120) == 0
    assert rows_of(folder) == uninterrupted
    written = [
        json.loads(line)["id"]
        for line in (folder / "shards" / "rank0.jsonl").read_bytes().splitlines()
        if line.endswith(b"}")
    ]
    assert len(written) == len(set(written)) == 60


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_ranks_give_the_file_of_one(tmp_path, world, uninterrupted):
    """Started by ``accelerate launch``; one of them was killed in an earlier run with another number of ranks."""
    folder = tmp_path / "fopru_rank--scenes--r0.25"
    first = start(tmp_path)
    while lines_in(folder) < 7 and first.poll() is None:
        time.sleep(0.002)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    launch += ["--num_processes", str(world), "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "fopru_graph"]
    process = start(tmp_path, launcher=launch)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()[-2000:]
    assert len(list(folder.glob("shards/*.jsonl"))) == world
    assert rows_of(folder) == uninterrupted
