"""``fopru-graph map``: a pipeline over the rows of a table, by workers here, on Slurm or on Ray, into part files."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fopru_graph.commands.arguments import fail, make_registry, open_graph, set_values, slurm_parameters
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import MapOptions
from fopru_graph.commands.run import quieten
from fopru_graph.errors import UserError
from fopru_graph.paths import absolute_path
from fopru_graph.pipeline_map import PipelineMap
from fopru_graph.processes.process import StopSignals, slots_for
from fopru_graph.scale.folder import MapFolder
from fopru_graph.scale.local import LocalWorkers
from fopru_graph.scale.parquet import needs_pyarrow
from fopru_graph.scale.plan import Job, make_plan
from fopru_graph.scale.table import open_table
from fopru_graph.scale.watch import Run, Watch
from fopru_graph.scale.worker import identity_of
from fopru_graph.terminal.console import console, say, show_failure
from fopru_graph.terminal.format import counted
from fopru_graph.terminal.stdout import stdout

ENGINES = ("local", "slurm", "submitit-local", "ray")
_TASKS = 4  # of an array, where --workers does not say how many
_EVERY = 10.0  # seconds between two lines of progress on something that is no terminal


class Engine(Protocol):
    """Makes the parts of a run."""

    def run(self) -> None:
        """Run until all parts are made or until asked to stop; raises UserError if nothing can be done."""


MakeEngine = Callable[[Run, StopSignals, Callable[[Watch], None]], Engine]


def map_rows(options: MapOptions, model: ModelOptions) -> int:
    """Make the parts that are missing and say what the folder holds then; returns the exit code."""
    quieten()
    begin = time.monotonic()
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        try:
            job, make_engine = _asked(options, model)
            folder = MapFolder(Path(job.into))
            table = open_table(Path(job.over))
            identity = None if _elsewhere(options) else identity_of(PipelineMap(**job.arguments), job)
            path = stack.enter_context(folder.driven(name, lambda what: say((what, "dim"))))
            if identity is not None:
                folder.claim(identity)
            run = Run(path, folder, job, make_plan(path, job, table, folder))
        except UserError as error:
            fail(2, error.message, error.hint)
        stop = stack.enter_context(StopSignals())
        try:
            if run.plan.parts:
                with _progress(run) as on_look:
                    make_engine(run, stop, on_look).run()
            summary = _summary(run)
        except UserError as error:
            fail(1, error.message, error.hint)
        summary |= {"engine": options.engine, "made": run.made(), "seconds": round(time.monotonic() - begin, 1)}
        return _finish(summary, options, interrupted=run.made() < run.plan.todo)


def _asked(options: MapOptions, model: ModelOptions) -> tuple[Job, MakeEngine]:
    """What the options ask for, checked. A pipeline's own problems are shown, and end the program with exit code 2.

    Raises:
        UserError: an option is wrong, or a package is missing.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise needs_pyarrow() from error
    graph = open_graph(options.file, make_registry(options.nodes), options.changes, model)
    sets = set_values(graph, options.changes)
    sets |= {f"{name}.{key}": value for name in graph.of_type("LoadModel") for key, value in model.given.items()}
    over = absolute_path(str(options.over))
    mapped = PipelineMap(
        options.file,
        _pairs(options.read or ["image=path"]),
        options.write or ["text"],
        sets,
        nodes=options.nodes or (),
        folder=over if os.path.isdir(over) else os.path.dirname(over),
        keep=(),
    )
    if options.key in (*mapped.write, "error"):
        raise UserError(f"--id {options.key}: the results have another column of that name", "rename it in the table")
    job = Job(
        over,
        options.key,
        absolute_path(str(options.into)),
        os.getcwd(),
        mapped.arguments,
        options.part_rows,
        options.batch_size,
        options.retry,
    )
    return job, _engine(options, model)


def _pairs(options: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for option in options:
        name, _, column = option.partition("=")
        if not name or not column:
            raise UserError(f"--read {option}: that is not NAME=COLUMN", "write e.g. --read image=path")
        if name in pairs:
            raise UserError(f"--read {name} is given twice", "leave one out")
        pairs[name] = column
    return pairs


def _engine(options: MapOptions, model: ModelOptions) -> MakeEngine:
    """How to make the engine.

    Raises:
        UserError: it is unknown, or what it needs is not there.
    """
    workers = options.workers
    if options.engine == "local":
        slots = slots_for(workers, model.device)
        return lambda run, stop, on_look: LocalWorkers(run, slots, stop, on_look)
    if options.engine in ("slurm", "submitit-local"):
        from fopru_graph.scale.slurm import Array, submitter

        submit = submitter(options.engine, slurm_parameters(options.slurm or ()))
        return lambda run, stop, on_look: Array(run, submit, workers or _TASKS, stop, on_look)
    if options.engine == "ray":
        from fopru_graph.scale.ray import RayWorkers, import_ray

        import_ray()
        gpus = model.device in (None, "auto", "cuda")
        patience = 60 * options.patience
        return lambda run, stop, on_look: RayWorkers(run, workers, gpus, patience, stop, on_look)
    raise UserError(f"--engine {options.engine} is unknown", f"choose {', '.join(ENGINES)}")


def _elsewhere(options: MapOptions) -> bool:
    """Whether workers are on other machines: what ``auto`` means there, and so what rows are of, only they can tell."""
    return options.engine == "slurm" or (options.engine == "ray" and "RAY_ADDRESS" in os.environ)


@contextlib.contextmanager
def _progress(run: Run) -> Iterator[Callable[[Watch], None]]:
    """Show progress as a bar on a terminal, else as a line now and then."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    there = run.plan.total - run.plan.todo
    if there:
        say((f"{counted(there, 'row')} of {run.plan.total} done already", "dim"))
    first = last_line = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rows", total=run.plan.todo, rate="loading")

        def show(watch: Watch) -> None:
            nonlocal first, last_line
            now = time.monotonic()
            first = first if watch.rows else now  # loading does not count
            rate = f"{watch.rows / (now - first):.1f} rows/s" if now > first else "loading"
            bar.update(task, completed=watch.rows, rate=rate)
            if not console.is_terminal and now - last_line > _EVERY:
                last_line = now
                say(f"{watch.rows}/{run.plan.todo} rows, {rate}")

        yield show


def _summary(run: Run) -> dict[str, Any]:
    """What the folder holds now."""
    rows, errors = 0, Counter[str]()
    for _, _, error in run.folder.rows(run.job.key):
        rows += 1
        if error is not None:
            errors[error] += 1
    common = [{"message": message, "count": count} for message, count in errors.most_common(3)]
    parts = len(run.folder.parts())
    return {"into": run.job.into, "rows": rows, "errors": errors.total(), "common_errors": common, "parts": parts}


def _finish(summary: dict[str, Any], options: MapOptions, interrupted: bool) -> int:
    if options.as_json:
        stdout.json(summary)
    else:
        stdout.line(
            f"{options.into}: {counted(summary['rows'], 'row')} in {counted(summary['parts'], 'part')}, "
            f"{counted(summary['errors'], 'error')}; {summary['made']} made in {summary['seconds']} s"
        )
        for error in summary["common_errors"]:
            say((f"{error['count']} ×", "yellow"), f" {error['message']}")
    if interrupted:
        show_failure("interrupted", "finished parts are kept; the same command goes on from there")
        return 130
    if summary["errors"]:
        show_failure("some rows failed", "the same command with --retry answers them again")
        return 3
    return 0
