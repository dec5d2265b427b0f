"""A sweep on a cluster: shares of cells, states by files, and what happens when one end of it goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fopru_graph.errors import UserError
from fopru_graph.sweep.jobs import JobTable
from fopru_graph.sweep.process import StopSignals
from fopru_graph.sweep.slurm import Array, Share, submitter
from tests.sweep.test_jobs import fake, fakes, states, trace

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
from fopru_graph.sweep.jobs import JobTable
from fopru_graph.sweep.process import StopSignals
from fopru_graph.sweep.slurm import Array, submitter
from tests.sweep.test_jobs import fakes
out = Path(sys.argv[1])
table = JobTable(out / "sweep.sqlite")
table.add(fakes(out, 4, float(sys.argv[2])))
with StopSignals() as stop:
    Array(table, out, submitter("slurm", {}), 2, stop).run()
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


def opened(out, jobs):
    table = JobTable(out / "sweep.sqlite")
    table.add(jobs)
    return table


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


def test_an_array_of_slurm_runs_every_cell_once(slurm, out):
    table = opened(out, [*fakes(out, 4), fake(out, 4, code=1)])
    with StopSignals() as stop:
        Array(table, out, submitter("slurm", {"partition": "gpu", "time": 7}), 2, stop).run()
    assert states(table) == ["done"] * 4 + ["failed"]
    assert sorted(trace(out)) == [f"cell{number:03d}" for number in range(5)]
    assert (slurm / "asked").read_text() == "#SBATCH --partition=gpu\n#SBATCH --time=7\n"
    (folder,) = (path for path in (out / "slurm").iterdir() if path.is_dir())
    assert folder.stat().st_mode & 0o077 == 0  # there are pickles in it


def test_a_new_sweep_takes_over_from_one_whose_submitter_was_killed(slurm, out, started):
    """The tasks of the first live on without it, but not once there is another: no cell is run by both."""
    first = begun(started, out, 60, cells=2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    table = opened(out, fakes(out, 4, 0.05))
    table.recover()
    with StopSignals() as stop:
        Array(table, out, submitter("slurm", {}), 2, stop).run()
    assert states(table) == ["done"] * 4
    assert [job.attempts for job in table.jobs()] == [2, 2, 1, 1]
    assert trace(out, "clash") == [] and len(trace(out, "end")) == 4


def test_a_stop_ends_the_tasks_and_does_not_count_as_an_attempt(slurm, out, started):
    for _ in range(2):
        before = len(trace(out))
        process = begun(started, out, 60, cells=before + 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        table = opened(out, fakes(out, 4))
        assert states(table) == ["pending"] * 4 and {job.attempts for job in table.jobs()} == {0}
    assert trace(out, "end") == []


def test_an_array_that_begins_nothing_is_an_error_with_its_reason(out):
    class Broken:
        def done(self):
            return True

        def exception(self):
            return RuntimeError("Traceback …\nModuleNotFoundError: No module named 'fopru_graph'")

    table = opened(out, fakes(out, 2))
    with StopSignals() as stop, pytest.raises(UserError, match="No module named 'fopru_graph'") as caught:
        Array(table, out, lambda _folder, names: [Broken() for _ in names], 2, stop).run()
    assert "submitit" in caught.value.hint
    assert states(table) == ["pending", "pending"]


def test_a_worker_leaves_its_cells_to_a_later_sweep(tmp_path):
    folder = tmp_path / "slurm" / "first"
    (folder / "cells").mkdir(parents=True)
    (tmp_path / "slurm" / "current").write_text("first")
    share = Share(folder, fakes(tmp_path, 3))
    job = share.claim()
    assert share.beat([job.hash]) == set() and share.unfinished()
    (tmp_path / "slurm" / "current").write_text("second")
    assert share.beat([job.hash]) == {job.hash}
    assert not share.unfinished() and share.claim() is None
    assert json.loads((folder / "cells" / f"{job.hash}-1.json").read_text())["state"] == "lost"


def test_a_parameter_that_sbatch_does_not_have_is_named(slurm, out):
    with pytest.raises(UserError, match="partitoin"):
        submitter("slurm", {"partitoin": "gpu"})(out, ["share"])


def test_without_submitit_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match="needs submitit") as caught:
        submitter("slurm", {})
    assert "fopru-graph[slurm]" in caught.value.hint
