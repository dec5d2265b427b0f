"""The options of the commands, each declared once: name, type, default, bounds and help.

A type such as `LimitOption` is one option, shared by several commands. A dataclass is the group of options that a
command hands on; `expand_options` shows its fields to Typer. Imports nothing heavy: `fopru-graph --help` reads it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_type_hints

import typer

from fopru_graph.commands.completion import pipeline_lists, pipeline_names, task_names
from fopru_graph.commands.shipped import find_pipeline, find_pipelines

if TYPE_CHECKING:
    from fopru_graph.graph import Graph

FileArgument = Annotated[
    Path,
    typer.Argument(
        help="a pipeline's YAML file, or the name of one that ships",
        callback=find_pipeline,
        autocompletion=pipeline_names,
        show_default=False,
    ),
]
FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE…",
        help="pipelines to compare: files, or names of those that ship",
        callback=find_pipelines,
        autocompletion=pipeline_names,
        show_default=False,
    ),
]
NodesOption = Annotated[
    list[Path] | None, typer.Option("--nodes", help="folder or file with nodes of your own (is run)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON for machines")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="set a pipeline input, or NODE.INPUT=VALUE; texts as typed, the rest is YAML, as all is after NAME:=VALUE",
    ),
]
WithoutOption = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="NODE", help="disable a node: its input of its output's type passes on instead"),
]
WriteOption = Annotated[Path | None, typer.Option("--output", "-o", help="file to write; stdout without it")]
TaskOption = Annotated[
    str,
    typer.Option(
        "--task",
        help="names or YAML files of tasks between commas; `fopru-graph tasks` lists them",
        autocompletion=task_names,
    ),
]
RatioOption = Annotated[
    str | None, typer.Option(help="shares of the visual tokens to keep; without it each file as it is written")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="[TASK=]PATH", help="records of your own: a JSONL or parquet file, or a folder"),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="only the first so many samples of each task")]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="make results anew that are of another configuration, e.g. of an edited node")
]
EvalOutOption = Annotated[Path, typer.Option(help="folder for results; what is there already is not done again")]

BatchOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="questions that are answered together, in batches of equal work")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help="auto, cpu, cuda, cuda:N or mps; sets it in every LoadModel",
        autocompletion=lambda: ["auto", "cpu", "cuda", "mps"],
    ),
]


OPTION_OF = {"device": "--device", "dtype": "--dtype", "attention": "--attn"}  # by the input of LoadModel


@dataclass(frozen=True)
class ModelOptions:
    """Where and how the model runs; None leaves what the pipeline says."""

    device: DeviceOption = None
    dtype: Annotated[
        str | None,
        typer.Option(
            help="auto, float32, bfloat16 or float16, likewise",
            autocompletion=lambda: ["auto", "float32", "bfloat16", "float16"],
        ),
    ] = None
    attention: Annotated[
        str | None,
        typer.Option(
            "--attn",
            help="sdpa, eager or flash_attention_2, likewise",
            autocompletion=lambda: ["sdpa", "eager", "flash_attention_2"],
        ),
    ] = None

    @property
    def given(self) -> dict[str, str]:
        """The options that were given, by the inputs of LoadModel."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def apply(self, graph: Graph) -> None:
        """Set the options that were given in every LoadModel node of ``graph``, those in sub-graphs too.

        Raises:
            PipelineError: there is no such node.
        """
        from fopru_graph.graph import PipelineError, Problem

        models = graph.of_type("LoadModel")
        if not models:
            flags = ", ".join(OPTION_OF[key] for key in self.given)
            message, hint = f"{flags}: the pipeline has no LoadModel node", "leave the option out"
            raise PipelineError([Problem("no-model", message, hint=hint)], graph.file)
        for name in models:
            for key, value in self.given.items():
                graph.set(f"{name}.{key}", value)


def changes_of(sets: list[str] | None, without: list[str] | None) -> list[str]:
    """``--set`` and ``--without`` as what ``--set`` takes."""
    return [*(sets or ()), *(f"{name}.enabled=false" for name in without or ())]


class Changing:
    """Options of a command that changes pipelines before it uses them."""

    sets: list[str] | None
    without: list[str] | None

    @property
    def changes(self) -> list[str]:
        """See `changes_of`."""
        return changes_of(self.sets, self.without)


@dataclass(frozen=True)
class RunOptions(Changing):
    """The options of ``run``."""

    file: Annotated[
        Path,
        typer.Argument(
            help="a pipeline's YAML file, the name of one that ships, or the run.json of an earlier run",
            callback=find_pipeline,
            autocompletion=pipeline_names,
            show_default=False,
        ),
    ]
    ratio: Annotated[
        float | None, typer.Option(help="share of the visual tokens that the last layer sees, as in bench and eval")
    ] = None
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="pictures to ask about, with one load: files, demo:NAME, folders, quoted patterns, or JSONL of "
            "{image, prompt}",
            show_default=False,
        ),
    ] = None
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="the question; without it, the pipeline's own")] = (
        None
    )
    batch_size: BatchOption = 1
    sets: SetOption = None
    as_json: JsonOption = False
    out: Annotated[Path, typer.Option(help="folder for pictures, texts and the run's record")] = Path("fopru-out")
    help_inputs: Annotated[
        bool, typer.Option("--help-inputs", help="show the pipeline's inputs and nodes, and stop")
    ] = False
    to: Annotated[str | None, typer.Option(help="run only what an output, NODE or NODE.OUTPUT needs")] = None
    explain: Annotated[bool, typer.Option("--explain", help="show what would run and why, and stop")] = False
    watch: Annotated[
        bool, typer.Option("--watch", help="run again whenever the pipeline or a --nodes file changes; Ctrl-C ends")
    ] = False
    nodes: NodesOption = None
    cache: Annotated[Path | None, typer.Option(help="keep encoded pictures in this folder between runs")] = None
    cache_gb: Annotated[float, typer.Option(min=0, help="most GB there; what was not used longest makes room")] = 10
    traceback: Annotated[bool, typer.Option("--traceback", help="show Python's traceback of an unexpected failure")] = (
        False
    )
    without: WithoutOption = None


@dataclass(frozen=True)
class BenchOptions(Changing):
    """The options of ``bench``."""

    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE…",
            help="pipelines to compare: files, or names of those that ship",
            callback=find_pipelines,
            autocompletion=pipeline_names,
            show_default=False,
        ),
    ] = None
    ratio: Annotated[str, typer.Option(help="shares of the visual tokens to keep")] = "1,0.75,0.5,0.25"
    new_tokens: Annotated[int, typer.Option(min=1, help="length of every answer")] = 64
    repeat: Annotated[int, typer.Option(min=1, help="rounds; each measures everything once")] = 4
    stock: Annotated[bool, typer.Option("--stock", help="also measure transformers' own generate")] = False
    paper: Annotated[
        bool, typer.Option("--paper", help="the models and ratios of the FoPru paper, its figures beside ours")
    ] = False
    resume: Annotated[
        bool, typer.Option("--resume", help="with --paper: take over the models that --out has finished")
    ] = False
    sets: SetOption = None
    as_json: JsonOption = False
    out: Annotated[Path, typer.Option(help="folder for JSON, CSV, LaTeX and the plot")] = Path("fopru-bench")
    nodes: NodesOption = None
    threads: Annotated[int, typer.Option(min=1, help="threads of the CPU")] = 1
    without: WithoutOption = None


@dataclass(frozen=True)
class CompareOptions:
    """The options of ``compare``."""

    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE…",
            help="pictures, folders, quoted patterns, demo:NAME, or JSONL files of {image, prompt}",
            show_default=False,
        ),
    ]
    prompt: Annotated[str | None, typer.Option(help="the question about each picture that has none of its own")] = None
    pipelines: Annotated[
        str,
        typer.Option(
            help="files, or names of those that ship, between commas; the unpruned model comes first",
            autocompletion=pipeline_lists,
        ),
    ] = "fopru_rank,fopru_fastv"
    ratio: RatioOption = None
    html: Annotated[Path | None, typer.Option(help="also write a page with pictures of what was kept")] = None
    sets: SetOption = None
    as_json: JsonOption = False
    nodes: NodesOption = None


@dataclass(frozen=True)
class EvalOptions(Changing):
    """The options of ``eval``."""

    files: FilesArgument
    task: TaskOption
    ratio: RatioOption = None
    sets: SetOption = None
    data: DataOption = None
    limit: LimitOption = None
    batch_size: BatchOption = 1
    out: EvalOutOption = Path("fopru-eval")
    retry: Annotated[bool, typer.Option("--retry", help="run samples again that failed before")] = False
    replace: ReplaceOption = False
    as_json: JsonOption = False
    nodes: NodesOption = None
    without: WithoutOption = None


@dataclass(frozen=True)
class TuneOptions(Changing):
    """The options of ``tune``."""

    files: FilesArgument
    task: TaskOption
    max_drop: Annotated[float, typer.Option(min=0, help="points of accuracy that may be lost against no pruning")] = 1.0
    ratio: Annotated[str | None, typer.Option(help="shares to choose from; the paper's nine without it")] = None
    sets: SetOption = None
    data: DataOption = None
    limit: LimitOption = None
    batch_size: BatchOption = 1
    out: EvalOutOption = Path("fopru-eval")
    as_json: JsonOption = False
    nodes: NodesOption = None
    without: WithoutOption = None
    retry: ClassVar[bool] = False  # no option: samples that failed before are left out
    replace: ClassVar[bool] = False


@dataclass(frozen=True)
class SweepOptions(Changing):
    """The options of ``sweep``, but for its files and ``--nodes``."""

    task: TaskOption
    ratio: RatioOption = None
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=V1,V2", help="values of an input to combine; quote one that has commas"),
    ] = None
    zipped: Annotated[bool, typer.Option("--zip", help="walk the lists in step instead of combining them")] = False
    data: DataOption = None
    limit: LimitOption = None
    out: EvalOutOption = Path("fopru-eval")
    jobs: Annotated[
        int | None, typer.Option(min=1, help="cells at a time; as many as GPUs, else up to two, without it")
    ] = None
    executor: Annotated[
        str,
        typer.Option(
            help="local, slurm; submitit-local: its way on this machine",
            autocompletion=lambda: ["local", "slurm", "submitit-local"],
        ),
    ] = "local"
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", metavar="NAME=VALUE", help="parameters of sbatch, e.g. partition=gpu")
    ] = None
    retry: Annotated[bool, typer.Option("--retry", help="run cells and samples again that failed before")] = False
    replace: ReplaceOption = False
    as_json: JsonOption = False
    batch_size: BatchOption = 1
    without: WithoutOption = None


@dataclass(frozen=True)
class ExportOptions:
    """The options of ``export``."""

    file: FileArgument
    to: Annotated[
        str, typer.Option(help="who reads it: safetensors (programs of your own), vllm, vllm-offline or sglang")
    ] = "safetensors"
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the file; without it one named after --to, here")
    ] = None
    ratio: Annotated[str | None, typer.Option(help="share of the visual tokens to keep")] = None
    positions: Annotated[
        str | None,
        typer.Option(help="renumbered, original, rebased as in LLMGenerate; row: Qwen-VL's as vLLM can number them"),
    ] = None
    sets: SetOption = None
    as_json: JsonOption = False
    nodes: NodesOption = None


def expand_options(command: Callable[..., int | None]) -> Callable[..., None]:
    """The command as Typer reads it: a parameter typed as a dataclass becomes one option for each of its fields.

    The number that ``command`` returns is the exit code; None is 0.

    >>> @app.command()
    ... @expand_options
    ... def bench(options: BenchOptions, model: ModelOptions) -> int: ...
    """
    groups: dict[str, type[Any]] = {}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if is_dataclass(group := parameter.annotation):
            groups[parameter.name] = group
            shown += _parameters(group)
        else:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        if code := command(**values):
            raise typer.Exit(code)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__signature__ = inspect.Signature(shown)
    return call


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    types = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=types[field.name],
        )
        for field in fields(group)
    ]
