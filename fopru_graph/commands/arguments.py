"""From the arguments of a command to a pipeline that can run, or to its problems and an exit code."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from fopru_graph.graph import Graph, Problem, Registry


@dataclass(frozen=True)
class ModelOptions:
    """Where and how the model runs; None leaves what the pipeline says."""

    device: str | None = None
    dtype: str | None = None
    attention: str | None = None

    def apply(self, graph: Graph) -> None:
        """Set them in every LoadModel node of a graph."""
        given = {key: value for key, value in asdict(self).items() if value is not None}
        for name, entry in graph.nodes.items():
            if entry.type == "LoadModel":
                for key, value in given.items():
                    graph.set(f"{name}.{key}", value)


def make_registry(folders: list[Path] | None) -> Registry:
    """The default node types and those of ``folders``; what fails to load is a warning."""
    from fopru_graph.graph import PipelineError, Registry

    registry = Registry.default()
    for folder in folders or []:
        try:
            failures = registry.load_folder(folder)
        except (PipelineError, OSError) as error:
            fail(2, str(error))
        for failure in failures:
            from fopru_graph.terminal.console import show_warning

            show_warning(f"{failure.source} failed to load: {failure.error.strip().splitlines()[-1]}")
    return registry


def load_graph(file: Path, folders: list[Path] | None) -> Graph:
    """The graph of a YAML file or of a run's record; raises PipelineError."""
    from fopru_graph.graph import Graph, RunRecord

    registry = make_registry(folders)
    if file.suffix != ".json":
        return Graph.load(file, registry)
    try:
        record = RunRecord.load(file)
    except (OSError, UnicodeError) as error:
        fail(2, f"cannot read {file}: {getattr(error, 'strerror', None) or error}")
    except ValueError as error:
        fail(2, str(error), "give a pipeline's YAML file, or the run.json of an earlier run")
    return record.graph(registry)


def check_graph(
    file: Path, folders: list[Path] | None, sets: list[str] | None, options: ModelOptions | None = None
) -> tuple[Graph | None, list[Problem]]:
    """The graph with the set values in it, if there is one at all, and everything that is wrong."""
    from fopru_graph.graph import PipelineError

    try:
        graph = load_graph(file, folders)
        for option in sets or []:
            apply_set(graph, option)
        if options is not None:
            options.apply(graph)
        return graph, graph.problems()
    except PipelineError as error:
        return None, error.problems


def open_graph(
    file: Path,
    folders: list[Path] | None,
    sets: list[str] | None = None,
    as_json: bool = False,
    options: ModelOptions | None = None,
) -> Graph:
    """A graph that can run; else its problems are shown and the program ends with exit code 2."""
    graph, problems = check_graph(file, folders, sets, options)
    if graph is None or any(problem.severity == "error" for problem in problems):
        refuse(problems, file, as_json)
    show(problems, file)
    return graph


def open_graphs(
    files: list[Path], folders: list[Path] | None, sets: list[str] | None, as_json: bool, options: ModelOptions
) -> list[Graph]:
    """Several graphs that can run. A set value applies where it has a place, and must have one in one of them."""
    from fopru_graph.graph import PipelineError

    graphs = [open_graph(file, folders, None, as_json, options) for file in files]
    for option in sets or []:
        placed = False
        for graph, file in zip(graphs, files, strict=True):
            try:
                apply_set(graph, option)
                placed = True
            except PipelineError as error:
                problems = error.problems, file
        if not placed:
            refuse(*problems, as_json)
    for graph, file in zip(graphs, files, strict=True):
        if problems_left := [problem for problem in graph.problems() if problem.severity == "error"]:
            refuse(problems_left, file, as_json)
    return graphs


def refuse(problems: list[Problem], file: Path, as_json: bool) -> NoReturn:
    """Show the problems, on stdout as JSON too where that is wanted, and end with exit code 2."""
    show(problems, file)
    if as_json:
        print(json.dumps({"problems": [problem.to_json() for problem in problems]}, ensure_ascii=False))
    sys.exit(2)


def apply_set(graph: Graph, option: str) -> None:
    """Apply one NAME=VALUE; a target that takes text gets it as it stands, any other the value as in YAML."""
    from fopru_graph.graph import PipelineError, parse_value

    target, equals, text = option.partition("=")
    if not equals:
        fail(2, f"--set {option}: there is no =", "write --set NAME=VALUE or --set NODE.INPUT=VALUE")
    try:
        value: Any = text if _takes_text(graph, target) and not text.startswith("[") else parse_value(text)
    except PipelineError as error:
        fail(2, f"--set {target}: {error.problems[0].message}", "quote the value as in YAML")
    graph.set(target, value)


def _takes_text(graph: Graph, target: str) -> bool:
    name, dot, key = target.rpartition(".")
    if not dot:
        return target in graph.inputs and graph.inputs[target].type in ("str", "path")
    spec = graph.registry.find(graph.nodes[name].type) if name in graph.nodes else None
    return spec is not None and key in spec.inputs and "str" in spec.inputs[key].type_name.split(" | ")


def parse_ratios(text: str, distinct: bool = True) -> tuple[float, ...]:
    """Numbers between commas, ``distinct``: each once; ends the program with exit code 2 where one is no ratio."""
    from fopru_graph.errors import UserError
    from fopru_graph.measure.pipelines import check_ratios

    try:
        ratios = tuple(float(part) for part in text.split(",") if part.strip())
        check_ratios(ratios)
    except ValueError:
        fail(2, f"--ratio {text}: that is no list of numbers", "write e.g. --ratio 1,0.5,0.25")
    except UserError as error:
        fail(2, f"--ratio {text}: {error.message}", error.hint)
    return tuple(dict.fromkeys(ratios)) if distinct else ratios


def show(problems: list[Problem], file: Path) -> None:
    """Show the problems of a file, if there are any."""
    if problems:
        from fopru_graph.terminal.console import show_problems

        show_problems(problems, str(file))


def write_text(text: str, output: Path | None) -> None:
    """Write to a file, or print where there is none."""
    if output is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(2, f"{output} cannot be written: {error.strerror}")


def fail(code: int, message: str, hint: str | None = None) -> NoReturn:
    """Say what is wrong and end the program."""
    from fopru_graph.terminal.console import show_failure

    show_failure(message, hint)
    sys.exit(code)
