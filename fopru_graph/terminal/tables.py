"""The figures of a run and of an evaluation as tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from fopru_graph.results.schema import failures
from fopru_graph.terminal.console import console, say, simple_table, stdout_console
from fopru_graph.terminal.format import milliseconds, percent, size


def show_summary(summary: dict[str, Any], by_products: Iterable[str]) -> None:
    """Print tokens, times and memory of a run, the time of every node, and the outputs that are not its answers.

    Each node that generated has its row, named if there are several.
    """
    generations = {name: figures for name, figures in summary["generations"].items() if figures["visual_tokens"]}
    if generations:
        names = ["node"] if len(summary["generations"]) > 1 else []
        table = simple_table(
            *(*names, ">encoded", ">kept", ">final", ">layer average"),
            *(">TTFT ms", ">TPOT ms", ">KV cache", ">peak memory"),
        )
        where = dict.fromkeys(f"{figures['device']}, {figures['dtype']}" for figures in generations.values())
        table.title = f"[bold]visual tokens and speed[/] [dim]({'; '.join(where)})[/]"
        for name, figures in generations.items():
            tokens = figures["visual_tokens"]
            table.add_row(
                *([escape(name)] if names else []),
                *(str(tokens[key]) for key in ("encoded", "kept", "final", "layer_average")),
                milliseconds(figures["ttft_ms"]),
                milliseconds(figures["tpot_ms"]),
                size(figures["kv_bytes"]),
                size(summary["peak_memory_bytes"]),
            )
        console.print(table)
    table = simple_table("node", ">ms", "")
    for name, entry in summary["nodes"].items():
        table.add_row(escape(name), f"{entry['ms']:.1f}", "[dim]from cache[/]" if entry["cached"] else "")
    console.print(table)
    for name in by_products:
        say((name, "bold"), f" {summary['outputs'][name]}")


def show_evaluation(summaries: Sequence[Mapping[str, Any]]) -> None:
    """Print one row per cell on stdout, and why samples failed on stderr."""
    table = simple_table(
        *("pipeline", "task", ">ratio", ">accuracy", ">95 % interval", ">n", ">errors"),
        *(">visual tokens", ">TTFT ms", ">samples/s"),
        title="[dim]visual tokens: encoded → into the LLM → in its last layer, means[/]",
    )
    for summary in summaries:
        low, high = summary["ci"]
        ttft, failed = summary["ttft_ms"], summary["accuracy"] is None
        tokens = [summary["tokens"][name] for name in ("encoded", "kept", "final")]
        table.add_row(
            escape(summary["pipeline"]),
            escape(summary["task"]),
            percent(summary["ratio"]),
            "[red]Failed[/]" if failed else f"{100 * summary['accuracy']:.1f}",
            "–" if failed else f"{100 * low:.1f}–{100 * high:.1f}",
            str(summary["n"]),
            f"[red]{summary['errors']}[/]" if summary["errors"] else "0",
            "–" if failed else " → ".join(f"{count:.4g}" for count in tokens),
            milliseconds(ttft["median"] if ttft else None),
            "–" if summary["samples_per_s"] is None else f"{summary['samples_per_s']:.1f}",
        )
    stdout_console().print(table)
    for summary in summaries:
        if why := failures(summary):
            say((f"{summary['pipeline']} on {summary['task']}:", "yellow"), f" {why}")
        if summary["not_drawn"]:
            say((f"no pictures of {summary['pipeline']}:", "yellow"), f" {summary['not_drawn']}")
