"""The options of each command as one value, in the order of its help. Imports nothing heavy, as `options`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from fopru_graph.commands.completion import pipeline_lists, pipeline_names
from fopru_graph.commands.options import (
    BatchOption,
    Changing,
    DataOption,
    EvalOutOption,
    FileArgument,
    FilesArgument,
    JsonOption,
    LimitOption,
    NodesOption,
    OptionalFileArgument,
    OptionalFilesArgument,
    RatioOption,
    ReplaceOption,
    SetOption,
    TaskOption,
    WithoutOption,
)
from fopru_graph.commands.shipped import find_pipeline, find_pipelines


@dataclass(frozen=True)
class RunOptions(Changing):
    """The options of ``run``."""

    file: Annotated[
        Path,
        typer.Argument(
            help="a pipeline's file (YAML, or JSON of ComfyUI), the name of one that ships, or the run.json of an "
            "earlier run",
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

    files: OptionalFilesArgument = None
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
class CompareOptions(Changing):
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
    without: WithoutOption = None


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
class MapOptions(Changing):
    """The options of ``map``."""

    file: FileArgument
    over: Annotated[
        Path,
        typer.Option(
            metavar="DIR|FILE",
            help="the rows: a folder of pictures or of parquet files, or a .parquet or .jsonl file",
            show_default=False,
        ),
    ]
    into: Annotated[
        Path, typer.Option(help="folder for part files; what is there already is not done again", show_default=False)
    ]
    read: Annotated[
        list[str] | None,
        typer.Option(
            "--read", metavar="NAME=COLUMN", help="column of the image, and of the prompt; image=path without it"
        ),
    ] = None
    write: Annotated[
        list[str] | None,
        typer.Option(
            "--write",
            metavar="NAME",
            help="text (without it), visual_tokens, new_tokens, kv_bytes, ttft_ms, prefill_ms, tpot_ms or positions",
        ),
    ] = None
    key: Annotated[str, typer.Option("--id", metavar="COLUMN", help="column that tells rows apart")] = "path"
    sets: SetOption = None
    workers: Annotated[
        int | None, typer.Option(min=1, help="models at a time; as many as GPUs, else up to two, without it")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="rows that go through the pipeline together")] = 1
    engine: Annotated[str, typer.Option(help="local, slurm, ray; submitit-local: Slurm's way on this machine")] = (
        "local"
    )
    slurm: Annotated[
        list[str] | None, typer.Option("--slurm", metavar="NAME=VALUE", help="parameters of sbatch, e.g. partition=gpu")
    ] = None
    patience: Annotated[float, typer.Option(min=0, help="ray: minutes without a new row before it gives up")] = 20
    part_rows: Annotated[int, typer.Option(min=1, help="rows of a part file: what a kill can cost")] = 1000
    retry: Annotated[bool, typer.Option("--retry", help="answer rows again that failed before")] = False
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
class ExportOptions(Changing):
    """The options of ``export``."""

    file: OptionalFileArgument = None
    to: Annotated[
        str | None,
        typer.Option(
            help="who reads it: safetensors (programs of your own), vllm, vllm-offline or sglang",
            show_default="safetensors",
        ),
    ] = None
    comfy_api: Annotated[
        bool, typer.Option("--comfy-api", help="write the pipeline as ComfyUI's API JSON; nothing runs")
    ] = False
    comfy_workflow: Annotated[
        bool, typer.Option("--comfy-workflow", help="write it as a workflow of ComfyUI's canvas; nothing runs")
    ] = False
    comfy_pack: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="write the node pack for ComfyUI, with all pipelines, into this folder"),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="the file; without it one named after --to or after FILE, here"),
    ] = None
    ratio: Annotated[str | None, typer.Option(help="share of the visual tokens to keep")] = None
    positions: Annotated[
        str | None,
        typer.Option(help="renumbered, original, rebased as in LLMGenerate; row: Qwen-VL's as vLLM can number them"),
    ] = None
    sets: SetOption = None
    as_json: JsonOption = False
    nodes: NodesOption = None
    without: WithoutOption = None


@dataclass(frozen=True)
class ServeOptions(Changing):
    """The options of ``serve``."""

    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE…]",
            help="pipelines to serve: files, or names of those that ship; without it, all that ship",
            callback=find_pipelines,
            autocompletion=pipeline_names,
            show_default=False,
        ),
    ] = None
    host: Annotated[str, typer.Option(help="address to listen on; one that others can reach needs --token")] = (
        "127.0.0.1"
    )
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0 takes any that is free")] = 8188
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="FOPRU_GRAPH_TOKEN",
            help="what requests have to show: Authorization: Bearer TEXT, or ?token=TEXT once in a browser",
        ),
    ] = None
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="a name of the server besides localhost, as behind a proxy"),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="where it keeps its files  [default: the user's state folder]"),
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="questions that are answered together")] = 8
    batch_window: Annotated[
        float, typer.Option(min=0, metavar="MS", help="milliseconds that a question waits for others to go with")
    ] = 5.0
    allow_http_images: Annotated[
        bool, typer.Option("--allow-http-images", help="fetch pictures from public web addresses in requests")
    ] = False
    no_canvas: Annotated[bool, typer.Option("--no-canvas", help="leave ComfyUI's frontend out")] = False
    sets: SetOption = None
    as_json: Annotated[bool, typer.Option("--json", help="print address and models as JSON once it listens")] = False
    nodes: NodesOption = None
    without: WithoutOption = None
