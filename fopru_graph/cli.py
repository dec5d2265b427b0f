"""The command line. Results go to stdout, everything else to stderr; nothing heavy is imported before it is needed.

Exit codes: 0 done, 1 a node failed, 2 bad pipeline or usage, 3 some samples or cells failed, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from fopru_graph.commands.arguments import (
    ModelOptions,
    check_graph,
    fail,
    make_registry,
    open_graph,
    open_graphs,
    parse_ratios,
    refuse,
    show,
    write_text,
)
from fopru_graph.commands.options import (
    AttentionOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    EvalOutOption,
    FileArgument,
    FilesArgument,
    JsonOption,
    LimitOption,
    NodesOption,
    SetOption,
    TaskOption,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Visual-token pruning for vision-language models as node-graph pipelines: FoPru, FastV, both.",
)


def main() -> None:
    """Entry point of ``fopru-graph``: every mistake of a user ends as one message and an exit code."""
    from fopru_graph.errors import UserError

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        fail(1, error.message, error.hint)


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
    traceback: Annotated[
        bool, typer.Option("--traceback", help="show Python's traceback of an unexpected failure")
    ] = False,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attention: AttentionOption = None,
) -> None:
    """Run a pipeline: the answer streams to stdout, figures follow on stderr."""
    from fopru_graph.commands.run import explain_run, run_pipeline
    from fopru_graph.graph import PipelineError

    graph = open_graph(file, nodes, sets, as_json, ModelOptions(device, dtype, attention))
    try:
        if explain:
            explain_run(graph, to, cache, as_json)
            return
        code = run_pipeline(graph, out=out, to=to, cache=cache, as_json=as_json, traceback=traceback)
    except PipelineError as error:  # what only this run asks for: the target of --to, an input without a default
        refuse(error.problems, file, as_json)
    raise typer.Exit(code)


@app.command()
def bench(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE…", help="pipelines to compare", show_default=False)
    ] = None,
    ratio: Annotated[str, typer.Option(help="shares of the visual tokens to keep")] = "1,0.75,0.5,0.25",
    new_tokens: Annotated[int, typer.Option(min=1, help="length of every answer")] = 64,
    repeat: Annotated[int, typer.Option(min=1, help="rounds; each measures everything once")] = 4,
    stock: Annotated[bool, typer.Option("--stock", help="also measure transformers' own generate")] = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="the models and ratios of the FoPru paper, its figures beside ours")
    ] = False,
    sets: SetOption = None,
    as_json: JsonOption = False,
    out: Annotated[Path, typer.Option(help="folder for JSON, CSV, LaTeX and the plot")] = Path("fopru-bench"),
    nodes: NodesOption = None,
    threads: Annotated[int, typer.Option(min=1, help="threads of the CPU")] = 1,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attention: AttentionOption = None,
) -> None:
    """Measure pipelines against each other in one process: times, tokens, memory, and the limits of arithmetic."""
    from fopru_graph.commands.bench import BenchOptions, bench_paper, bench_pipelines

    options = BenchOptions(parse_ratios(ratio), new_tokens, repeat, stock, threads, out, as_json)
    model = ModelOptions(device, dtype, attention)
    if paper == bool(files):
        fail(2, "name pipeline files, or --paper and no file", "e.g. fopru-graph bench pipelines/*.yaml")
    code = (
        bench_paper(sets, options, model)
        if paper
        else bench_pipelines(open_graphs(files or [], nodes, sets, as_json, model), options)
    )
    raise typer.Exit(code)


@app.command(name="eval")
def evaluate(
    files: FilesArgument,
    task: TaskOption,
    ratio: Annotated[
        str | None, typer.Option(help="shares of the visual tokens to keep; without it each file as it is written")
    ] = None,
    sets: SetOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    out: EvalOutOption = Path("fopru-eval"),
    retry: Annotated[bool, typer.Option("--retry", help="run samples again that failed before")] = False,
    as_json: JsonOption = False,
    nodes: NodesOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attention: AttentionOption = None,
) -> None:
    """Accuracy of pipelines on benchmarks: a row a sample, goes on where it was stopped, over several processes."""
    from fopru_graph.commands.evaluate import EvalOptions, evaluate_files, names_in

    ratios = None if ratio is None else parse_ratios(ratio)
    options = EvalOptions(names_in(task), ratios, tuple(data or ()), limit, out, retry, as_json)
    raise typer.Exit(evaluate_files(files, nodes, sets, options, ModelOptions(device, dtype, attention)))


@app.command()
def sweep(
    files: FilesArgument,
    task: TaskOption,
    ratio: Annotated[
        str | None, typer.Option(help="shares of the visual tokens to keep; without it each file as it is written")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=V1,V2", help="values of an input to combine; quote one that has commas"),
    ] = None,
    zipped: Annotated[bool, typer.Option("--zip", help="walk the lists in step instead of combining them")] = False,
    data: DataOption = None,
    limit: LimitOption = None,
    out: EvalOutOption = Path("fopru-eval"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="cells at a time; as many as GPUs, else up to two, without it")
    ] = None,
    executor: Annotated[str, typer.Option(help="local, slurm; submitit-local: its way on this machine")] = "local",
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", metavar="NAME=VALUE", help="parameters of sbatch, e.g. partition=gpu")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="run cells and samples again that failed before")] = False,
    as_json: JsonOption = False,
    nodes: NodesOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attention: AttentionOption = None,
) -> None:
    """Evaluate every combination of pipelines, tasks, ratios and settings, each in a process of its own."""
    from fopru_graph.commands.sweep import SweepOptions, sweep_files

    options = SweepOptions(
        *(task, ratio, tuple(sets or ()), zipped, tuple(data or ()), limit),
        *(out, jobs, executor, tuple(slurm or ()), retry, as_json),
    )
    raise typer.Exit(sweep_files(files, nodes, options, ModelOptions(device, dtype, attention)))


@app.command()
def tune(
    files: FilesArgument,
    task: TaskOption,
    max_drop: Annotated[
        float, typer.Option(min=0, help="points of accuracy that may be lost against no pruning")
    ] = 1.0,
    ratio: Annotated[str | None, typer.Option(help="shares to choose from; the paper's nine without it")] = None,
    sets: SetOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    out: EvalOutOption = Path("fopru-eval"),
    as_json: JsonOption = False,
    nodes: NodesOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attention: AttentionOption = None,
) -> None:
    """Find the smallest share of visual tokens that a task allows; several files are strategies to choose from."""
    from fopru_graph.commands.evaluate import EvalOptions, names_in
    from fopru_graph.commands.tune import tune_files

    ratios = None if ratio is None else parse_ratios(ratio)
    options = EvalOptions(names_in(task), ratios, tuple(data or ()), limit, out, False, as_json)
    raise typer.Exit(tune_files(files, nodes, sets, max_drop, options, ModelOptions(device, dtype, attention)))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="what eval or sweep wrote", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="where the page goes  [default: DIR/report.html]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """One page, figures and tables from a results folder: accuracy, tokens, times, paired tests, provenance."""
    from fopru_graph.commands.report import report_results

    report_results(folder, output, as_json)


@app.command()
def validate(
    file: FileArgument, as_json: JsonOption = False, nodes: NodesOption = None, sets: SetOption = None
) -> None:
    """Report every problem of a pipeline at once, with its line and a hint; runs nothing."""
    _, problems = check_graph(file, nodes, sets)
    if as_json:
        print(json.dumps({"problems": [problem.to_json() for problem in problems]}, indent=2, ensure_ascii=False))
    else:
        show(problems, file)
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
    from fopru_graph.terminal.catalogue import describe_node, show_catalogue, show_node

    registry = make_registry(nodes)
    try:
        specs = [registry.get(type_name)] if type_name else [registry.get(name) for name in registry.types()]
    except PipelineError as error:
        fail(2, error.problems[0].message, error.problems[0].hint)
    if as_json:
        described = [describe_node(spec) for spec in specs]
        print(json.dumps(described[0] if type_name else described, indent=2, ensure_ascii=False))
    elif type_name:
        show_node(specs[0])
    else:
        show_catalogue(specs)


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the model families that are served, with checkpoints of each and what it supports."""
    from fopru_graph.lvlm.families.registry import SERVED
    from fopru_graph.terminal.catalogue import show_models

    if as_json:
        print(json.dumps({"models": [one.to_json() for one in SERVED]}, indent=2, ensure_ascii=False))
    else:
        show_models([one.to_json() for one in SERVED])


@app.command()
def tasks(as_json: JsonOption = False) -> None:
    """List the benchmarks that pipelines can be evaluated on."""
    from fopru_graph.evaluation.tasks import TASKS, get_task
    from fopru_graph.terminal.catalogue import show_tasks

    found = [get_task(name) for name in TASKS]
    rows = [
        {"name": one.name, "title": one.title, "scorer": one.scorer, "max_new_tokens": one.max_new_tokens}
        for one in found
    ]
    if as_json:
        print(json.dumps({"tasks": rows}, indent=2, ensure_ascii=False))
    else:
        show_tasks(rows)


@app.command()
def draw(
    file: FileArgument,
    form: Annotated[str, typer.Option("--format", help="mermaid, dot or svg")] = "mermaid",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; stdout without it")] = None,
    nodes: NodesOption = None,
) -> None:
    """Draw a pipeline as Mermaid, DOT or SVG text; needs no network and no other program."""
    from fopru_graph.drawing import FORMATS
    from fopru_graph.drawing import draw as draw_graph

    if form not in FORMATS:
        fail(2, f"format {form!r} is unknown", f"choose {', '.join(FORMATS)}")
    write_text(draw_graph(open_graph(file, nodes), form), output)


@app.command()
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; stdout without it")] = None,
    nodes: NodesOption = None,
) -> None:
    """Print the JSON Schema of pipeline files, for completion and checks in editors."""
    from fopru_graph.graph.yaml.schema import pipeline_schema

    write_text(json.dumps(pipeline_schema(make_registry(nodes)), indent=2, ensure_ascii=False) + "\n", output)


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


if __name__ == "__main__":
    main()
