"""A sweep on a cluster: shares of cells, and what happens when one end of it goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fopru_graph.errors import UserError
from fopru_graph.processes.process import StopSignals
from fopru_graph.sweep.cells import SweepFolder
from fopru_graph.sweep.slurm import Array, submitter
from tests.sweep.test_workers import fake, fakes, opened, records, run, states, trace, wait_until

# What submitit needs of Slurm: tasks in the background, each with the variables that tell it which one it is.
SBATCH = """#!/bin/bash
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$1")
grep '^#SBATCH --\\(partition\\|time\\)' "$1" > "$FAKE_SLURM/asked"
copy=$(mktemp -p "$FAKE_SLURM") && cp "$1" "$copy"  # as Slurm does; submitit moves the file afterwards
for task in $(seq 0 "$last"); do
  SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=77$task SLURM_JOB_NODELIST=here SLURM_NTASKS=1 \\
  SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 setsid bash "$copy" > /dev/null 2>&1 &
done
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/bash
while [ "${1#--}" != "$1" ]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
"""
SUBMITTER = """
import sys
from pathlib import Path
from fopru_graph.sweep.cells import SweepFolder
from fopru_graph.processes.process import StopSignals
from fopru_graph.sweep.slurm import Array, submitter
from tests.sweep.test_workers import fakes
out = Path(sys.argv[1])
with StopSignals() as stop:
    Array(SweepFolder(out, fakes(out, 4, float(sys.argv[2]))), submitter("slurm", {}), 2, stop).run()
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm that runs every task here and at once."""
    pytest.importorskip("submitit")
    tools = tmp_path / "tools"
    tools.mkdir()
    programs = {"sbatch": SBATCH, "srun": SRUN, "sacct": "#!/bin/bash\necho 'JobID|State|NodeList'\n"}
    for name, text in (programs | {"scancel": "#!/bin/bash\n"}).items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tools))
    return tools


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def started(out):
    """Submitting processes; those that a failed test leaves behind are stopped, and their tasks with them."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(90)


def begun(started, out, seconds, cells):
    """A submitting process of its own, returned once so many cells have begun."""
    process = subprocess.Popen([sys.executable, "-c", SUBMITTER, str(out), str(seconds)], start_new_session=True)
    started.append(process)
    until = time.monotonic() + 60
    while len(trace(out)) < cells and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    assert len(trace(out)) >= cells
    return process


def test_an_array_of_slurm_runs_every_cell_once(slurm, out, monkeypatch):
    (out / "random.py").write_text("raise RuntimeError('not the module')")
    monkeypatch.chdir(out)
    folder = opened(out, [*fakes(out, 4), fake(out, 4, code=1)])
    with StopSignals() as stop:
        Array(folder, submitter("slurm", {"partition": "gpu", "time": 7}), 2, stop).run()
    assert states(folder) == ["done"] * 4 + ["failed"]
    assert sorted(trace(out)) == [f"cell{number:03d}" for number in range(5)]
    assert (slurm / "asked").read_text() == "#SBATCH --partition=gpu\n#SBATCH --time=7\n"
    (sweep,) = (path for path in (out / "slurm").iterdir() if path.is_dir())
    assert sweep.stat().st_mode & 0o077 == 0  # there are pickles in it


def test_a_new_sweep_takes_over_from_one_whose_submitter_was_killed(slurm, out, started):
    """The tasks of the first live on without it, but not once there is another: no cell is run by both."""
    first = begun(started, out, 60, cells=2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    folder = opened(out, fakes(out, 4, 0.05))
    with StopSignals() as stop:
        Array(folder, submitter("slurm", {}), 2, stop).run()
    assert states(folder) == ["done"] * 4
    assert [record.attempts for record in records(folder)] == [2, 2, 1, 1]
    assert trace(out, "clash") == [] and len(trace(out, "end")) == 4


def test_a_stop_ends_the_tasks_and_does_not_count_as_an_attempt(slurm, out, started):
    for _ in range(2):
        before = len(trace(out))
        process = begun(started, out, 60, cells=before + 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        folder = opened(out, fakes(out, 4))
        assert states(folder) == ["pending"] * 4 and {record.attempts for record in records(folder)} == {0}
    assert trace(out, "end") == []


def test_an_array_that_begins_nothing_is_an_error_with_its_reason(out):
    class Broken:
        def done(self):
            return True

        def exception(self):
            return RuntimeError("Traceback …\nModuleNotFoundError: No module named 'fopru_graph'")

    folder = opened(out, fakes(out, 2))
    with StopSignals() as stop, pytest.raises(UserError, match="No module named 'fopru_graph'") as caught:
        Array(folder, lambda _folder, names: [Broken() for _ in names], 2, stop).run()
    assert "submitit" in caught.value.hint
    assert states(folder) == ["pending", "pending"]


@pytest.mark.parametrize(("current", "attempts"), [("second", 1), ("", 0)])
def test_a_task_leaves_its_cells_when_its_sweep_is_not_the_current_one(tmp_path, current, attempts):
    """A sweep that is superseded has attempted its cells; one that the user has stopped has not."""
    sweep = tmp_path / "slurm" / "first"
    sweep.mkdir(parents=True)
    (sweep.parent / "current").write_text("first")
    cells = fakes(tmp_path, 3, 60)
    share = [{"label": cell.label, "argv": cell.argv, "request": cell.request} for cell in cells]
    about = {"cwd": str(tmp_path), "out": str(tmp_path), "device": "cpu", "cells": share}
    (sweep / "share.json").write_text(json.dumps(about))
    command = f"from fopru_graph.sweep.slurm import run_share; run_share({str(sweep)!r}, 'share')"
    process = subprocess.Popen([sys.executable, "-c", command])
    wait_until(lambda: trace(tmp_path))
    (sweep.parent / "current").write_text(current)
    assert process.wait(30) == 0
    folder = SweepFolder(tmp_path, cells)
    assert states(folder) == ["pending"] * 3
    assert [record.attempts for record in records(folder)] == [attempts, 0, 0]
    assert trace(tmp_path) == ["cell000"] and trace(tmp_path, "end") == []


def test_a_cell_that_a_task_elsewhere_may_still_run_is_waited_for(out, monkeypatch):
    """Its lock may not be seen on this machine."""
    monkeypatch.setattr("fopru_graph.sweep.cells.socket.gethostname", lambda: "far")
    claim = SweepFolder(out, fakes(out, 1)).claim()
    os.close(claim.lock)
    monkeypatch.undo()
    monkeypatch.setattr("fopru_graph.sweep.slurm.LEASE", 1.5)
    submitted = []

    def submit(folder, names):
        submitted.append(time.monotonic())
        run(SweepFolder(out, fakes(out, 1)))
        return []

    begin = time.monotonic()
    with StopSignals() as stop:
        Array(SweepFolder(out, fakes(out, 1)), submit, 1, stop).run()
    assert len(submitted) == 1 and submitted[0] - begin > 1.5


def test_a_parameter_that_sbatch_does_not_have_is_named(slurm, out):
    with pytest.raises(UserError, match="partitoin"):
        submitter("slurm", {"partitoin": "gpu"})(out, ["share"])


def test_without_submitit_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="needs submitit") as caught:
        submitter("slurm", {})
    assert "pip install submitit" in caught.value.hint
