"""Arguments and options that several commands share, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FileArgument = Annotated[Path, typer.Argument(help="a pipeline's YAML file", show_default=False)]
NodesOption = Annotated[
    list[Path] | None, typer.Option("--nodes", help="folder or file with nodes of your own (is run)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON for machines")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="set a pipeline input, or NODE.INPUT=VALUE")
]
FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE…", help="pipelines to compare", show_default=False)]
TaskOption = Annotated[
    str, typer.Option("--task", help="names of tasks between commas; `fopru-graph tasks` lists them")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="[TASK=]PATH", help="records of your own: a JSONL or parquet file, or a folder"),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="only the first so many samples of each task")]
EvalOutOption = Annotated[Path, typer.Option(help="folder for results; what is there already is not done again")]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; sets it in every LoadModel")]
DtypeOption = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16, likewise")]
AttentionOption = Annotated[str | None, typer.Option("--attn", help="sdpa, eager or flash_attention_2, likewise")]
