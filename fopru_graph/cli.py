"""The command line. Results go to stdout, everything else to stderr. A command imports its module when it is called.

Exit codes: 0 done, 1 a node failed or a file could not be written (an answer is printed all the same), 2 bad pipeline
or usage, 3 some samples or cells failed, 130 interrupted. With ``--json`` a command that has no result prints
``{"error": {message, hint, location, node, raised_at, problems}}``.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fopru_graph import __version__
from fopru_graph.commands.completion import node_types
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import (
    BenchOptions,
    CompareOptions,
    EvalOptions,
    ExportOptions,
    MapOptions,
    RunOptions,
    ServeOptions,
    SweepOptions,
    TuneOptions,
)
from fopru_graph.commands.options import (
    FileArgument,
    FilesArgument,
    JsonOption,
    NodesOption,
    SetOption,
    WithoutOption,
    WriteOption,
    changes_of,
    expand_options,
)
from fopru_graph.commands.program import Command, Program
from fopru_graph.commands.subcommands import cache_app, new_app
from fopru_graph.terminal.stdout import stdout

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Visual-token pruning for vision-language models as node-graph pipelines: FoPru, FastV, both.",
)


command = partial(app.command, cls=Command)


def main() -> None:
    """Entry point of ``fopru-graph``."""
    app()


def _show_version(asked: bool) -> None:
    if asked:
        stdout.line(f"fopru-graph {__version__}")
        raise typer.Exit


@app.callback()
def _before_every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What stands before a command's name."""


@command()
@expand_options
def run(options: RunOptions, model: ModelOptions) -> int:
    """Run a pipeline: the answer streams to stdout, figures follow on stderr; many pictures give a row each."""
    if options.images:
        from fopru_graph.commands.run_many import run_images

        return run_images(options, model)
    from fopru_graph.commands.run import run

    return run(options, model)


@command()
@expand_options
def bench(options: BenchOptions, model: ModelOptions) -> int:
    """Measure pipelines against each other in one process: times, tokens, memory, and the limits of arithmetic."""
    from fopru_graph.commands.bench import bench

    return bench(options, model)


@command()
@expand_options
def compare(options: CompareOptions, model: ModelOptions) -> int:
    """Ask about pictures with and without pruning: answers, tokens, times and what was kept, side by side."""
    from fopru_graph.commands.compare import compare

    return compare(options, model)


@command(name="eval")
@expand_options
def evaluate(options: EvalOptions, model: ModelOptions) -> int:
    """Accuracy of pipelines on benchmarks: a row a sample, goes on where it was stopped, over several processes."""
    from fopru_graph.commands.evaluate import evaluate

    return evaluate(options, model)


@command()
@expand_options
def sweep(*, files: FilesArgument, options: SweepOptions, nodes: NodesOption = None, model: ModelOptions) -> int:
    """Evaluate every combination of pipelines, tasks, ratios and settings, each in a process of its own."""
    from fopru_graph.commands.sweep import sweep_files

    return sweep_files(files, nodes, options, model)


@command(name="map")
@expand_options
def map_rows(options: MapOptions, model: ModelOptions) -> int:
    """Answer a question about each of many pictures: to parquet, goes on where it was stopped, here or on a cluster."""
    from fopru_graph.commands.map import map_rows

    return map_rows(options, model)


@command()
@expand_options
def tune(options: TuneOptions, model: ModelOptions) -> int:
    """Find the smallest share of visual tokens that a task allows; several files are strategies to choose from."""
    from fopru_graph.commands.tune import tune

    return tune(options, model)


@command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="what eval or sweep wrote", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="the page; tables, figures go beside it  [default: DIR/report.html]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One page, figures and tables from a results folder: accuracy, tokens, times, paired tests, provenance."""
    from fopru_graph.commands.report import report_results

    report_results(folder, output, as_json)


@command()
@expand_options
def export(options: ExportOptions, model: ModelOptions) -> int:
    """Write the visual tokens that a pipeline keeps, for vLLM, SGLang or any program; or the pipeline, for ComfyUI."""
    from fopru_graph.commands.export import export

    return export(options, model)


@command()
@expand_options
def serve(options: ServeOptions, model: ModelOptions) -> int:
    """Serve pipelines to OpenAI clients, and on ComfyUI's canvas in a browser; to this machine alone without --host."""
    from fopru_graph.commands.serve import serve

    return serve(options, model)


@command()
@expand_options
def validate(
    *,
    file: FileArgument,
    as_json: JsonOption = False,
    nodes: NodesOption = None,
    sets: SetOption = None,
    without: WithoutOption = None,
) -> int:
    """Report every problem of a pipeline at once, with its line and a hint; runs nothing."""
    from fopru_graph.commands.validate import validate

    return validate(file, as_json, nodes, changes_of(sets, without))


@command(name="nodes")
def list_nodes(
    type_name: Annotated[
        str | None,
        typer.Argument(
            metavar="[TYPE]", help="show one node type in full", autocompletion=node_types, show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
    nodes: NodesOption = None,
) -> None:
    """List the node types, or show one with its inputs and outputs."""
    from fopru_graph.commands.listing import list_nodes

    list_nodes(type_name, as_json, nodes)


@command()
def pipelines(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="show one in full: its name, or a pipeline's file", show_default=False),
    ] = None,
    copy: Annotated[
        Path | None, typer.Option("--copy", metavar="DIR", help="copy it, or all without a name, into this folder")
    ] = None,
    as_json: JsonOption = False,
    nodes: NodesOption = None,
) -> None:
    """List the pipelines that ship, show the inputs of one, or copy it to be changed."""
    from fopru_graph.commands.pipelines import pipelines

    pipelines(name, copy, nodes, as_json)


@command()
def models(as_json: JsonOption = False) -> None:
    """List the model families that are served, with checkpoints of each and what it supports."""
    from fopru_graph.commands.listing import list_models

    list_models(as_json)


@command()
def tasks(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="check files of your own tasks", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the benchmarks that pipelines can be evaluated on, and the scorers that tasks of your own may name."""
    from fopru_graph.commands.listing import list_tasks

    list_tasks(files, as_json)


@command(name="draw")
def draw_pipeline(
    file: FileArgument,
    form: Annotated[
        str | None, typer.Option("--format", help="mermaid, dot, svg or png; without it as --output is called")
    ] = None,
    output: WriteOption = None,
    nodes: NodesOption = None,
    without: WithoutOption = None,
) -> None:
    """Draw a pipeline as Mermaid, DOT, SVG or PNG; needs no network and no other program."""
    from fopru_graph.commands.draw import draw_pipeline

    draw_pipeline(file, form, output, nodes, changes_of(None, without))


@command()
def schema(
    output: WriteOption = None,
    nodes: NodesOption = None,
) -> None:
    """Print the JSON Schema of pipeline files, for completion and checks in editors."""
    from fopru_graph.commands.schema import write_schema

    write_schema(output, nodes)


@command()
@expand_options
def doctor(*, as_json: JsonOption = False) -> int:
    """Check this installation: versions, devices, the bundled model, one real answer."""
    from fopru_graph.commands.doctor import doctor

    return doctor(as_json)


app.add_typer(new_app, name="new")
app.add_typer(cache_app, name="cache")


if __name__ == "__main__":
    main()
