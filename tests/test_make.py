"""``make gpu`` on machines without a GPU: it refuses before it installs anything, and its steps can be told."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(tmp_path: Path, *arguments: str, driver: str | None = None, **programs: str) -> subprocess.CompletedProcess:
    """Run make with a driver that says so, and programs of the virtual environment that run these shell scripts."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name, script in {"nvidia-smi": driver or "exit 9", **programs}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    passed_on = ("MAKEFLAGS", "TORCH", "VENV", "PYTEST_ARGS")  # by a make that runs these tests
    environment = {name: value for name, value in os.environ.items() if name not in passed_on}
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    command = ["make", "--no-print-directory", *arguments, f"VENV={tmp_path}", f"GPU_OUT={tmp_path / 'out'}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_without_a_gpu_nothing_is_installed(tmp_path):
    done = make(tmp_path, "gpu")
    assert done.returncode != 0 and "make gpu needs an NVIDIA GPU" in done.stderr
    assert not (tmp_path.parent / f"{tmp_path.name}-gpu").exists()


@pytest.mark.parametrize(("given", "torch"), [((), "torch"), (("TORCH=torch==2.11.0",), "torch==2.11.0")])
def test_the_environment_is_its_own_with_a_cuda_build_unless_another_is_named(tmp_path, given, torch):
    done = make(tmp_path, "-n", "gpu", *given, driver="echo GPU 0")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}-gpu/bin/python -m pip install" in done.stdout
    assert f"constraints.txt '{torch}'\n" in done.stdout


def measure(tmp_path, **programs):
    """Only the measuring, with make told that all is installed."""
    log = f'echo "$(basename $0) $*" >> {tmp_path}/log'
    scripts = {"python": f'case "$*" in *is_available*) exit 0;; esac; {log}', "fopru-graph": log} | programs
    words = make(tmp_path, "-n", "gpu-measure").stdout.split()
    for stamp in {Path(word) for word in words if word.startswith(f"{tmp_path}/.")}:
        if stamp.name.startswith((".installed-", ".develop-")) and "*" not in stamp.name:
            stamp.touch()
            os.utime(stamp, (2**31, 2**31))  # one time for both, or make installs what it takes to be the older one
    done = make(tmp_path, "gpu-measure", **scripts)
    file = tmp_path / "log"
    return done, file.read_text().splitlines() if file.exists() else []


def test_tests_come_first_and_then_the_tables_which_go_on_where_they_were_stopped(tmp_path):
    done, (tests, tables) = measure(tmp_path)
    assert done.returncode == 0, done.stderr
    assert tests.startswith("python -m pytest -m gpu") and f"--junitxml={tmp_path}/out/tests.xml" in tests
    assert tables == f"fopru-graph bench --paper --resume --device cuda --dtype bfloat16 --out {tmp_path}/out"


def test_tables_are_measured_although_a_test_fails_which_is_told(tmp_path):
    failing = f'case "$*" in *is_available*) exit 0;; esac; echo tests >> {tmp_path}/log; exit 1'
    done, log = measure(tmp_path, python=failing)
    assert done.returncode != 0 and len(log) == 2


def test_a_torch_without_cuda_is_told_before_anything_is_measured(tmp_path):
    done, log = measure(tmp_path, python='case "$*" in *freeze*) echo torch==2.13.0+cpu;; *) exit 1;; esac')
    assert done.returncode != 0 and log == []
    assert "torch==2.13.0+cpu sees no CUDA device. Name a build for this driver: make gpu TORCH=" in done.stderr
