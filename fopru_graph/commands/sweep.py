"""``fopru-graph sweep``: every combination of pipelines, tasks, ratios and settings, each in its own process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fopru_graph.commands.arguments import (
    fail,
    named_tasks,
    open_graphs,
    parse_ratios,
    refuse,
    set_values,
    slurm_parameters,
    target_of,
    try_set,
)
from fopru_graph.commands.model_options import OPTION_OF, ModelOptions
from fopru_graph.commands.option_groups import SweepOptions
from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import Configuration, configurations_of
from fopru_graph.graph import Graph, PipelineError, Problem
from fopru_graph.graph.errors import errors_of
from fopru_graph.processes.process import StopSignals, slots_for
from fopru_graph.results.cell import REFUSED
from fopru_graph.results.schema import failures
from fopru_graph.sweep.cells import LOGS, Cell, SweepFolder
from fopru_graph.sweep.plan import Combination, CommonOptions, cell_of, combinations, data_paths, distinct
from fopru_graph.sweep.slurm import Array, submitter
from fopru_graph.sweep.workers import Worker
from fopru_graph.terminal.console import say, show_failure
from fopru_graph.terminal.stdout import stdout
from fopru_graph.terminal.sweep import SweepProgress, show_sweep

EXECUTORS = ("local", "slurm", "submitit-local")
_TASKS = 4  # of an array, where --jobs does not say how many


def sweep_files(files: list[Path], nodes: list[Path] | None, options: SweepOptions, model: ModelOptions) -> int:
    """Plan everything, run what is not done yet, and show it; returns the exit code."""
    try:
        cells = plan_cells(files, nodes, options, model)
        submit = (
            None if options.executor == "local" else submitter(options.executor, slurm_parameters(options.slurm or ()))
        )
        folder = SweepFolder(options.out, cells)
        folder.prepare(options.retry or options.replace)  # a cell may have failed because it was not replaced
    except UserError as error:
        fail(2, error.message, error.hint)
    slots = slots_for(options.jobs, model.device)
    tasks = options.jobs or _TASKS
    with StopSignals() as stop, SweepProgress(len(slots) if submit is None else tasks) as progress:

        def on_look() -> None:
            progress.show(_rows(folder))

        if submit is None:
            Worker(folder, slots, stop, on_look).run()
        else:
            Array(folder, submit, tasks, stop, on_look, model.device).run()
        on_look()
    return _finish(_rows(folder), options, bool(stop.count))


def plan_cells(files: list[Path], nodes: list[Path] | None, options: SweepOptions, model: ModelOptions) -> list[Cell]:
    """All cells, checked; nothing is run. A pipeline's own problems are shown, and end the program with exit code 2.

    Raises:
        UserError: an option is wrong, or two cells would share a folder.
    """
    if options.executor not in EXECUTORS:
        raise UserError(f"--executor {options.executor} is unknown", f"choose {', '.join(EXECUTORS)}")
    tasks = named_tasks(options.task)
    data = data_paths([task.name for task in tasks], options.data or ())
    combined = combinations(options.changes, parse_ratios(options.ratio, distinct=False), options.zipped)
    extra = (*_options_of(nodes, model), *(["--replace"] if options.replace else []))
    if options.batch_size > 1:
        extra = (*extra, "--batch-size", str(options.batch_size))
    common = CommonOptions(options.out, options.limit, options.retry, extra)
    cells: list[Cell] = []
    refused: list[dict[str, list[Problem]]] = []
    for graph, file in zip(open_graphs(files, nodes, None, model), files, strict=True):
        refused.append({})
        for ratio, changed, sets in _changed(graph, combined, refused[-1]):
            if errors := errors_of(changed.problems()):
                refuse(errors, file)
            configuration = _configuration(changed, ratio, sets)
            cells += [cell_of(configuration, file, sets, task, data.get(task.name), common) for task in tasks]
    for target, problems in refused[-1].items():
        if all(target in of_file for of_file in refused):
            refuse(problems, files[-1])
    return distinct(cells)


def _changed(
    graph: Graph, combined: Sequence[Combination], refused: dict[str, list[Problem]]
) -> Iterator[tuple[float | None, Graph, list[str]]]:
    """For each combination its ratio, the graph with the values of ``--set``, and those values that apply to it.

    The problems of those that do not apply are added to ``refused``, by their target.
    """
    for sets, ratio in combined:
        changed, applied = graph.copy(), []
        for option in sets:
            if problems := try_set(changed, option):
                refused[target_of(option)] = problems
            else:
                applied.append(option)
        yield ratio, changed, applied


def _configuration(graph: Graph, ratio: float | None, sets: list[str]) -> Configuration:
    """The pipeline at a ratio, after ``sets`` were applied to it."""
    given = set_values(graph, sets)
    try:
        (configuration,) = configurations_of(graph, None if ratio is None else (ratio,), given)
    except PipelineError as error:
        raise UserError(str(error)) from error
    if twice := [target for target, value in given.items() if configuration.settings[target] != value]:
        raise UserError(f"--ratio and --set {twice[0]} set the same input", "leave out one of them")
    return configuration


def _options_of(nodes: list[Path] | None, model: ModelOptions) -> tuple[str, ...]:
    """Options that every cell gets as they were given."""
    given = [(OPTION_OF[key], value) for key, value in model.given.items()]
    return tuple(part for pair in [*(("--nodes", str(folder)) for folder in nodes or []), *given] for part in pair)


def _rows(folder: SweepFolder) -> list[dict[str, Any]]:
    """The cells for the display and for ``--json``: where each stands, and the accuracy of those that are done."""
    return [
        {
            "label": status.cell.label,
            **status.cell.facts,
            "state": status.state,
            "rc": status.record.rc,
            "attempts": status.record.attempts,
            **{name: status.summary.get(name) for name in ("accuracy", "n", "errors")},
            "folder": str(folder.out / status.cell.label),
            "started": status.record.started,
            "ended": status.record.ended,
            "error": status.error
            and f"{status.error}\nlog: {folder.out / LOGS / status.cell.label}.log"
            or failures(status.summary),
        }
        for status in folder.statuses()
    ]


def _finish(rows: list[dict[str, Any]], options: SweepOptions, interrupted: bool) -> int:
    if options.as_json:
        plain = [{key: value for key, value in row.items() if key not in ("started", "ended")} for row in rows]
        stdout.json({"cells": plain})
    else:
        show_sweep(rows)
        say(("results, records and logs", "dim"), f" {options.out}")
    if interrupted:
        show_failure("interrupted", "every finished sample is kept; the same command goes on from there")
        return 130
    if not all(row["state"] == "done" for row in rows):
        refused = any(REFUSED in (row["error"] or "") for row in rows if row["state"] == "failed")
        anew = "the same command with --replace makes results of another configuration anew"
        show_failure("some cells failed", anew if refused else "the same command with --retry runs them again")
        return 3
    if any(row["errors"] for row in rows):
        show_failure("some samples failed", "the same command with --retry runs them again")
        return 3
    return 0
