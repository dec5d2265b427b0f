"""``fopru-graph eval``: accuracy of pipelines on tasks, sample by sample, resumable, over several processes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fopru_graph.commands.arguments import ModelOptions, fail, open_graphs
from fopru_graph.commands.run import interrupt_cancels, quieten
from fopru_graph.errors import UserError
from fopru_graph.evaluation.ranks import Ranks
from fopru_graph.evaluation.runner import CellRun
from fopru_graph.evaluation.runner import Progress as CellProgress
from fopru_graph.evaluation.task import Records, Task
from fopru_graph.evaluation.tasks import get_task
from fopru_graph.evaluation.variants import Variant, variants_of
from fopru_graph.graph import Cancelled, CancelToken, Graph, NodeError, PipelineError
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.results.cell import SUMMARY
from fopru_graph.sweep.plan import data_paths
from fopru_graph.terminal.console import console
from fopru_graph.terminal.evaluation import show_evaluation

_EVERY = 10.0  # seconds between lines where there is no terminal to redraw


@dataclass(frozen=True)
class EvalOptions:
    """What the command line asks for."""

    tasks: tuple[str, ...]
    ratios: tuple[float, ...] | None
    data: tuple[str, ...]
    limit: int | None
    out: Path
    retry: bool
    as_json: bool


@dataclass(frozen=True, eq=False)
class Study:
    """What a command line names, opened and checked: pipelines, tasks with their records, and this process's part."""

    graphs: Sequence[Graph]
    tasks: Sequence[tuple[Task, Records]]
    ranks: Ranks


def open_study(
    files: list[Path],
    nodes: list[Path] | None,
    sets: list[str] | None,
    options: EvalOptions,
    model: ModelOptions,
    check: Callable[[Graph], object],
) -> Study:
    """Open everything; ends the program with exit code 2 where something is wrong, ``check`` of a graph included."""
    quieten()
    ranks = Ranks.of_environment()
    if model.device is None and (device := ranks.device()) is not None:
        model = ModelOptions(device, model.dtype, model.attention)
    graphs = open_graphs(files, nodes, sets, options.as_json, model)
    try:
        for graph in graphs:
            check(graph)
        return Study(graphs, open_tasks(options.tasks, options.data, options.limit), ranks)
    except UserError as error:
        fail(2, error.message, error.hint)
    except PipelineError as error:
        fail(2, str(error))


@contextlib.contextmanager
def ending_well() -> Iterator[CancelToken]:
    """Runs what is inside with a token that Ctrl-C cancels; failures end the program with a message and exit code."""
    token = CancelToken()
    try:
        with interrupt_cancels(token):
            yield token
    except Cancelled:
        fail(130, "interrupted", "every finished sample is kept; the same command goes on from there")
    except NodeError as error:
        fail(1, str(error), error.hint)
    except UserError as error:
        fail(1, error.message, error.hint)


def evaluate_files(
    files: list[Path], nodes: list[Path] | None, sets: list[str] | None, options: EvalOptions, model: ModelOptions
) -> int:
    """Evaluate pipelines on tasks; returns the exit code."""
    variants: list[Variant] = []

    def add(graph: Graph) -> None:
        variants.extend(variants_of(graph, options.ratios, settings_given(graph, sets)))
        check_distinct(variants)

    study = open_study(files, nodes, sets, options, model, add)
    summaries: list[dict[str, Any]] = []
    try:
        with ending_well() as token:
            for summary in run_cells(variants, study, options, token):
                summaries.append(summary)
    finally:
        if study.ranks.first and summaries:
            _show(summaries, options)
    study.ranks.leave()
    # A launcher takes every other code than 0 for a crash; the errors are in the table in any case.
    return 3 if study.ranks.world == 1 and any(summary["errors"] for summary in summaries) else 0


def names_in(text: str) -> tuple[str, ...]:
    """The names between commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def settings_given(graph: Graph, sets: list[str] | None) -> dict[str, Any]:
    """The values of ``--set`` as they stand in a graph; those that have no place in it left out."""
    given: dict[str, Any] = {}
    for option in sets or []:
        target = option.partition("=")[0]
        name, dot, key = target.rpartition(".")
        if not dot and target in graph.inputs:
            given[target] = graph.inputs[target].default
        elif dot and name in graph and key in graph.node(name).inputs:
            given[target] = graph.node(name).inputs[key]
    return given


def open_tasks(names: Sequence[str], data: Sequence[str], limit: int | None) -> list[tuple[Task, Records]]:
    """Tasks with their records.

    Raises:
        UserError: a task is unknown, or its data cannot be opened.
    """
    paths = data_paths(names, data)
    if not names:
        raise UserError("there is no task", "write e.g. --task scenes; `fopru-graph tasks` lists them")
    opened = []
    for name in names:
        task = get_task(name)
        opened.append((task, task.open(paths.get(name), limit)))
    return opened


def check_distinct(variants: Sequence[Variant]) -> None:
    """Refuse two variants whose results would share a folder.

    Raises:
        UserError: there are two.
    """
    seen: dict[str, str | None] = {}
    for variant in variants:
        folder = variant.folder("")
        if folder in seen:
            raise UserError(
                f"two pipelines are called {variant.pipeline!r} ({seen[folder]} and {variant.graph.file})",
                "give each file a name of its own (name: …)",
            )
        seen[folder] = variant.graph.file


def run_cells(
    variants: Sequence[Variant], study: Study, options: EvalOptions, token: CancelToken
) -> Iterator[dict[str, Any]]:
    """The summaries of all cells, one by one; on other ranks than the first there are none."""
    loaded: dict[str, dict[str, Any]] = {}
    tasks, count = study.tasks, len(variants) * len(study.tasks)
    for number, variant in enumerate(variants):
        model = PipelineModel(variant.graph, loaded, token)
        for place, opened in enumerate(tasks):
            label = f"{variant.label} on {opened[0].name} ({number * len(tasks) + place + 1}/{count})"
            if (summary := run_cell(variant, model, opened, options, study.ranks, label)) is not None:
                yield summary


def run_cell(
    variant: Variant,
    model: PipelineModel,
    opened: tuple[Task, Records],
    options: EvalOptions,
    ranks: Ranks,
    label: str,
) -> dict[str, Any] | None:
    """Run one cell with its progress under ``label``; its summary and folder on the first rank, None on others."""
    task, records = opened
    folder = options.out / variant.folder(task.name)
    cell = CellRun(variant, task, records, model, folder, ranks, options.limit, options.retry)
    with _progress(label, ranks) as on_progress:
        summary = cell.run(on_progress)
    return None if summary is None else summary | {"folder": str(folder)}


@contextlib.contextmanager
def _progress(label: str, ranks: Ranks) -> Iterator[Callable[[CellProgress], None] | None]:
    """A bar on a terminal, a line now and then elsewhere; the first rank's own part stands for all."""
    if not ranks.first:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[accuracy]}"),
    )
    begin, shown = time.monotonic(), time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(escape(label), total=None, rate="", accuracy="")
        first: int | None = None

        def show(progress: CellProgress) -> None:
            nonlocal first, shown
            first = progress.done - 1 if first is None else first
            now = time.monotonic()
            rate = (progress.done - first) / max(now - begin, 1e-9)
            accuracy = f"accuracy {100 * progress.score / progress.scored:.1f} %" if progress.scored else ""
            accuracy += f", {progress.errors} errors" if progress.errors else ""
            text = f"{rate * ranks.world:.1f} samples/s"
            bar.update(line, completed=progress.done, total=progress.total, rate=text, accuracy=accuracy)
            if not console.is_terminal and now - shown > _EVERY:
                shown = now
                left = (progress.total - progress.done) / rate
                console.print(f"{label}: {progress.done}/{progress.total}, {text}, {left:.0f} s left, {accuracy}")

        yield show


def _show(summaries: list[dict[str, Any]], options: EvalOptions) -> None:
    if options.as_json:
        print(json.dumps({"results": summaries}, ensure_ascii=False))
        return
    show_evaluation(summaries)
    console.print(f"[dim]rows and summaries[/] {escape(str(options.out))}/*/{SUMMARY}", soft_wrap=True)
