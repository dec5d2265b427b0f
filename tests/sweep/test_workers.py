"""Workers and the states of their cells: every cell once, whatever dies; nothing of others is touched."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fopru_graph.errors import UserError
from fopru_graph.processes.process import StopSignals, slots_for
from fopru_graph.sweep.cells import MAX_ATTEMPTS, Cell, SweepFolder
from fopru_graph.sweep.slurm import Array, submitter
from fopru_graph.sweep.workers import Worker
from tests.sweep.fake_cell import IDENTITY
from tests.test_full_disk import full_disk

FAKE = str(Path(__file__).with_name("fake_cell.py"))
WORKER = """
import sys
from pathlib import Path
from fopru_graph.sweep.cells import SweepFolder
from fopru_graph.processes.process import StopSignals
from fopru_graph.sweep.workers import Worker
from tests.sweep.test_workers import fakes
out, count, seconds, slots = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
with StopSignals() as stop:
    Worker(SweepFolder(out, fakes(out, count, seconds)), [{}] * slots, stop).run()
"""


def fake(out, number, seconds=0.0, code=0):
    label = f"cell{number:03d}"
    argv = (sys.executable, "-S", FAKE, str(out), label, str(seconds), str(code))
    return Cell(label, argv, f"request {number}", lambda: IDENTITY)


def fakes(out, count, seconds=0.0):
    return [fake(out, number, seconds) for number in range(count)]


def worker(out, count, seconds, slots):
    command = [sys.executable, "-c", WORKER, str(out), str(count), str(seconds), str(slots)]
    return subprocess.Popen(command, start_new_session=True)


def run(folder, slots=1):
    with StopSignals() as stop:
        Worker(folder, [{}] * slots, stop).run()


def trace(out, word="begin"):
    path = out / "trace"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1] for line in lines if line.startswith(word)]


def states(folder):
    """Read anew, as another process would."""
    return [status.state for status in SweepFolder(folder.out, folder.cells).statuses()]


def records(folder):
    return [folder.status(cell).record for cell in folder.cells]


def opened(out, cells, retry=False):
    folder = SweepFolder(out, cells)
    folder.prepare(retry)
    return folder


def killed_while_running(out):
    """A worker of one cell that is killed without a chance to say so, and its cell with it."""
    before = len(trace(out))
    process = worker(out, 1, 60, 1)
    wait_until(lambda: len(trace(out)) > before)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: states(SweepFolder(out, fakes(out, 1))) != ["running"])


def pids(out):
    return [int(line.split()[2]) for line in (out / "trace").read_text().splitlines()]


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_cells_run_and_their_ends_are_kept(tmp_path):
    folder = opened(tmp_path, [fake(tmp_path, 0), fake(tmp_path, 1, code=3), fake(tmp_path, 2, code=1)])
    run(folder, slots=2)
    assert states(folder) == ["done", "done", "failed"]
    assert [record.rc for record in records(folder)] == [0, 3, 1]
    assert records(folder)[2].error == "cell002 says goodbye with 1\nexit code 1"
    assert "cell000" in (tmp_path / "logs" / "cell000.log").read_text()
    again = opened(tmp_path, fakes(tmp_path, 3))
    run(again)
    assert len(trace(tmp_path)) == 3  # nothing is run again


def test_a_cell_is_one_process_whatever_launcher_started_the_sweep(tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "ACCELERATE_USE_FSDP"):
        monkeypatch.setenv(name, "2")
    script = "import json, os; print(json.dumps(sorted(os.environ)), flush=True)"
    folder = opened(tmp_path, [Cell("cell", (sys.executable, "-c", script), "request")])
    run(folder)
    names = json.loads((tmp_path / "logs" / "cell.log").read_text().splitlines()[1])
    assert "PATH" in names
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "ACCELERATE_USE_FSDP"} & set(names)


def test_two_workers_never_run_the_same_cell(tmp_path):
    """200 cells that take a moment, claimed by two processes at once."""
    claims = """
import sys, time
from pathlib import Path
from fopru_graph.sweep.cells import SweepFolder
from tests.sweep.test_workers import fakes
out = Path(sys.argv[1])
folder = SweepFolder(out, fakes(out, 200))
(out / f"ready {sys.argv[2]}").touch()
while len(list(out.glob("ready *"))) < 2:
    time.sleep(0.001)
while (claim := folder.claim()) is not None:
    with (out / "trace").open("a") as stream:
        stream.write(f"begin {claim.cell.label} {sys.argv[2]}\\n")
    (out / claim.cell.label).mkdir()
    (out / claim.cell.label / "summary.json").write_text('{"identity": "made"}')
    folder.finish(claim, 0)
    time.sleep(0.001)  # a cell takes a moment, so that both get some
"""
    racers = [subprocess.Popen([sys.executable, "-c", claims, str(tmp_path), name]) for name in "ab"]
    assert [racer.wait(120) for racer in racers] == [0, 0]
    assert Counter(trace(tmp_path)) == Counter(f"cell{number:03d}" for number in range(200))
    assert len({line.split()[2] for line in (tmp_path / "trace").read_text().splitlines()}) == 2
    assert set(states(SweepFolder(tmp_path, fakes(tmp_path, 200)))) == {"done"}


def test_no_cell_outlives_a_killed_sweep(tmp_path):
    process = worker(tmp_path, 2, 60, 2)
    wait_until(lambda: len(trace(tmp_path)) == 2)
    cells = [psutil.Process(pid) for pid in pids(tmp_path)]
    assert len(cells) == 2
    os.killpg(process.pid, signal.SIGKILL)  # not the cells: each has a group of its own
    process.wait()
    _, alive = psutil.wait_procs(cells, timeout=30)
    assert not alive and trace(tmp_path, "end") == []


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_sweep_goes_on(tmp_path, seed):
    """SIGKILL at a random moment: every cell is done exactly once in the end."""
    process = worker(tmp_path, 8, 0.3, 2)
    wait_until(lambda: len(trace(tmp_path)) >= 3)
    time.sleep(random.Random(seed).random() * 0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.6)  # longer than a cell takes: one that survived would end now
    ended = trace(tmp_path, "end")
    assert worker(tmp_path, 8, 0.05, 2).wait(60) == 0
    folder = opened(tmp_path, fakes(tmp_path, 8))
    assert states(folder) == ["done"] * 8
    assert trace(tmp_path, "clash") == []
    final = Counter(trace(tmp_path, "end"))
    assert set(final) == {f"cell{number:03d}" for number in range(8)}
    again = [label for label, times in final.items() if times > 1]
    assert all(label in ended for label in again) and len(again) <= 2  # only those that ended unnoticed
    assert max(record.attempts for record in records(folder)) <= 2


def test_a_cell_whose_workers_keep_dying_is_lost_in_the_end(tmp_path):
    for attempt in range(1, MAX_ATTEMPTS + 1):
        killed_while_running(tmp_path)
        folder = opened(tmp_path, fakes(tmp_path, 1))
        assert records(folder)[0].attempts == attempt
        assert states(folder) == ["pending" if attempt < MAX_ATTEMPTS else "lost"]
    assert "is gone" in folder.statuses()[0].error
    assert states(opened(tmp_path, fakes(tmp_path, 1), retry=True)) == ["pending"]


def test_a_cell_runs_as_long_as_its_processes_have_its_lock(tmp_path):
    """Its worker is gone, but what it started is not: nobody else may begin the cell."""
    (claim,) = [SweepFolder(tmp_path, fakes(tmp_path, 1)).claim()]
    left = subprocess.Popen(["sleep", "60"], pass_fds=[claim.lock])
    os.close(claim.lock)
    folder = opened(tmp_path, fakes(tmp_path, 1))
    assert states(folder) == ["running"] and folder.claim() is None and folder.unfinished()
    left.kill()
    left.wait()
    assert states(folder) == ["pending"] and folder.claim().record.attempts == 2


def test_results_that_are_gone_are_made_again_and_failures_on_demand(tmp_path):
    cells = [fake(tmp_path, 0), fake(tmp_path, 1, code=1)]
    run(opened(tmp_path, cells))
    (tmp_path / "cell000" / "summary.json").unlink()
    assert states(opened(tmp_path, cells)) == ["pending", "failed"]
    assert states(opened(tmp_path, cells, retry=True)) == ["pending", "pending"]


def test_results_of_another_identity_do_not_count(tmp_path):
    """Everything a cell is of may change between two commands: what was made before is not shown as new."""
    cells = [fake(tmp_path, 0)]
    run(opened(tmp_path, cells))
    changed = [replace(cells[0], identity=lambda: "weights have changed")]
    folder = opened(tmp_path, changed)
    assert states(folder) == ["pending"] and folder.statuses()[0].summary == {}
    assert states(opened(tmp_path, cells)) == ["done"]


def test_a_model_that_is_gone_leaves_the_answer_to_the_evaluation(tmp_path):
    def raises():
        raise UserError("there is no model")

    run(opened(tmp_path, fakes(tmp_path, 1)))
    assert states(opened(tmp_path, [replace(fake(tmp_path, 0), identity=raises)])) == ["pending"]


def test_results_of_eval_or_of_an_older_version_count_where_their_identity_matches(tmp_path):
    (tmp_path / "sweep.sqlite").write_text("the table of a version before")
    for number, identity in enumerate((IDENTITY, "another", None)):
        (tmp_path / f"cell{number:03d}").mkdir()
        (tmp_path / f"cell{number:03d}" / "summary.json").write_text(json.dumps({"n": 2, "identity": identity}))
    folder = opened(tmp_path, fakes(tmp_path, 3))
    assert states(folder) == ["done", "pending", "pending"]
    assert (records(folder)[0].rc, records(folder)[0].attempts) == (0, 0)


def test_cells_with_errors_are_done_and_run_again_on_demand(tmp_path):
    cells = [fake(tmp_path, 0, code=3)]
    run(opened(tmp_path, cells))
    assert states(opened(tmp_path, cells)) == ["done"]
    again = opened(tmp_path, cells, retry=True)
    assert states(again) == ["pending"]
    run(again)
    assert states(again) == ["done"] and records(again)[0].attempts == 2


def test_a_cell_whose_samples_all_failed_has_failed_and_says_why(tmp_path):
    cells = [fake(tmp_path, 0, code="3all")]
    run(opened(tmp_path, cells))
    folder = opened(tmp_path, cells)
    (status,) = folder.statuses()
    assert (status.state, status.record.rc, status.record.attempts) == ("failed", 3, 1)
    assert status.error == "all 4 samples failed with: generate: no memory"
    run(opened(tmp_path, cells, retry=True))
    assert records(folder)[0].attempts == 2
    shutil.rmtree(tmp_path / "attempts")  # as if `eval` had made it
    (status,) = opened(tmp_path, cells).statuses()
    assert (status.state, status.record.rc) == ("failed", 3) and "no memory" in status.error


def test_another_command_adds_cells_and_keeps_the_old_ones(tmp_path):
    run(opened(tmp_path, fakes(tmp_path, 2)))
    run(opened(tmp_path, [fake(tmp_path, 7)]))
    assert trace(tmp_path) == ["cell000", "cell001", "cell007"]
    assert states(opened(tmp_path, [*fakes(tmp_path, 2), fake(tmp_path, 7)])) == ["done"] * 3


def test_a_failure_of_another_request_does_not_count(tmp_path):
    """Its pipeline has been changed since: the same folder, but the cell was not tried yet."""
    failing = fake(tmp_path, 0, code=1)
    run(opened(tmp_path, [failing]))
    assert states(opened(tmp_path, [replace(failing, request="another")])) == ["pending"]


def test_a_stop_gives_cells_back(tmp_path):
    process = worker(tmp_path, 4, 30, 2)
    wait_until(lambda: len(trace(tmp_path)) >= 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert trace(tmp_path, "end") == []
    folder = opened(tmp_path, fakes(tmp_path, 4))
    assert states(folder) == ["pending"] * 4 and {record.attempts for record in records(folder)} == {0}


@pytest.mark.parametrize("text", ["my notes, no record at all", '{"of": "another program"}', '{"format": 99}', "[1]"])
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path, text):
    run(opened(tmp_path, fakes(tmp_path, 1)))
    path = tmp_path / "attempts" / "cell000.json"
    if "format" in text:
        text = path.read_text().replace('"format": 1', '"format": 99')
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        opened(tmp_path, fakes(tmp_path, 1))
    assert "cell000.json" in caught.value.message and "--out" in caught.value.hint
    assert path.read_text() == text


def test_a_folder_or_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "attempts").write_text("not a folder")
    with pytest.raises(UserError, match="attempts cannot be used"):
        SweepFolder(tmp_path, fakes(tmp_path, 1))
    (tmp_path / "attempts").unlink()
    (tmp_path / "logs").write_text("not a folder")
    folder = opened(tmp_path, fakes(tmp_path, 1))
    with pytest.raises(UserError, match="cell000 cannot be started with its log") as caught:
        run(folder)
    assert "--out" in caught.value.hint
    assert states(folder) == ["pending"] and records(folder)[0].attempts == 0


def test_a_full_disk_keeps_what_was_there(tmp_path):
    folder = opened(tmp_path, fakes(tmp_path, 1))
    with full_disk(10), pytest.raises(UserError, match="cell000.json cannot be used"):
        folder.claim()
    assert states(folder) == ["pending"] and records(folder)[0].attempts == 0


def test_an_array_runs_all_cells_and_its_states_are_those_of_any_sweep(tmp_path, monkeypatch):
    """submitit's local executor stands for Slurm: shares of cells, and the records of any other sweep."""
    pytest.importorskip("submitit")
    (tmp_path / "random.py").write_text("raise RuntimeError('not the module')")
    monkeypatch.chdir(tmp_path)
    folder = opened(tmp_path, [*fakes(tmp_path, 3), fake(tmp_path, 3, code=1)])
    with StopSignals() as stop:
        Array(folder, submitter("submitit-local", {}), 2, stop).run()
    assert states(folder) == ["done", "done", "done", "failed"]
    assert sorted(trace(tmp_path)) == [f"cell{number:03d}" for number in range(4)]
    run(opened(tmp_path, folder.cells))  # on this machine
    assert len(trace(tmp_path)) == 4


def test_slurm_that_is_not_there_is_named():
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match="sbatch and srun are not found"):
        submitter("slurm", {})


def test_every_gpu_is_a_place_of_its_own(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots_for(None, None)] == ["2", "5"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots_for(3, "auto")] == ["2", "5", "2"]
    assert slots_for(2, "cpu") == [{"OMP_NUM_THREADS": "1"}] * 2
    assert slots_for(1, "cuda:1") == [{}]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert slots_for(2, "cpu") == [{}, {}]  # what the user has set stands
