"""What the peers need, under one cache folder: environments, models, and the models as OpenVINO reads them.

Each is made once, in a folder of another name that gets its own when it is whole: an interrupted run goes on there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peers.peers import HERE, Worker

FOLDER = Path(__file__).resolve().parent
_FORMATS = {"float32": "fp32", "auto": "fp32", "int8": "int8"}  # of an export, by a worker's weights


class Unavailable(Exception):
    """A peer cannot be installed or its model cannot be made; the message is one sentence."""


class Environments:
    """Makes what a worker needs, if it is not there.

    Args:
        cache: the folder of everything.
        say: called with what is being made, as it takes minutes.
    """

    def __init__(self, cache: Path, say: Callable[[str], None]) -> None:
        self._cache, self._say = cache.resolve(), say
        self._failed: dict[Path, str] = {}  # nothing is tried twice in a run

    def ready(self, worker: Worker, model: str) -> tuple[Path, Path]:
        """The Python and the model's folder of a worker.

        Raises:
            Unavailable: something cannot be made.
        """
        checkpoint = self._once(self._cache / "models" / model, lambda folder: _write_model(model, folder))
        if worker.environment == HERE:
            return Path(sys.executable), checkpoint
        requirements = FOLDER / f"requirements-{worker.environment}.txt"
        key = hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]
        # A virtual environment cannot be moved, so its stamp is what appears last.
        home = self._cache / "environments" / f"{worker.environment}-{key}"
        self._once(home / "installed", lambda stamp: _install(home, requirements, stamp))
        python, folder = home / "bin" / "python", self._cache / worker.folder.format(model=model)
        if folder != checkpoint:
            self._once(folder, lambda made: _export(home, checkpoint, _FORMATS[worker.weights], made))
        return python, folder

    def _once(self, target: Path, make: Callable[[Path], None]) -> Path:
        if target in self._failed:
            raise Unavailable(self._failed[target])
        if not target.exists():
            self._say(f"making {target.relative_to(self._cache)}")
            made = target.with_name(f"{target.name}.part")
            shutil.rmtree(made, ignore_errors=True)
            made.parent.mkdir(parents=True, exist_ok=True)
            try:
                make(made)
            except Unavailable as error:
                self._failed[target] = str(error)
                raise
            made.rename(target)
        return target


def _write_model(model: str, folder: Path) -> None:
    _run(f"the model {model} cannot be written", [sys.executable, "-m", "benchmarks.peers.models", model, str(folder)])


def _install(home: Path, requirements: Path, stamp: Path) -> None:
    what, pip = f"{requirements.stem} cannot be installed", [str(home / "bin" / "python"), "-m", "pip", "--quiet"]
    _run(what, [sys.executable, "-m", "venv", "--clear", str(home)])
    _run(what, [*pip, "install", "--disable-pip-version-check", "-r", str(requirements)])
    # PyPI's torchvision does not load beside every build of torch, and nothing here needs it.
    _run(what, [*pip, "uninstall", "--yes", "torchvision"])
    stamp.touch()


def _export(home: Path, checkpoint: Path, weights: str, folder: Path) -> None:
    options = ["--task", "image-text-to-text", "--weight-format", weights]
    program = [str(home / "bin" / "optimum-cli"), "export", "openvino", "--model", str(checkpoint), *options]
    _run(f"optimum-intel cannot export {checkpoint.name} in {weights}", [*program, str(folder)])


def _run(what: str, command: Sequence[str]) -> None:
    """Run a program; what it says last is why it failed."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}  # what it printed first stays first
    done = subprocess.run(
        command,
        cwd=FOLDER.parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["it says nothing"])[-1]
        raise Unavailable(f"{what}: {last[:200]}")
