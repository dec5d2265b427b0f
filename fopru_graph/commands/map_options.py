"""The options of ``map``. Imports nothing heavy, as `options`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fopru_graph.commands.options import FileArgument, JsonOption, NodesOption, SetOption


@dataclass(frozen=True)
class MapOptions:
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
