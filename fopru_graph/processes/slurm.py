"""Arrays of Slurm, by submitit: how tasks are submitted."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError

MINUTES = 240  # that a task of the array may take, where the user says nothing
_SAFE_PATH = "PYTHONSAFEPATH"

Submit = Callable[[Path, Sequence[str]], Sequence[Any]]  # from a folder and names of shares to `submitit.Job`s


def submitter(
    kind: str, parameters: Mapping[str, Any], task: Callable[[str, str], None], job_name: str, option: str
) -> Submit:
    """How to submit an array.

    Args:
        kind: ``slurm``, or ``submitit-local`` for processes of this machine.
        parameters: those of sbatch with underscores, e.g. ``partition``, ``time`` (minutes), ``gpus_per_node``.
        task: what a task does with the folder and the name of its share. Its arguments are texts: nothing else is
            pickled.
        job_name: how Slurm calls the array, unless the parameters say something else.
        option: the option of the command line that chose ``kind``, for messages.

    Raises:
        UserError: submitit or Slurm is not there, or does not know a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"{option} {kind} needs submitit", "pip install submitit") from error
    if kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise UserError("there is no Slurm here: sbatch and srun are not found", "run the command on a login node")

    def submit(folder: Path, names: Sequence[str]) -> Sequence[Any]:
        logs = folder / "submitit"
        python = f"{shlex.quote(sys.executable)} -P"
        executor_class = submitit.SlurmExecutor if kind == "slurm" else submitit.LocalExecutor
        executor = executor_class(logs, python=python)
        try:
            if kind == "slurm":
                executor.update_parameters(**{"job_name": job_name, "time": MINUTES} | dict(parameters))
            else:
                executor.update_parameters(timeout_min=MINUTES)
            with _safe_path():
                tasks: Sequence[Any] = executor.map_array(task, [str(folder)] * len(names), list(names))
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(f"the job array was not accepted: {error}", "see --slurm NAME=VALUE") from error
        return tasks

    return submit


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """What submitit starts here runs no Python file of the current folder either; it takes no options for that."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE_PATH]
        if before is not None:
            os.environ[_SAFE_PATH] = before
