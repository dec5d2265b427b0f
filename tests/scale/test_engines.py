"""Engines: the same rows whatever makes the parts and whatever is killed; no process is left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from fopru_graph.errors import UserError
from fopru_graph.processes.process import StopSignals
from fopru_graph.scale import local
from fopru_graph.scale import worker as workers
from fopru_graph.scale.folder import MapFolder
from fopru_graph.scale.local import LocalWorkers
from fopru_graph.scale.slurm import Array, run_share
from tests.scale import toy

pytest.importorskip("pyarrow")
SLOT = {"PYTHONPATH": str(toy.ROOT)}
DRIVER = """
import sys
from pathlib import Path
from fopru_graph.processes.process import StopSignals
from fopru_graph.scale import local
from fopru_graph.scale import worker as workers
from tests.scale import toy
local.worker.__name__ = "tests.scale.toy"
folder, name = Path(sys.argv[1]), sys.argv[2]
run = toy.toy_run(folder, [f"{number:02}" for number in range(24)], name, pause=0.05)
with StopSignals() as stop:
    local.LocalWorkers(run, [{"PYTHONPATH": str(toy.ROOT)}] * 2, stop, lambda watch: None).run()
"""


@pytest.fixture(autouse=True)
def toys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a worker goes to the folder of its driver
    monkeypatch.setattr(local, "worker", SimpleNamespace(__name__="tests.scale.toy"))
    monkeypatch.setattr(workers, "PipelineMap", toy.ToyMap)
    monkeypatch.setattr(workers, "identity_of", lambda mapped, job: toy.IDENTITY)


def work(run, slots):
    with StopSignals() as stop:
        LocalWorkers(run, slots, stop, lambda watch: None).run()


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_row_that_kills_its_worker_costs_that_row(tmp_path):
    paths = ["a", "b", "killer", "d", "broken", "f", "g"]
    run = toy.toy_run(tmp_path, paths)
    work(run, [SLOT] * 2)
    rows = {path: (text, error) for path, text, error in toy.results(run.folder)}
    assert [path for path, *_ in toy.results(run.folder)] == paths
    assert rows["killer"] == (None, "2 workers died at this row") and rows["broken"] == (None, "it is broken")
    assert toy.begun(run).count("killer") == 2 and rows["d"] == ("seen d", None)
    assert run.made() == 7 and not run.folder.is_current(run.path)


def test_workers_that_fail_at_once_end_the_run_with_their_reason(tmp_path):
    run = toy.toy_run(tmp_path, ["a"])
    with pytest.raises(UserError, match="No module named 'tests'"):
        work(run, [{}])
    assert not run.folder.is_current(run.path)


def test_a_killed_driver_leaves_no_worker_and_its_whole_parts_are_not_made_again(tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), "first"], env=os.environ | SLOT)
    out = tmp_path / "out"
    wait_until(lambda: list(out.glob("part-*.parquet")))
    time.sleep(random.random() * 0.2)
    told = [json.loads(file.read_text()) for file in (out / "_map" / "runs" / "first" / "workers").iterdir()]
    workers = [psutil.Process(about["pid"]) for about in told if psutil.pid_exists(about["pid"])]
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert workers and not alive
    finished = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    second = [sys.executable, "-c", DRIVER, str(tmp_path), "second"]
    assert subprocess.run(second, env=os.environ | SLOT, check=False).returncode == 0
    assert toy.results(MapFolder(out)) == [(f"{number:02}", f"seen {number:02}", None) for number in range(24)]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_tasks_of_an_array_make_shares_until_nothing_is_left(tmp_path):
    paths = [f"{number:02}" for number in range(9)]
    run = toy.toy_run(tmp_path, paths, part_rows=2)
    ended = SimpleNamespace(done=lambda: True, exception=lambda: None, cancel=lambda check: None)
    rounds = []

    def submit(folder, names):
        """The first task of an array runs, the others are taken out of the queue."""
        rounds.append(len(names))
        run_share(str(folder), names[0])
        return [ended for _ in names]

    with StopSignals() as stop:
        Array(run, submit, 2, stop, lambda watch: None).run()
    assert toy.results(run.folder) == [(path, f"seen {path}", None) for path in paths]
    assert rounds == [2, 2, 1] and toy.begun(run) == ["00", "01", "04", "05", "08", "02", "03", "06", "07"]


def test_an_array_that_begins_nothing_says_why(tmp_path):
    run = toy.toy_run(tmp_path, ["a"])
    task = SimpleNamespace(done=lambda: True, exception=lambda: RuntimeError("Traceback …\nno such partition"))
    with StopSignals() as stop, pytest.raises(UserError, match="began no row: no such partition"):
        Array(run, lambda _folder, names: [task for _ in names], 1, stop, lambda watch: None).run()
