"""The command line. Results go to stdout, everything else to stderr; nothing heavy is imported before it is needed.

Exit codes: 0 done, 1 a node failed, 2 bad pipeline or usage, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from fopru_graph.graph import Graph, Problem, Registry

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Visual-token pruning for vision-language models as node-graph pipelines: FoPru, FastV, both.",
)

FileArgument = Annotated[Path, typer.Argument(help="a pipeline's YAML file", show_default=False)]
NodesOption = Annotated[
    list[Path] | None, typer.Option("--nodes", help="folder or file with nodes of your own (is run)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON for machines")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="set a pipeline input, or NODE.INPUT=VALUE")
]


def main() -> None:
    """Entry point of ``fopru-graph``: every mistake of a user ends as one message and an exit code."""
    from fopru_graph.errors import UserError

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        _fail(1, error.message, error.hint)


@app.command()
def run(
    file: Annotated[
        Path, typer.Argument(help="a pipeline's YAML file, or the run.json of an earlier run", show_default=False)
    ],
    sets: SetOption = None,
    as_json: JsonOption = False,
    out: Annotated[Path, typer.Option(help="folder for pictures, texts and the run's record")] = Path("fopru-out"),
    to: Annotated[str | None, typer.Option(help="run only what NODE or NODE.OUTPUT needs")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="show what would run and why, and stop")] = False,
    nodes: NodesOption = None,
    cache: Annotated[Path | None, typer.Option(help="keep encoded pictures in this folder between runs")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="nodes that may run at the same time")] = 1,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="show Python's traceback of an unexpected failure")
    ] = False,
) -> None:
    """Run a pipeline: the answer streams to stdout, figures follow on stderr."""
    from fopru_graph.commands.run import explain_run, run_pipeline
    from fopru_graph.graph import PipelineError

    graph = _open(file, nodes, sets, as_json)
    try:
        if explain:
            explain_run(graph, to, cache, as_json)
            return
        code = run_pipeline(graph, out=out, to=to, cache=cache, jobs=jobs, as_json=as_json, traceback=traceback)
    except PipelineError as error:  # what only this run asks for: the target of --to, an input without a default
        _refuse(error.problems, file, as_json)
    raise typer.Exit(code)


@app.command()
def validate(
    file: FileArgument, as_json: JsonOption = False, nodes: NodesOption = None, sets: SetOption = None
) -> None:
    """Report every problem of a pipeline at once, with its line and a hint; runs nothing."""
    _, problems = _check(file, nodes, sets)
    if as_json:
        print(json.dumps({"problems": [problem.to_json() for problem in problems]}, indent=2, ensure_ascii=False))
    else:
        _show(problems, file)
        if not problems:
            print(f"{file}: valid")
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(2)


@app.command(name="nodes")
def list_nodes(
    type_name: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="show one node type in full", show_default=False)
    ] = None,
    as_json: JsonOption = False,
    nodes: NodesOption = None,
) -> None:
    """List the node types, or show one with its inputs and outputs."""
    from fopru_graph.graph import PipelineError
    from fopru_graph.report.catalogue import describe_node, show_catalogue, show_node

    registry = _registry(nodes)
    try:
        specs = [registry.get(type_name)] if type_name else [registry.get(name) for name in registry.types()]
    except PipelineError as error:
        _fail(2, error.problems[0].message, error.problems[0].hint)
    if as_json:
        described = [describe_node(spec) for spec in specs]
        print(json.dumps(described[0] if type_name else described, indent=2, ensure_ascii=False))
    elif type_name:
        show_node(specs[0])
    else:
        show_catalogue(specs)


@app.command()
def draw(
    file: FileArgument,
    form: Annotated[str, typer.Option("--format", help="mermaid, dot or svg")] = "mermaid",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; stdout without it")] = None,
    nodes: NodesOption = None,
) -> None:
    """Draw a pipeline as Mermaid, DOT or SVG text; needs no network and no other program."""
    from fopru_graph.graph.draw import FORMATS
    from fopru_graph.graph.draw import draw as draw_graph

    if form not in FORMATS:
        _fail(2, f"format {form!r} is unknown", f"choose {', '.join(FORMATS)}")
    _write(draw_graph(_open(file, nodes), form), output)


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; stdout without it")] = None,
    nodes: NodesOption = None,
) -> None:
    """Print the JSON Schema of pipeline files, for completion and checks in editors."""
    from fopru_graph.graph.schema import pipeline_schema

    _write(json.dumps(pipeline_schema(_registry(nodes)), indent=2, ensure_ascii=False) + "\n", output)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check this installation: versions, devices, the bundled model, one real answer."""
    from fopru_graph.commands.doctor import examine, show_findings

    findings = examine()
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2, ensure_ascii=False))
    else:
        show_findings(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


# -- shared by the commands
# ----------------------------------------------------------------------------------------------


def _registry(folders: list[Path] | None) -> Registry:
    from fopru_graph.graph import PipelineError, Registry

    registry = Registry.default()
    for folder in folders or []:
        try:
            failures = registry.load_folder(folder)
        except (PipelineError, OSError) as error:
            _fail(2, str(error))
        for failure in failures:
            from fopru_graph.report.terminal import show_warning

            show_warning(f"{failure.source} failed to load: {failure.error.strip().splitlines()[-1]}")
    return registry


def _load(file: Path, folders: list[Path] | None) -> Graph:
    """The graph of a YAML file or of a run's record; raises PipelineError."""
    from fopru_graph.graph import Graph, RunRecord

    registry = _registry(folders)
    if file.suffix != ".json":
        return Graph.load(file, registry)
    try:
        record = RunRecord.load(file)
    except (OSError, UnicodeError) as error:
        _fail(2, f"cannot read {file}: {getattr(error, 'strerror', None) or error}")
    except ValueError as error:
        _fail(2, str(error), "give a pipeline's YAML file, or the run.json of an earlier run")
    return record.graph(registry)


def _check(file: Path, folders: list[Path] | None, sets: list[str] | None) -> tuple[Graph | None, list[Problem]]:
    """The graph with the set values in it, if there is one at all, and everything that is wrong."""
    from fopru_graph.graph import PipelineError

    try:
        graph = _load(file, folders)
        _apply_sets(graph, sets)
        return graph, graph.problems()
    except PipelineError as error:
        return None, error.problems


def _open(file: Path, folders: list[Path] | None, sets: list[str] | None = None, as_json: bool = False) -> Graph:
    """A graph that can run; else its problems are shown and the program ends with exit code 2."""
    graph, problems = _check(file, folders, sets)
    if graph is None or any(problem.severity == "error" for problem in problems):
        _refuse(problems, file, as_json)
    _show(problems, file)
    return graph


def _refuse(problems: list[Problem], file: Path, as_json: bool) -> NoReturn:
    """Show the problems, on stdout as JSON too where that is wanted, and end with exit code 2."""
    _show(problems, file)
    if as_json:
        print(json.dumps({"problems": [problem.to_json() for problem in problems]}, ensure_ascii=False))
    sys.exit(2)


def _apply_sets(graph: Graph, sets: list[str] | None) -> None:
    """Apply NAME=VALUE options; a target that takes text gets it as it stands, any other the value as in YAML."""
    from fopru_graph.graph import PipelineError, parse_value

    for option in sets or []:
        target, equals, text = option.partition("=")
        if not equals:
            _fail(2, f"--set {option}: there is no =", "write --set NAME=VALUE or --set NODE.INPUT=VALUE")
        try:
            value: Any = text if _takes_text(graph, target) and not text.startswith("[") else parse_value(text)
        except PipelineError as error:
            _fail(2, f"--set {target}: {error.problems[0].message}", "quote the value as in YAML")
        graph.set(target, value)


def _takes_text(graph: Graph, target: str) -> bool:
    name, dot, key = target.rpartition(".")
    if not dot:
        return target in graph.inputs and graph.inputs[target].type in ("str", "path")
    spec = graph.registry.find(graph.nodes[name].type) if name in graph.nodes else None
    return spec is not None and key in spec.inputs and "str" in spec.inputs[key].type_name.split(" | ")


def _show(problems: list[Problem], file: Path) -> None:
    if problems:
        from fopru_graph.report.terminal import show_problems

        show_problems(problems, str(file))


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        _fail(2, f"{output} cannot be written: {error.strerror}")


def _fail(code: int, message: str, hint: str | None = None) -> NoReturn:
    from fopru_graph.report.terminal import show_failure

    show_failure(message, hint)
    sys.exit(code)


if __name__ == "__main__":
    main()
