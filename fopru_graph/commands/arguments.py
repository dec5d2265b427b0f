"""From the arguments of a command to a pipeline that can run, or to its problems and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.terminal.stdout import stdout

if TYPE_CHECKING:
    from fopru_graph.evaluation.task import Task
    from fopru_graph.graph import Graph, NodeError, Problem, Registry


def make_registry(folders: list[Path] | None) -> Registry:
    """The default node types and those of ``folders``; a pack that fails to load is a warning."""
    from fopru_graph.graph import PipelineError, Registry

    registry = Registry.default()
    for folder in folders or []:
        try:
            registry.load_folder(folder)
        except (PipelineError, OSError) as error:
            fail(2, str(error))
    for failure in registry.failures:
        from fopru_graph.terminal.console import show_warning

        show_warning(str(failure))
    return registry


def load_graph(file: Path, registry: Registry) -> Graph:
    """The graph of a file, see `Graph.load`.

    Raises:
        PipelineError: the file is no pipeline.
    """
    from fopru_graph.graph import Graph

    return Graph.load(file, registry)


def check_graph(
    file: Path, registry: Registry, sets: list[str] | None, options: ModelOptions | None = None
) -> tuple[Graph | None, list[Problem]]:
    """The graph with the options applied, None if it cannot be built, and all its problems."""
    from fopru_graph.graph import PipelineError
    from fopru_graph.graph.errors import errors_of

    try:
        graph = load_graph(file, registry)
        for option in sets or []:
            apply_set(graph, option)
        problems = graph.problems()
        if options is not None and options.given and not errors_of(problems):  # with errors sub-graphs are unknown
            options.apply(graph)
            problems = graph.problems()
        return graph, _with_packs_named(graph, problems)
    except PipelineError as error:
        return None, error.problems


def _with_packs_named(graph: Graph, problems: list[Problem]) -> list[Problem]:
    """The problems; a type that is unknown because a record's nodes were not given says how to give them."""
    packs = graph.recorded["packs"] if graph.recorded else {}
    missing = [path for path, digest in packs.items() if digest not in graph.registry.packs.values()]
    hint = "give the nodes of the recorded run: " + " ".join(f"--nodes {path}" for path in missing)
    unknown = missing and [problem for problem in problems if problem.code == "unknown-type"]
    return [replace(problem, hint=hint) if unknown and problem in unknown else problem for problem in problems]


def open_graph(
    file: Path,
    registry: Registry,
    sets: list[str] | None = None,
    options: ModelOptions | None = None,
) -> Graph:
    """A graph that can run; otherwise shows its problems and ends the program with exit code 2."""
    from fopru_graph.graph.errors import errors_of

    graph, problems = check_graph(file, registry, sets, options)
    if graph is None or errors_of(problems):
        refuse(problems, file)
    show(problems, file)
    return graph


def open_graphs(
    files: list[Path], folders: list[Path] | None, sets: list[str] | None, options: ModelOptions
) -> list[Graph]:
    """Several graphs that can run. A ``--set`` applies to the graphs that have its target; one of them must."""
    from fopru_graph.graph.errors import errors_of

    registry = make_registry(folders)
    graphs = [open_graph(file, registry, None, options) for file in files]
    for option in sets or []:
        problems = [try_set(graph, option) for graph in graphs]
        if all(problems):
            refuse(problems[-1], files[-1])
    for graph, file in zip(graphs, files, strict=True):
        if errors := errors_of(graph.problems()):
            refuse(errors, file)
    return graphs


def refuse(problems: list[Problem], file: Path) -> NoReturn:
    """Show the problems and end the program with exit code 2."""
    from fopru_graph.graph.errors import errors_of

    show(problems, file)
    first = (errors_of(problems) or problems)[0]
    location = f"{file}:{first.line}" if first.line else str(file)
    stdout.note_error(first.message, first.hint, location=location, node=first.node, problems=problems)
    sys.exit(2)


def apply_set(graph: Graph, option: str) -> None:
    """Apply one NAME=VALUE of ``--set``. A target that takes text gets VALUE as it was typed, any other reads YAML.

    ``NAME:=VALUE`` is YAML for every target: a list of texts, null, a text with escapes.

    Raises:
        PipelineError: the graph has no such target, or it takes no such value.
    """
    from fopru_graph.graph import PipelineError, parse_value

    name, equals, text = option.partition("=")
    target = target_of(option)
    if not equals:
        fail(2, f"--set {option}: there is no =", "write --set NAME=VALUE or --set NODE.INPUT=VALUE")
    try:
        value: Any = text if name == target and _takes_text(graph, target) else parse_value(text)
    except PipelineError as error:
        fail(2, f"--set {target}: {error.problems[0].message}", "quote the value as in YAML")
    graph.set(target, value)


def target_of(option: str) -> str:
    """The target of one ``--set``, e.g. ``prune.ratio`` of ``prune.ratio=0.5`` and of ``prune.ratio:=0.5``."""
    return option.partition("=")[0].removesuffix(":")


def try_set(graph: Graph, option: str) -> list[Problem]:
    """Apply one ``--set``; returns why it does not fit the graph, or nothing."""
    from fopru_graph.graph import PipelineError

    try:
        apply_set(graph, option)
    except PipelineError as error:
        return error.problems
    return []


def _takes_text(graph: Graph, target: str) -> bool:
    from fopru_graph.graph import PipelineError
    from fopru_graph.graph.check.expand import block_path

    name, dot, key = target.rpartition(".")
    if not dot:
        return target in graph.inputs and not {"str", "path"}.isdisjoint(graph.inputs[target].type.split(" | "))
    try:
        flat = graph.flat()
    except PipelineError:  # told when the graph is checked
        return False
    if name in flat.nodes:
        spec = graph.registry.find(flat.nodes[name].type)
        return spec is not None and key in spec.inputs and "str" in spec.inputs[key].type_name.split(" | ")
    block = flat.blocks.get(block_path(graph.nodes[name].type)) if name in graph.nodes else None
    return block is not None and _takes_text(type(graph).loads(block, graph.registry), key)


def set_values(graph: Graph, sets: Iterable[str] | None) -> dict[str, Any]:
    """The values that ``--set`` gave to a graph, by target; a target that the graph does not have is left out."""
    values: dict[str, Any] = {}
    from fopru_graph.graph import MISSING

    for target in map(target_of, sets or ()):
        if (value := graph.written(target)) is not MISSING:
            values[target] = value
    return values


def split_names(text: str) -> tuple[str, ...]:
    """The names between commas, each once, e.g. ``"pope, gqa,pope"`` gives ``("pope", "gqa")``."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def named_tasks(text: str) -> list[Task]:
    """The tasks of ``--task``. Problems of an own task's file are shown, and end the program with exit code 2.

    Raises:
        UserError: there is none, one is unknown, or two have the same name.
    """
    from fopru_graph.errors import UserError
    from fopru_graph.evaluation.tasks import get_task
    from fopru_graph.graph import PipelineError

    tasks: dict[str, Task] = {}
    for reference in split_names(text):
        try:
            task = get_task(reference)
        except PipelineError as error:
            refuse(error.problems, Path(reference))
        if task.name in tasks:
            files = f"{tasks[task.name].reference} and {reference}"
            raise UserError(f"two tasks are called '{task.name}': {files}", "write name: and another in one of them")
        tasks[task.name] = task
    if not tasks:
        raise UserError("there is no task", "write e.g. --task scenes; `fopru-graph tasks` lists them")
    return list(tasks.values())


def parse_ratios(text: str | None, distinct: bool = True) -> tuple[float, ...] | None:
    """The retention ratios between commas, with ``distinct`` each only once; None for None.

    Ends the program with exit code 2 if there is no ratio, or one is no number in (0, 1].
    """
    from fopru_graph.errors import UserError
    from fopru_graph.measure.pipelines import check_ratios

    if text is None:
        return None
    try:
        ratios = tuple(float(part) for part in text.split(",") if part.strip())
        check_ratios(ratios)
    except ValueError:
        fail(2, f"--ratio {text}: that is no list of numbers", "write e.g. --ratio 1,0.5,0.25")
    except UserError as error:
        fail(2, f"--ratio {text}: {error.message}", error.hint)
    return tuple(dict.fromkeys(ratios)) if distinct else ratios


def slurm_parameters(options: Iterable[str]) -> dict[str, Any]:
    """The parameters of ``--slurm NAME=VALUE``.

    Raises:
        UserError: one is no such pair.
    """
    from fopru_graph.errors import UserError
    from fopru_graph.graph import PipelineError, parse_value

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


def show(problems: list[Problem], file: Path) -> None:
    """Show the problems of a file on stderr, if there are any."""
    if problems:
        from fopru_graph.terminal.console import show_problems

        show_problems(problems, str(file))


def write_text(text: str, output: Path | None) -> None:
    """Write to a file, or to stdout if ``output`` is None."""
    if output is None:
        stdout.line(text.removesuffix("\n"))
    else:
        write_bytes(text.encode(), output)


def write_bytes(data: bytes, output: Path) -> None:
    """Write a file; one that cannot be written ends the program with exit code 2."""
    from fopru_graph.graph.files import write_atomically

    try:
        write_atomically(output, data)
    except OSError as error:
        fail(2, f"{output} cannot be written: {error.strerror or error}")


def fail(code: int, message: str, hint: str | None = None, error: NodeError | None = None) -> NoReturn:
    """Show an error with its hint and end the program; ``error`` is the node's that failed, if one did."""
    from fopru_graph.terminal.console import show_failure

    show_failure(message, hint, *((error.location, error.node, error.raised_at) if error is not None else ()))
    sys.exit(code)
