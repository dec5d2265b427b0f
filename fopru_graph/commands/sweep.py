"""``fopru-graph sweep``: every combination of pipelines, tasks, ratios and settings, each in its own process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from fopru_graph.commands.arguments import (
    errors_in,
    fail,
    open_graphs,
    parse_ratios,
    refuse,
    set_values,
    split_names,
    try_set,
)
from fopru_graph.commands.options import ModelOptions, SweepOptions
from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import Configuration, configurations_of
from fopru_graph.evaluation.tasks import get_task
from fopru_graph.graph import Graph, PipelineError, Problem, parse_value
from fopru_graph.results.cell import SUMMARY
from fopru_graph.sweep.jobs import Job, JobTable
from fopru_graph.sweep.plan import (
    CellOptions,
    Combination,
    combinations,
    data_places,
    distinct,
    job_of,
    row_of,
)
from fopru_graph.sweep.process import StopSignals, places_for
from fopru_graph.sweep.slurm import Array, submitter
from fopru_graph.sweep.workers import LOGS, Crew
from fopru_graph.terminal.console import console, show_failure
from fopru_graph.terminal.sweep import SweepProgress, show_sweep

TABLE = "sweep.sqlite"
EXECUTORS = ("local", "slurm", "submitit-local")
_TASKS = 4  # of an array, where --jobs does not say how many
_EVERY = 0.5  # seconds between two looks at the table


def sweep_files(files: list[Path], nodes: list[Path] | None, options: SweepOptions, model: ModelOptions) -> int:
    """Plan everything, run what is not done yet, and show it; returns the exit code."""
    try:
        jobs = plan_cells(files, nodes, options, model)
        submit = None if options.executor == "local" else submitter(options.executor, _parameters(options.slurm or ()))
        options.out.mkdir(parents=True, exist_ok=True)
        table = JobTable(options.out / TABLE)
        table.add(jobs)
    except UserError as error:
        fail(2, error.message, error.hint)
    except OSError as error:
        fail(2, f"the folder {options.out} cannot be made: {error.strerror}", "choose another with --out")
    table.recover()
    table.renew(lambda job: (options.out / job.label / SUMMARY).is_file(), options.retry)
    places = places_for(options.jobs, model.device)
    tasks = options.jobs or _TASKS
    rows = _Rows(table, options.out)
    with StopSignals() as stop, SweepProgress(len(places) if submit is None else tasks) as progress:
        on_look = _seldom(lambda: progress.show(rows.read()))
        if submit is None:
            Crew(table, options.out, places, stop, on_look).run()
        else:
            Array(table, options.out, submit, tasks, stop, on_look, model.device).run()
        progress.show(rows.read())
    return _finish(rows.read(), options, bool(stop.count))


def plan_cells(files: list[Path], nodes: list[Path] | None, options: SweepOptions, model: ModelOptions) -> list[Job]:
    """All cells, checked; nothing is run. A pipeline's own problems are shown, and end the program with exit code 2.

    Raises:
        UserError: an option is wrong, or two cells would share a folder.
    """
    if options.executor not in EXECUTORS:
        raise UserError(f"--executor {options.executor} is unknown", f"choose {', '.join(EXECUTORS)}")
    tasks = split_names(options.task)
    if not tasks:
        raise UserError("there is no task", "write e.g. --task scenes; `fopru-graph tasks` lists them")
    for task in tasks:
        get_task(task)
    data = data_places(tasks, options.data or ())
    combined = combinations(options.sets or (), parse_ratios(options.ratio, distinct=False), options.zipped)
    cells = CellOptions(options.out, options.limit, options.retry, _options_of(nodes, model))
    graphs = open_graphs(files, nodes, None, options.as_json, model)
    found = [_variants(graph, file, combined, options.as_json) for graph, file in zip(graphs, files, strict=True)]
    _check_sets_fit(found, files, options.as_json)
    return distinct(
        [
            job_of(cell.variant, file, cell.sets, task, data.get(task), cells)
            for file, of_file in zip(files, found, strict=True)
            for cell in of_file.cells
            for task in tasks
        ]
    )


@dataclass(frozen=True, eq=False)
class _Cell:
    """A pipeline with one combination of values, and those ``--set`` that have a place in it."""

    variant: Configuration
    sets: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _OfFile:
    """What a file gives: its cells without task, and the problems of the ``--set`` without a place in it, by target."""

    cells: list[_Cell]
    homeless: dict[str, list[Problem]]


def _variants(graph: Graph, file: Path, combined: Sequence[Combination], as_json: bool) -> _OfFile:
    cells: list[_Cell] = []
    homeless: dict[str, list[Problem]] = {}
    for sets, ratio in combined:
        own, placed = graph.copy(), []
        for option in sets:
            if problems := try_set(own, option):
                homeless[option.partition("=")[0]] = problems
            else:
                placed.append(option)
        if errors := errors_in(own.problems()):
            refuse(errors, file, as_json)
        cells.append(_Cell(_variant(own, ratio, placed), tuple(placed)))
    return _OfFile(cells, homeless)


def _variant(graph: Graph, ratio: float | None, placed: list[str]) -> Configuration:
    given = set_values(graph, placed)
    try:
        (variant,) = configurations_of(graph, None if ratio is None else (ratio,), given)
    except PipelineError as error:
        raise UserError(str(error)) from error
    if twice := [target for target, value in given.items() if variant.settings[target] != value]:
        raise UserError(f"--ratio and --set {twice[0]} set the same input", "leave out one of them")
    return variant


def _check_sets_fit(found: Sequence[_OfFile], files: Sequence[Path], as_json: bool) -> None:
    for target, problems in found[-1].homeless.items():
        if all(target in of_file.homeless for of_file in found):
            refuse(problems, files[-1], as_json)


def _options_of(nodes: list[Path] | None, model: ModelOptions) -> tuple[str, ...]:
    """Options that every cell gets as they were given."""
    names = {"device": "--device", "dtype": "--dtype", "attention": "--attn"}
    given = [(names[key], value) for key, value in asdict(model).items() if value is not None]
    return tuple(part for pair in [*(("--nodes", str(one)) for one in nodes or []), *given] for part in pair)


def _parameters(options: Sequence[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals:
            raise UserError(f"--slurm {option}: there is no =", "write e.g. --slurm partition=gpu --slurm time=120")
        try:
            parameters[name] = parse_value(text)
        except PipelineError as error:
            raise UserError(f"--slurm {option}: {error.problems[0].message}", "quote the value as in YAML") from error
    return parameters


class _Rows:
    """The cells for the display; a finished cell's summary is read once."""

    def __init__(self, table: JobTable, out: Path) -> None:
        self._table, self._out = table, out
        self._known: dict[tuple[str, str, int], dict[str, Any]] = {}

    def read(self) -> list[dict[str, Any]]:
        """All of them as they are now."""
        return [self._row(job) for job in self._table.jobs()]

    def _row(self, job: Job) -> dict[str, Any]:
        key = (job.hash, job.state, job.attempts)
        if key not in self._known:
            self._known[key] = row_of(job, self._out)
        log = f"\nlog: {self._out / LOGS / job.label}.log"
        times = {"started": job.started, "ended": job.ended, "error": job.error and job.error + log}
        return self._known[key] | times


def _seldom(action: Callable[[], None]) -> Callable[[], None]:
    """The action, at most every half second."""
    last = float("-inf")

    def act() -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            action()

    return act


def _finish(rows: list[dict[str, Any]], options: SweepOptions, interrupted: bool) -> int:
    if options.as_json:
        plain = [{key: value for key, value in row.items() if key not in ("started", "ended")} for row in rows]
        print(json.dumps({"cells": plain}, ensure_ascii=False))
    else:
        show_sweep(rows)
        console.print(f"[dim]results, logs and job table[/] {escape(str(options.out))}", soft_wrap=True)
    if interrupted:
        show_failure("interrupted", "every finished sample is kept; the same command goes on from there")
        return 130
    if not all(row["state"] == "done" for row in rows):
        show_failure("some cells failed", "the same command with --retry runs them again")
        return 3
    return 0
