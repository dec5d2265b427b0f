"""``fopru-graph eval``: accuracy of pipelines on tasks, sample by sample, resumable, over several processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from fopru_graph.commands.arguments import fail, named_tasks, open_graphs, parse_ratios, set_values
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import EvalOptions, TuneOptions
from fopru_graph.commands.run import interrupt_cancels, make_folder, quieten
from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import Configuration, configurations_of
from fopru_graph.evaluation.ranks import Ranks
from fopru_graph.evaluation.runner import CellRun
from fopru_graph.evaluation.runner import Progress as CellProgress
from fopru_graph.evaluation.task import Records, Task
from fopru_graph.graph import Cancelled, CancelToken, Graph, NodeError, PipelineError
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.results.cell import SUMMARY
from fopru_graph.sweep.plan import data_paths
from fopru_graph.terminal.console import console, say
from fopru_graph.terminal.stdout import stdout
from fopru_graph.terminal.tables import show_evaluation

_EVERY = 10.0  # seconds between two lines of progress on something that is no terminal


@dataclass(frozen=True, eq=False)
class EvaluationInputs:
    """What a command line names, opened and checked: pipelines, and tasks with their records.

    ``ranks`` says which part of the samples this process takes.
    """

    graphs: Sequence[Graph]
    tasks: Sequence[tuple[Task, Records]]
    ranks: Ranks


def open_inputs(
    options: EvalOptions | TuneOptions, model: ModelOptions, check: Callable[[Graph], object]
) -> EvaluationInputs:
    """Open the pipelines and the data that the options name.

    Ends the program with exit code 2 if something is wrong, also if ``check`` of a pipeline raises.
    """
    quieten()
    try:
        ranks = Ranks.of_environment()
    except UserError as error:
        fail(2, error.message, error.hint)
    if model.device is None:
        model = replace(model, device=ranks.device())
    graphs = open_graphs(options.files, options.nodes, options.changes, model)
    try:
        for graph in graphs:
            check(graph)
        tasks = open_tasks(named_tasks(options.task), options.data or (), options.limit)
        make_folder(options.out)
        return EvaluationInputs(graphs, tasks, ranks)
    except UserError as error:
        fail(2, error.message, error.hint)
    except PipelineError as error:
        fail(2, str(error))


def open_tasks(tasks: Sequence[Task], data: Sequence[str], limit: int | None) -> list[tuple[Task, Records]]:
    """Tasks with their records.

    Raises:
        UserError: the data of a task cannot be opened.
    """
    paths = data_paths([task.name for task in tasks], data)
    return [(task, task.open(paths.get(task.name), limit)) for task in tasks]


@contextlib.contextmanager
def failures_end_program() -> Iterator[CancelToken]:
    """Give a token that Ctrl-C cancels; a failure inside ends the program with a message and an exit code."""
    token = CancelToken()
    try:
        with interrupt_cancels(token):
            yield token
    except Cancelled:
        fail(130, "interrupted", "every finished sample is kept; the same command goes on from there")
    except NodeError as error:
        fail(1, str(error), error.hint, error)
    except UserError as error:
        fail(1, error.message, error.hint)


def evaluate(options: EvalOptions, model: ModelOptions) -> int:
    """Evaluate pipelines on tasks; returns the exit code."""
    ratios = parse_ratios(options.ratio)
    configurations: list[Configuration] = []

    def add(graph: Graph) -> None:
        configurations.extend(configurations_of(graph, ratios, set_values(graph, options.changes)))
        check_folders_differ(configurations)

    inputs = open_inputs(options, model, add)
    summaries: list[dict[str, Any]] = []
    try:
        with failures_end_program() as token:
            inputs.ranks.meet()
            for summary in run_cells(configurations, inputs, options, token):
                summaries.append(summary)
    finally:
        if inputs.ranks.first and summaries:
            _show(summaries, options)
    inputs.ranks.leave()
    # A launcher takes every code but 0 for a crash; the errors are in the table in any case.
    return 3 if inputs.ranks.world == 1 and any(summary["errors"] for summary in summaries) else 0


def check_folders_differ(configurations: Sequence[Configuration]) -> None:
    """Refuse two configurations whose results would share a folder.

    Raises:
        UserError: there are two.
    """
    files: dict[str, str | None] = {}
    for configuration in configurations:
        folder, file = configuration.folder(""), configuration.graph.file
        if folder in files:
            raise UserError(
                f"two pipelines are called {configuration.pipeline!r} ({files[folder]} and {file})",
                "give each file a name of its own (name: …)",
            )
        files[folder] = file


def run_cells(
    configurations: Sequence[Configuration], inputs: EvaluationInputs, options: EvalOptions, token: CancelToken
) -> Iterator[dict[str, Any]]:
    """The summaries of all cells as they are finished; only the first rank has any."""
    loaded: dict[str, dict[str, Any]] = {}
    count = len(configurations) * len(inputs.tasks)
    number = 0
    for configuration in configurations:
        model = PipelineModel(configuration.graph, loaded, token)
        for task, records in inputs.tasks:
            number += 1
            label = f"{configuration.label} on {task.name} ({number}/{count})"
            if (summary := run_cell(configuration, model, (task, records), options, inputs.ranks, label)) is not None:
                yield summary


def run_cell(
    configuration: Configuration,
    model: PipelineModel,
    opened: tuple[Task, Records],
    options: EvalOptions | TuneOptions,
    ranks: Ranks,
    label: str,
) -> dict[str, Any] | None:
    """Run one cell with its progress under ``label``; its summary and folder on the first rank, None on others."""
    task, records = opened
    folder = options.out / configuration.folder(task.name)
    given = (options.limit, options.retry, options.replace, options.batch_size)
    cell = CellRun(configuration, task, records, model, folder, ranks, *given)
    with _progress(label, ranks) as on_progress:
        summary = cell.run(on_progress)
    return None if summary is None else summary | {"folder": str(folder)}


@contextlib.contextmanager
def _progress(label: str, ranks: Ranks) -> Iterator[Callable[[CellProgress], None] | None]:
    """Show progress as a bar on a terminal, else as a line now and then; the first rank speaks for all ranks."""
    if not ranks.first:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[accuracy]}"),
    )
    started = last_line = time.monotonic()
    with Progress(*columns, console=console, transient=True, expand=True, disable=not console.is_terminal) as bar:
        bar_task = bar.add_task(label, total=None, rate="", accuracy="")
        done_before: int | None = None  # samples of earlier runs, which do not count for the speed of this one

        def show(progress: CellProgress) -> None:
            nonlocal done_before, last_line
            done_before = progress.done - 1 if done_before is None else done_before
            now = time.monotonic()
            rate = (progress.done - done_before) / max(now - started, 1e-9)
            accuracy = f"accuracy {100 * progress.score / progress.scored:.1f} %" if progress.scored else ""
            accuracy += f", {progress.errors} errors" if progress.errors else ""
            text = f"{rate * ranks.world:.1f} samples/s"
            bar.update(bar_task, completed=progress.done, total=progress.total, rate=text, accuracy=accuracy)
            if not console.is_terminal and now - last_line > _EVERY:
                last_line = now
                left = (progress.total - progress.done) / rate
                say(f"{label}: {progress.done}/{progress.total}, {text}, {left:.0f} s left, {accuracy}")

        yield show


def _show(summaries: list[dict[str, Any]], options: EvalOptions) -> None:
    if options.as_json:
        stdout.json({"results": summaries})
        return
    show_evaluation(summaries)
    say(("rows and summaries", "dim"), f" {options.out}/*/{SUMMARY}")
