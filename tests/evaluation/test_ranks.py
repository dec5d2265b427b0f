"""What the environment says of several processes: believed where it fits together, refused where it does not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.ranks import Ranks
from fopru_graph.processes.process import without_launcher
from tests.test_cli import PIPELINES, invoke

LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
MEET = """
import sys
from fopru_graph.commands.evaluate import failures_end_program
from fopru_graph.evaluation import ranks
ranks._SILENT, ranks._APART = 0.0, float(sys.argv[1])
with failures_end_program():
    ranks.Ranks.of_environment().meet()
"""


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in set(os.environ) - set(without_launcher(os.environ)):
        monkeypatch.delenv(name)


def setenv(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_launchers_variables_are_read_and_their_absence_is_one_process(monkeypatch):
    assert Ranks.of_environment() == Ranks(0, 1, 0)
    setenv(monkeypatch, **LAUNCHED)
    assert Ranks.of_environment() == Ranks(1, 2, 1)


@pytest.mark.parametrize(
    "variables", [{"RANK": "0"}, {"WORLD_SIZE": "1"}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "", "LOCAL_RANK": "7"}]
)
def test_a_single_process_may_say_so(monkeypatch, variables):
    setenv(monkeypatch, **variables)
    assert Ranks.of_environment() == Ranks(0, 1, 0)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "3"}, "RANK is 3, but WORLD_SIZE is not set"),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK is 1, but WORLD_SIZE is 1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is -1, but WORLD_SIZE is 2"),
        ({"WORLD_SIZE": "2"}, "RANK is not set, but WORLD_SIZE is 2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "h"}, "WORLD_SIZE is 2, but MASTER_PORT is not set"),
        ({"RANK": "zero"}, "RANK is 'zero', which is no number"),
    ],
)
def test_variables_that_contradict_each_other_are_refused(monkeypatch, variables, says):
    setenv(monkeypatch, **variables)
    with pytest.raises(UserError, match=says) as refused:
        Ranks.of_environment()
    assert "unset RANK" in refused.value.hint


@pytest.mark.parametrize("command", ["eval", "tune"])
def test_a_rank_without_a_world_is_said_instead_of_an_empty_success(tmp_path, monkeypatch, command):
    monkeypatch.setenv("RANK", "3")
    result = invoke(command, str(PIPELINES / "fopru_rank.yaml"), "--task", "scenes", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2 and "RANK is 3, but WORLD_SIZE is not set" in result.stderr
    assert not (tmp_path / "out").exists()


def lonely(patience):
    """The first of two ranks, whose second never comes; it waits so many seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | LAUNCHED | {"RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": port}
    command = [sys.executable, "-c", MEET, str(patience)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_waiting_for_ranks_that_do_not_come_is_said_and_ends():
    process = lonely(0.5)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "rank 0 of 2 waits for the others" in said and "rank 0 of 2 waited" in said and "Traceback" not in said


def test_ctrl_c_ends_the_wait():
    process = lonely(600)
    assert "waits for the others" in process.stderr.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said


def test_a_child_that_works_alone_gets_nothing_of_a_launcher():
    launcher = LAUNCHED | dict.fromkeys(["LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE"], "1")
    launcher |= {"TORCHELASTIC_RUN_ID": "none", "ACCELERATE_USE_FSDP": "true"}
    others = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "MY_RANK": "4", "RANKS": "4", "SLURM_JOB_ID": "7"}
    assert without_launcher(launcher | others) == others
