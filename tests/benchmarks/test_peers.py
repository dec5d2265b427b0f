"""The driver of `benchmarks/peers`, with workers that hold no model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.environments import Environments, Unavailable
from benchmarks.peers.peers import MODELS, OURS, PEERS, Row, Worker, rows_of
from benchmarks.peers.rounds import Failed, Measured, Process, measure
from benchmarks.peers.table import HEADER, cells, markdown, rows_as_json

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers read /proc")
TOY = Worker("toy", "tests.benchmarks.toy_worker", "", "sound", "float32")


@pytest.fixture
def start(tmp_path):
    def starts(worker: Worker) -> Process:
        command = [sys.executable, "-m", worker.module, worker.folder, worker.weights, "1"]
        return Process(command, 1, tmp_path / f"{worker.folder}.log")

    return starts


def rows(folder: str = "sound") -> list[Row]:
    worker = replace(TOY, folder=folder)
    return [Row(worker, "toy", "float32", 1), Row(worker, OURS, "float32", 0.25)]


def test_every_row_answers_once_a_round_from_one_process_a_worker(start):
    told: list[str] = []
    measured = measure(rows(), start, 3, 8, lambda _, text: told.append(text))
    assert [entry.ttft for entry in measured] == [[100.0] * 3, [25.0] * 3]
    assert [entry.tpot for entry in measured] == [[10.0] * 3] * 2
    assert all(entry.peak_bytes and entry.versions.keys() == {"numpy"} and entry.note == "a toy" for entry in measured)
    assert told == ["loading toy float32", "warming up", "warming up", "round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_answers_of_one_token_have_no_time_between_tokens(start):
    measured = measure(rows(), start, 1, 1, lambda *_: None)
    assert [entry.tpot for entry in measured] == [[], []]


@pytest.mark.parametrize(
    ("wrong", "failures"),
    [
        ("no-model", ["status 1: FileNotFoundError: there is no model"] * 2),
        ("refuses", [None, "ValueError: it cannot prune"]),
        ("dies", ["it was ended by SIGFPE"] * 2),
    ],
)
def test_a_worker_that_fails_says_why_and_the_others_go_on(start, wrong, failures):
    measured = measure([*rows(wrong), *rows()], start, 2, 4, lambda *_: None)
    for entry, failure in zip(measured, [*failures, None, None], strict=True):
        assert (entry.failed or "").endswith(failure or "")
        assert len(entry.ttft) == (0 if failure else 2)


def test_a_worker_that_cannot_be_made_is_told_too(start):
    def missing(worker: Worker) -> Process:
        raise Failed("it cannot be installed")

    (entry, _) = measure(rows(), missing, 1, 4, lambda *_: None)
    assert entry.failed == "it cannot be installed"
    assert cells(rows_as_json([entry], 576)[0])[-1] == "not measured: it cannot be installed"


def test_a_worker_that_hangs_is_ended(start, tmp_path):
    process = Process([sys.executable, "-c", "import time; time.sleep(60)"], 1, tmp_path / "log")
    with pytest.raises(Failed, match=r"did not answer in 0\.1 s"):
        process.receive(0.1)
    with pytest.raises(Failed, match="ended by SIGKILL"):
        process.receive(5)


def test_ours_is_compared_with_rows_of_its_weights():
    def row(name: str, weights: str, *ttft: float) -> Measured:
        return Measured(Row(TOY, name, weights, 0.25), list(ttft), [5.0] * len(ttft))

    measured = [row(OURS, "float32", 30, 30), row(OURS, "bfloat16", 10, 10), row("x", "float32", 40, 40)]
    measured += [row("x", "int8", 20, 20), row("x", "float16", 20, 20)]
    ratios = [entry["ours_over_this"].get("ttft") for entry in rows_as_json(measured, 576)]
    assert ratios == [None, None, [0.75] * 3, [0.5] * 3, None]


def test_the_table_has_a_cell_for_every_heading_and_the_result_is_json():
    measured = [Measured(Row(TOY, "a", "float32", 0.25), [20.0], [5.0], 2**20, {"numpy": "2"}, "a|b")]
    values = rows_as_json(measured, 576)
    about = {"date": "2026-01-01", "cpu": "a processor", "threads": 1, "rounds": 1, "new_tokens": 8}
    page = markdown(about | {"models": {"llava": json.loads(json.dumps(values))}})
    assert page.splitlines()[-1] == "| a | float32 | 144 | 20 | 5.0 | 1 | – | – | numpy 2; a/b |"
    assert "a processor, 1 thread each" in page
    assert len(cells(values[0])) == len(HEADER)


def test_a_ratio_of_one_round_has_no_interval():
    times = {"median": 20.0, "p90": 20.0, "n": 1}
    about = {"peer": "a", "weights": "int8", "visual_tokens": 1, "versions": {}, "note": "", "failed": None}
    row = about | {"peak_bytes": None, "ttft_ms": times, "tpot_ms": None}
    row["ours_over_this"] = {"ttft": [0.5, 0.5, 0.5], "tpot": [0.5, 0.4, 0.6]}
    assert cells(row)[6:8] == ("0.50", "0.50 (0.40–0.60)")


@pytest.mark.parametrize("model", MODELS)
def test_every_peer_has_rows_that_differ_and_a_module_and_requirements(model):
    found = rows_of(model)
    assert {row.worker.peer for row in found} == set(PEERS)
    assert len({(row.name, row.weights) for row in found}) == len(found)
    folder = Path(environments.__file__).parent
    for row in found:
        assert (folder / "workers" / f"{row.worker.module}.py").is_file()
        needed = row.worker.environment
        assert not needed or (folder / f"requirements-{needed}.txt").is_file()


def test_what_was_made_is_kept_and_what_broke_off_is_made_anew(tmp_path, monkeypatch):
    commands: list[list[str]] = []

    def run(what: str, command: list[str]) -> None:
        commands.append(command)
        if command[1:3] == ["-m", "benchmarks.peers.models"]:
            assert not Path(command[-1]).exists()
            Path(command[-1]).mkdir()
            if len(commands) == 1:
                raise Unavailable("no room")

    monkeypatch.setattr(environments, "_run", run)
    with pytest.raises(Unavailable, match="no room"):
        Environments(tmp_path, lambda _: None).ready(TOY, "llava")
    said: list[str] = []
    again = Environments(tmp_path, said.append)
    for _ in range(2):
        assert again.ready(TOY, "llava") == (Path(sys.executable), tmp_path / "models" / "llava")
    assert said == ["making models/llava"] and len(commands) == 2


def test_what_cannot_be_made_is_tried_once_in_a_run(tmp_path, monkeypatch):
    tried: list[str] = []

    def run(what: str, command: list[str]) -> None:
        tried.append(what)
        raise Unavailable(f"{what}: there is no network")

    monkeypatch.setattr(environments, "_run", run)
    made = Environments(tmp_path, lambda _: None)
    for _ in range(2):
        with pytest.raises(Unavailable, match="there is no network"):
            made.ready(TOY, "llava")
    assert len(tried) == 1


def test_a_program_that_fails_says_its_last_line():
    with pytest.raises(Unavailable, match=r"^it cannot be: no such thing$"):
        environments._run("it cannot be", [sys.executable, "-c", "import sys; print('x'); sys.exit('no such thing')"])
