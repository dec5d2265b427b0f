"""The job table and its workers: every cell once, whatever dies; nothing of others is touched."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from fopru_graph.errors import UserError
from fopru_graph.sweep.jobs import LEASE, MAX_ATTEMPTS, Job, JobTable
from fopru_graph.sweep.process import StopSignals, places_for
from fopru_graph.sweep.slurm import Array, submitter
from fopru_graph.sweep.workers import Crew

FAKE = str(Path(__file__).with_name("fake_cell.py"))
WORKER = """
import sys
from pathlib import Path
from fopru_graph.sweep.workers import Crew
from fopru_graph.sweep.jobs import JobTable
from fopru_graph.sweep.process import StopSignals
from tests.sweep.test_jobs import fakes
out, count, seconds, places = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
table = JobTable(out / "sweep.sqlite")
table.add(fakes(out, count, seconds))
table.recover()
with StopSignals() as stop:
    Crew(table, out, [{}] * places, stop).run()
"""


def fake(out, number, seconds=0.0, code=0):
    label = f"cell{number:03d}"
    return Job(f"hash{number:03d}", label, (sys.executable, "-S", FAKE, str(out), label, str(seconds), str(code)))


def fakes(out, count, seconds=0.0):
    return [fake(out, number, seconds) for number in range(count)]


def worker(out, count, seconds, places):
    command = [sys.executable, "-c", WORKER, str(out), str(count), str(seconds), str(places)]
    return subprocess.Popen(command, start_new_session=True)


def run(table, out, places=1):
    with StopSignals() as stop:
        Crew(table, out, [{}] * places, stop).run()


def trace(out, word="begin"):
    path = out / "trace"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1] for line in lines if line.startswith(word)]


def states(table):
    return [job.state for job in table.jobs()]


def opened(out, jobs, **options):
    table = JobTable(out / "sweep.sqlite", **options)
    table.add(jobs)
    return table


def test_cells_run_and_their_ends_are_kept(tmp_path):
    table = opened(tmp_path, [fake(tmp_path, 0), fake(tmp_path, 1, code=3), fake(tmp_path, 2, code=1)])
    run(table, tmp_path, places=2)
    assert states(table) == ["done", "done", "failed"]
    assert [job.rc for job in table.jobs()] == [0, 3, 1]
    assert table.jobs()[2].error == "cell002 says goodbye with 1\nexit code 1"
    assert "cell000" in (tmp_path / "logs" / "cell000.log").read_text()
    again = opened(tmp_path, fakes(tmp_path, 3))
    run(again, tmp_path)
    assert len(trace(tmp_path)) == 3  # nothing is run again


def test_two_workers_never_run_the_same_cell(tmp_path):
    """200 cells that take a moment, claimed by two processes at once."""
    opened(tmp_path, fakes(tmp_path, 200)).close()
    claims = """
import sys, time
from pathlib import Path
from fopru_graph.sweep.jobs import JobTable
from tests.sweep.test_jobs import fakes
out = Path(sys.argv[1])
table = JobTable(out / "sweep.sqlite")
table.add(fakes(out, 200))
(out / f"ready {sys.argv[2]}").touch()
while len(list(out.glob("ready *"))) < 2:
    time.sleep(0.001)
while (job := table.claim()) is not None:
    with (out / "trace").open("a") as stream:
        stream.write(f"begin {job.label} {sys.argv[2]}\\n")
    table.finish(job, "done", 0)
    time.sleep(0.001)  # a cell takes a moment: else the lock goes back to who has just let go of it
"""
    racers = [subprocess.Popen([sys.executable, "-c", claims, str(tmp_path), name]) for name in "ab"]
    assert [racer.wait(120) for racer in racers] == [0, 0]
    assert Counter(trace(tmp_path)) == Counter(f"cell{number:03d}" for number in range(200))
    assert len({line.split()[2] for line in (tmp_path / "trace").read_text().splitlines()}) == 2
    assert set(states(opened(tmp_path, fakes(tmp_path, 200)))) == {"done"}


def test_no_cell_outlives_a_killed_sweep(tmp_path):
    process = worker(tmp_path, 2, 60, 2)
    until = time.monotonic() + 60
    while len(trace(tmp_path)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    cells = [psutil.Process(int(line.split()[2])) for line in (tmp_path / "trace").read_text().splitlines()]
    assert len(cells) == 2
    os.killpg(process.pid, signal.SIGKILL)  # not the cells: each has a group of its own
    process.wait()
    _, alive = psutil.wait_procs(cells, timeout=30)
    assert not alive and trace(tmp_path, "end") == []


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_sweep_goes_on(tmp_path, seed):
    """SIGKILL at a random moment: every cell is done exactly once in the end."""
    process = worker(tmp_path, 8, 0.3, 2)
    until = time.monotonic() + 60
    while len(trace(tmp_path)) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(random.Random(seed).random() * 0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.6)  # longer than a cell takes: one that survived would end now
    ended = trace(tmp_path, "end")
    assert worker(tmp_path, 8, 0.05, 2).wait(60) == 0
    table = opened(tmp_path, fakes(tmp_path, 8))
    assert states(table) == ["done"] * 8
    assert trace(tmp_path, "clash") == []
    final = Counter(trace(tmp_path, "end"))
    assert set(final) == {f"cell{number:03d}" for number in range(8)}
    again = [label for label, times in final.items() if times > 1]
    assert all(label in ended for label in again) and len(again) <= 2  # only those that ended unnoticed
    assert max(job.attempts for job in table.jobs()) <= 2


def test_a_cell_whose_workers_keep_dying_is_lost_in_the_end(tmp_path):
    for attempt in range(1, MAX_ATTEMPTS + 1):
        dead = subprocess.Popen(["true"])
        dead.wait()
        table = opened(tmp_path, fakes(tmp_path, 1), pid=dead.pid)
        assert table.claim().attempts == attempt
        table.close()
        table = opened(tmp_path, fakes(tmp_path, 1))
        table.recover()
        assert states(table) == ["pending" if attempt < MAX_ATTEMPTS else "lost"]
    assert "is gone" in table.jobs()[0].error
    table.renew(lambda job: True, retry=True)
    assert states(table) == ["pending"]


def test_a_worker_elsewhere_is_believed_for_a_while(tmp_path):
    now = [1000.0]
    dead = subprocess.Popen(["true"])  # a number that says nothing here: it is of the other machine
    dead.wait()
    far = opened(tmp_path, fakes(tmp_path, 1), host="far", pid=dead.pid, clock=lambda: now[0])
    job = far.claim()
    near = opened(tmp_path, fakes(tmp_path, 1), clock=lambda: now[0])
    now[0] += LEASE - 1
    near.recover()
    assert states(near) == ["running"]
    assert far.beat([job.hash]) == set()
    now[0] += LEASE + 1
    near.recover()
    assert states(near) == ["pending"]
    near.claim()
    assert far.beat([job.hash]) == {job.hash}  # it learns that the cell is not its own any more
    far.finish(job, "done", 0)
    assert states(near) == ["running"]  # and cannot say how it ended


def test_results_that_are_gone_are_made_again_and_failures_on_demand(tmp_path):
    jobs = [fake(tmp_path, 0), fake(tmp_path, 1, code=1)]
    run(opened(tmp_path, jobs), tmp_path)
    (tmp_path / "cell000" / "summary.json").unlink()
    table = opened(tmp_path, jobs)
    table.renew(lambda job: (tmp_path / job.label / "summary.json").exists(), retry=False)
    assert states(table) == ["pending", "failed"]
    table.renew(lambda job: True, retry=True)
    assert states(table) == ["pending", "pending"]


def test_another_command_adds_cells_and_keeps_the_old_ones(tmp_path):
    run(opened(tmp_path, fakes(tmp_path, 2)), tmp_path)
    other = opened(tmp_path, [fake(tmp_path, 7)])
    run(other, tmp_path)
    assert trace(tmp_path) == ["cell000", "cell001", "cell007"]
    assert states(opened(tmp_path, [*fakes(tmp_path, 2), fake(tmp_path, 7)])) == ["done"] * 3


def test_a_stop_gives_cells_back(tmp_path):
    process = worker(tmp_path, 4, 30, 2)
    until = time.monotonic() + 60
    while len(trace(tmp_path)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert trace(tmp_path, "end") == []
    table = opened(tmp_path, fakes(tmp_path, 4))
    assert states(table) == ["pending"] * 4 and {job.attempts for job in table.jobs()} == {0}


@pytest.mark.parametrize("kind", ["text", "database", "version"])
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(tmp_path, kind):
    path = tmp_path / "sweep.sqlite"
    if kind == "text":
        path.write_text("my notes, not a database at all " * 40)
    elif kind == "database":
        base = sqlite3.connect(path)
        base.execute("CREATE TABLE mine (x)")
        base.commit()
        base.close()
    else:
        JobTable(path).close()
        base = sqlite3.connect(path)
        base.execute("PRAGMA user_version = 99")
        base.commit()
        base.close()
    before = path.read_bytes()
    with pytest.raises(UserError) as caught:
        JobTable(path)
    assert "sweep.sqlite" in caught.value.message and "--out" in caught.value.hint
    assert path.read_bytes() == before


def test_a_table_or_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "sweep.sqlite").mkdir()
    with pytest.raises(UserError, match="sweep.sqlite cannot be used"):
        JobTable(tmp_path / "sweep.sqlite")
    (tmp_path / "sweep.sqlite").rmdir()
    (tmp_path / "logs").write_text("not a folder")
    table = opened(tmp_path, fakes(tmp_path, 1))
    with pytest.raises(UserError, match="cell000 cannot be started with its log") as caught:
        run(table, tmp_path)
    assert "--out" in caught.value.hint
    assert states(table) == ["pending"] and table.jobs()[0].attempts == 0


def test_a_full_disk_keeps_what_was_there(tmp_path):
    table = opened(tmp_path, fakes(tmp_path, 1))
    table._base.execute("PRAGMA max_page_count = 4")  # what SQLite says of a full disk
    with pytest.raises(UserError, match="sweep.sqlite cannot be used: database or disk is full"):
        table.add(fakes(tmp_path, 500))
    assert states(table) == ["pending"]


def test_an_array_runs_all_cells_and_its_states_reach_the_table(tmp_path):
    """submitit's local executor stands for Slurm: shares of cells, states by files, one process writes the table."""
    pytest.importorskip("submitit")
    table = opened(tmp_path, [*fakes(tmp_path, 3), fake(tmp_path, 3, code=1)])
    with StopSignals() as stop:
        Array(table, tmp_path, submitter("submitit-local", {}), 2, stop).run()
    assert states(table) == ["done", "done", "done", "failed"]
    assert sorted(trace(tmp_path)) == [f"cell{number:03d}" for number in range(4)]
    written = [json.loads(path.read_text()) for path in tmp_path.glob("slurm/*/cells/*.json")]
    assert {one["label"]: one["state"] for one in written} == {job.label: job.state for job in table.jobs()}


def test_slurm_that_is_not_there_is_named():
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match="sbatch and srun are not found"):
        submitter("slurm", {})


def test_every_gpu_is_a_place_of_its_own(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places_for(None, None)] == ["2", "5"]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places_for(3, "auto")] == ["2", "5", "2"]
    assert places_for(2, "cpu") == [{"OMP_NUM_THREADS": "1"}] * 2
    assert places_for(1, "cuda:1") == [{}]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert places_for(2, "cpu") == [{}, {}]  # what the user has set stands
