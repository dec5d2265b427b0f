"""``fopru-graph run``: run a pipeline for a person at a terminal or for a program that reads JSON."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import traceback as tracebacks
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape

from fopru_graph.commands.arguments import fail, make_registry, open_graph, refuse
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import RunOptions
from fopru_graph.commands.pipelines import show_pipeline
from fopru_graph.errors import UserError
from fopru_graph.graph import (
    Cancelled,
    CancelToken,
    DiskCache,
    Executor,
    Graph,
    MemoryCache,
    NodeError,
    PipelineError,
    Plan,
    Ref,
    RunRecord,
    RunResult,
)
from fopru_graph.graph.context import RECORD
from fopru_graph.graph.declare.packs import variable_paths
from fopru_graph.measure.pipelines import at_ratio
from fopru_graph.measure.timing import summarise
from fopru_graph.storage import TensorCodec
from fopru_graph.terminal.console import console, say, show_failure, show_warning, simple_table
from fopru_graph.terminal.progress import RunDisplay
from fopru_graph.terminal.stdout import stdout
from fopru_graph.terminal.tables import show_summary


def run(options: RunOptions, model: ModelOptions) -> int:
    """Run a pipeline, or explain or watch it; returns the exit code. One that cannot run ends the program with 2."""
    if not options.watch:
        return _run_file(options, model, None)
    if options.explain:
        fail(2, "--watch runs the pipeline and --explain does not", "leave one of them out")
    from fopru_graph.commands.watch import watch

    memory = MemoryCache()
    packs = [*(options.nodes or ()), *variable_paths()]
    return watch(options.file, packs, lambda: _run_file(options, model, memory))


def _run_file(options: RunOptions, model: ModelOptions, memory: MemoryCache | None) -> int:
    graph = open_pipeline(options, model)
    if options.help_inputs:
        show_pipeline(graph, options.as_json)
        return 0
    disk = open_cache(options.cache, options.cache_gb)
    try:
        if options.explain:
            explain_run(graph, options.to, disk, options.as_json)
            return 0
        return run_pipeline(graph, Executor(graph.registry, memory, disk), options)
    except PipelineError as error:  # what only this run asks for: the target of --to, an input without a default
        refuse(error.problems, options.file)


def open_pipeline(options: RunOptions, model: ModelOptions) -> Graph:
    """The pipeline as the options set it. One that cannot run ends the program with exit code 2."""
    graph = open_graph(options.file, make_registry(options.nodes), options.changes, model)
    try:
        if options.prompt is not None and not options.images:
            graph.set("prompt", options.prompt)
        return graph if options.ratio is None else at_ratio(graph, options.ratio)
    except PipelineError as error:
        refuse(error.problems, options.file)
    except UserError as error:
        fail(2, error.message, error.hint)


def run_pipeline(graph: Graph, executor: Executor, options: RunOptions) -> int:
    """Run ``graph``, show or print its figures, leave its record in ``out``; returns the exit code."""
    out, to, as_json = options.out, options.to, options.as_json
    quieten()
    make_folder(out)
    texts = {} if as_json else _texts(executor.plan(graph, to=to))
    display = RunDisplay({ref.node: label for label, ref in texts.values() if ref is not None})
    token = CancelToken()
    try:
        with interrupt_cancels(token):
            result = executor.run(graph, to=to, on_event=display, cancel=token, out=out)
    except Cancelled as cancelled:
        _finish_early(cancelled.record, out)
        show_failure("cancelled")
        return 130
    except NodeError as failure:
        if options.traceback:
            tracebacks.print_exception(failure.cause)
        _finish_early(failure.record, out)
        show_failure(str(failure), failure.hint, failure.location, failure.node, failure.raised_at)
        return 1
    unsaved = _save(result.record, out)
    summary = summarise(result) | {"warnings": [*result.record.warnings, *unsaved]}
    code = 1 if unsaved or any(warning.lost for warning in result.warnings) else 0
    if as_json:
        stdout.json(summary)
        return code
    answers = {name: value for name, value in result.items() if _is_answer(result, name)}
    for name, value in answers.items():
        label, ref = texts.get(name, ("", None))
        if ref is None or display.streamed.get(ref.node) != value:
            for text in [value] if isinstance(value, str) else value:
                stdout.line(f"{label}{text}")
    show_summary(summary, by_products=[name for name in result if name not in answers and result[name] is not None])
    if not unsaved:
        say(("record", "dim"), f" {out / RECORD}")
    return code


def make_folder(out: Path) -> None:
    """Make the output folder, so that a mistake shows before the work, not after it.

    Raises:
        UserError: it cannot be made, or nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(
            f"the output folder {out} cannot be written to: {error.strerror}", "choose another with --out"
        ) from error


def _save(record: RunRecord, out: Path) -> list[str]:
    """Write the record into the output folder; returns why it could not be, after a warning."""
    try:
        record.save(out / RECORD)
    except OSError as error:
        message = f"the record {out / RECORD} cannot be written: {error.strerror or error}"
        show_warning(f"{message}; make room or choose another folder with --out")
        return [message]
    return []


def _texts(plan: Plan) -> dict[str, tuple[str, Ref | None]]:
    """The outputs that may be texts, each with its label, and the node's output that is streamed as this one.

    Answers are labelled by the names of outputs if there may be several.
    """
    may = {}
    for name, ref in plan.wanted.items():
        spec = plan.steps[ref.node].spec
        kinds = spec.outputs[ref.output or "output"].type_name.split(" | ")
        if not spec.output and not {"str", "list[str]", "Any"}.isdisjoint(kinds):
            may[name] = ref
    names = [*may, *(name for name, value in plan.literals.items() if isinstance(value, str))]
    streamed: dict[str, str] = {ref.node: name for name, ref in reversed(may.items())}
    labels = {name: f"{name}: " if len(names) > 1 else "" for name in names}
    return {name: (labels[name], may[name] if name in streamed.values() else None) for name in names}


def _is_answer(result: RunResult, name: str) -> bool:
    """Whether an output is text to print. The path that a node with an effect returns, for example, is not."""
    value = result[name]
    if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return False
    ref = result.plan.wanted.get(name)
    return ref is None or not result.plan.steps[ref.node].spec.output


def explain_run(graph: Graph, to: str | None, disk: DiskCache | None, as_json: bool) -> None:
    """Show for every node its cache key, and whether it would run, come from the cache or be skipped."""
    steps = Executor(graph.registry, disk=disk).explain(graph, to=to)
    if as_json:
        stdout.json(steps, indent=2)
        return
    table = simple_table("node", "action", "why", "key")
    for name, step in steps.items():
        table.add_row(escape(name), step["action"], escape(step["why"]), (step["key"] or "–")[:12])
    console.print(table)


def open_cache(folder: Path | None, gigabytes: float) -> DiskCache | None:
    """The disk cache of ``--cache``, None without a folder.

    Raises:
        UserError: the folder cannot be used.
    """
    if folder is None:
        return None
    try:
        return DiskCache(folder, TensorCodec(), int(gigabytes * 1e9))
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be used: {error.strerror}", "choose another with --cache"
        ) from error


def _finish_early(record: RunRecord | None, out: Path) -> None:
    """Write the record of the nodes that ran."""
    if record is not None:
        _save(record, out)


def quieten() -> None:
    """Silence transformers on the terminal: the warnings that matter are messages of this program."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if console.is_terminal else "1")


@contextlib.contextmanager
def interrupt_cancels(token: CancelToken) -> Iterator[None]:
    """The first Ctrl-C cancels the run, the second ends the program; what cannot be asked to stop ends at the first."""

    def interrupt(_signal: int, _frame: Any) -> None:
        again = token.is_cancelled()
        token.cancel()
        if again or token.abrupt:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
