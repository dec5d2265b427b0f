"""Workers on Ray: the parts of a run as a Ray dataset, mapped by actors on this machine or on a cluster.

Ray Data hands out the parts, starts actors again that die and gives their parts to others. It carries no row: an
actor reads the rows of a part from the shared file system and writes the part, as every other worker does.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError, first_line
from fopru_graph.graph import NodeError
from fopru_graph.processes.process import StopSignals
from fopru_graph.scale.folder import registered
from fopru_graph.scale.watch import LOOK, Run, Watch
from fopru_graph.scale.worker import Worker, failures_told

_MEMORY = 100 * 2**20  # bytes of Ray's object store on this machine: it carries numbers of parts


class PartMaker:
    """An actor: maps numbers of parts to the same numbers, once the parts are made."""

    def __init__(self, run: str) -> None:
        self._run = Path(run)
        self._registered = registered(self._run)
        self._registered.__enter__()  # until the actor's process ends
        with failures_told(self._run):
            self._worker = Worker(self._run, StopSignals())
        self._parts = {part.number: part for part in self._worker.plan.parts}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the parts of a batch."""
        for number in batch["part"]:
            try:
                with failures_told(self._run):
                    self._worker.make(self._parts[int(number)])
            except NodeError:
                os._exit(os.EX_TEMPFAIL)  # its device is lost, another process may do better: Ray starts one
        return batch


class RayWorkers:
    """Makes the parts of a run by actors of Ray.

    Args:
        run: the run; on a cluster its folder is on a file system that all machines share.
        workers: number of actors; None for one a GPU, without GPUs one a CPU but one.
        gpus: whether actors use GPUs if there are any; they share them evenly.
        patience: seconds without a new row after which it fails.
        stop: asks for an early end.
        on_look: called about every half second.
    """

    def __init__(
        self,
        run: Run,
        workers: int | None,
        gpus: bool,
        patience: float,
        stop: StopSignals,
        on_look: Callable[[Watch], None],
    ) -> None:
        self._run, self._workers, self._gpus, self._patience = run, workers, gpus, patience
        self._stop, self._on_look = stop, on_look
        self._watch = Watch(run)

    def run(self) -> None:
        """Run until all parts are made, or until asked to stop.

        Raises:
            UserError: Ray or its CPUs are missing, no row arrives for long, or a worker tells why it fails.
        """
        if not self._run.plan.parts:
            return
        ray = import_ray()
        _join(ray, self._workers)
        try:
            self._map(ray)
        finally:
            self._run.folder.retire(self._run.path)
            ray.shutdown()

    def _map(self, ray: Any) -> None:
        count, share = _resources(ray, self._workers, self._gpus, len(self._run.plan.parts))
        numbers = [{"part": part.number} for part in self._run.plan.parts]
        made = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            PartMaker,
            fn_constructor_args=(str(self._run.path),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=1,
            num_gpus=share,
        )
        failures: list[Exception] = []

        def consume() -> None:
            try:
                for _ in made.iter_rows():
                    pass
            except Exception as error:
                failures.append(error)

        # A thread, because Ray waits in silence for CPUs that other jobs hold, and this one must notice.
        thread = threading.Thread(target=consume, daemon=True)
        thread.start()
        while thread.is_alive() and not self._stop.count:
            thread.join(LOOK)
            self._look()
        if failures:
            raise UserError(f"Ray gave up: {first_line(failures[0])}", "its logs are in /tmp/ray/session_latest/logs")
        self._look()

    def _look(self) -> None:
        self._watch.look()
        self._on_look(self._watch)
        if self._watch.left() and time.monotonic() - self._watch.changed > self._patience:
            raise UserError(
                f"no row has arrived for {self._patience / 60:g} minutes",
                "see whether other jobs hold the CPUs or GPUs (ray status); --patience sets the minutes",
            )


def import_ray() -> Any:
    """Ray, which tells nobody that it was used.

    Raises:
        UserError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else its core writes on stderr what helps nobody
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--engine ray needs Ray Data", "pip install 'ray[data]'") from error
    return ray


def _join(ray: Any, workers: int | None) -> None:
    """Connect to the cluster of RAY_ADDRESS, or start Ray on this machine, with a CPU for its own work."""
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address := os.environ.get("RAY_ADDRESS"):
            ray.init(address, **{name: quiet[name] for name in ("log_to_driver", "logging_level")})
        else:
            cpus = max(os.cpu_count() or 1, (workers or 1) + 1)
            ray.init("local", num_cpus=cpus, object_store_memory=_MEMORY, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray does not start: {first_line(error)}", "see RAY_ADDRESS") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _resources(ray: Any, workers: int | None, gpus: bool, parts: int) -> tuple[int, float]:
    """The number of actors, and the share of a GPU for each. A CPU is left for reading, or Ray would wait for ever."""
    there = ray.cluster_resources()
    cpus, devices = int(there.get("CPU", 0)), there.get("GPU", 0) if gpus else 0
    count = min(workers or int(devices) or max(1, cpus - 1), parts)
    if count + 1 > cpus:
        raise UserError(
            f"{count} workers and Ray's reading need {count + 1} CPUs, the cluster has {cpus}",
            f"give --workers {max(1, cpus - 1)} or fewer" if cpus > 1 else "add a machine to the cluster",
        )
    return count, int(min(1.0, devices / count) * 1000) / 1000
