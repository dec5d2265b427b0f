"""How fast ours is beside what one would pick instead: ``python benchmarks/peers/run.py``; see README.md beside it."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import rich.console  # noqa: E402
import rich.table  # noqa: E402

from benchmarks.peers.environments import Environments, Unavailable  # noqa: E402
from benchmarks.peers.peers import MODELS, PEERS, Worker, rows_of  # noqa: E402
from benchmarks.peers.rounds import Failed, Measured, Process, measure  # noqa: E402
from benchmarks.peers.table import HEADER, caption, cells, markdown, rows_as_json  # noqa: E402
from benchmarks.peers.workers.protocol import VISUAL_TOKENS  # noqa: E402
from fopru_graph.measure.machine import machine_facts  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; returns 1 if no row was measured."""
    given = _parser().parse_args(arguments)
    console = rich.console.Console(stderr=True)
    given.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cpu": machine_facts("cpu", "")["device_name"],
        "threads": given.threads,
        "rounds": given.rounds,
        "new_tokens": given.new_tokens,
        "models": {},
    }
    environments = Environments(given.cache, console.print)
    try:
        _measure_all(given, environments, result, console)
    except KeyboardInterrupt:
        console.print("interrupted: the tables hold the rounds before it")
    _show(result)
    return int(not any(row["ttft_ms"] for rows in result["models"].values() for row in rows))


def _measure_all(
    given: argparse.Namespace, environments: Environments, result: dict[str, Any], console: rich.console.Console
) -> None:
    """Put the rows of every model into ``result`` and on disk."""
    for model in given.models:

        def start(worker: Worker, model: str = model) -> Process:
            try:
                python, folder = environments.ready(worker, model)
            except Unavailable as error:
                raise Failed(str(error)) from error
            module = f"benchmarks.peers.workers.{worker.module}"
            command = [str(python), "-m", module, str(folder), worker.weights, str(given.threads)]
            return Process(command, given.threads, given.out / f"{model}-{worker.peer}-{worker.weights}.log")

        def keep(measured: list[Measured], text: str, model: str = model) -> None:
            console.print(f"{model}: {text}")
            result["models"][model] = rows_as_json(measured, VISUAL_TOKENS)
            (given.out / "peers.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            (given.out / "peers.md").write_text(markdown(result) + "\n", encoding="utf-8")

        measure(rows_of(model, tuple(given.peers)), start, given.rounds, given.new_tokens, keep)


def _show(result: dict[str, Any]) -> None:
    console = rich.console.Console()
    console.print(caption(result))
    for model, rows in result["models"].items():
        table = rich.table.Table(*HEADER, title=model)
        for row in rows:
            table.add_row(*cells(row))
        console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--new-tokens", type=int, default=32, help="length of every answer")
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of every peer")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "peers", help="environments and models, kept")
    parser.add_argument("--out", type=Path, default=Path("fopru-bench") / "peers", help="peers.json, peers.md and logs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
