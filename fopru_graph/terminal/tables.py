"""The figures of a run and of an evaluation as tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from fopru_graph.results.schema import failures
from fopru_graph.terminal.console import console, fits, folding, say, simple_table, stdout_console
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
    """Print one row per cell on stdout, and why samples failed on stderr.

    Where the terminal is too narrow for the whole row it is told in two tables: accuracy, then tokens and speed.
    """
    out = stdout_console()
    legend = "[dim]visual tokens: encoded → into the LLM → in its last layer, means[/]"
    whole = _evaluation_table(summaries, legend, {**_ACCURACY, **_SPEED})
    if fits(whole, out):
        out.print(whole)
    else:
        out.print(_evaluation_table(summaries, None, _ACCURACY))
        out.print()
        out.print(_evaluation_table(summaries, legend, _SPEED))
    for summary in summaries:
        if why := failures(summary):
            say((f"{summary['pipeline']} on {summary['task']}:", "yellow"), f" {why}")
        if summary["not_drawn"]:
            say((f"no pictures of {summary['pipeline']}:", "yellow"), f" {summary['not_drawn']}")


_Summary = Mapping[str, Any]


def _evaluation_table(
    summaries: Sequence[_Summary], title: str | None, columns: Mapping[str, Callable[[_Summary], str]]
) -> Table:
    table = simple_table("pipeline", "task", ">ratio", *columns, title=title)
    for summary in summaries:
        heads = escape(summary["pipeline"]), escape(summary["task"]), percent(summary["ratio"])
        table.add_row(*heads, *(entry(summary) for entry in columns.values()))
    return folding(table, "pipeline", "task")


def _accuracy(summary: _Summary) -> str:
    return "[red]Failed[/]" if summary["accuracy"] is None else f"{100 * summary['accuracy']:.1f}"


def _interval(summary: _Summary) -> str:
    low, high = summary["ci"]
    return "–" if summary["accuracy"] is None else f"{100 * low:.1f}–{100 * high:.1f}"


def _errors(summary: _Summary) -> str:
    return f"[red]{summary['errors']}[/]" if summary["errors"] else "0"


def _tokens(summary: _Summary) -> str:
    counts = [summary["tokens"][name] for name in ("encoded", "kept", "final")]
    return "–" if summary["accuracy"] is None else " → ".join(f"{count:.4g}" for count in counts)


_ACCURACY: Mapping[str, Callable[[_Summary], str]] = {
    ">accuracy": _accuracy,
    ">95 % interval": _interval,
    ">n": lambda summary: str(summary["n"]),
    ">errors": _errors,
}
_SPEED: Mapping[str, Callable[[_Summary], str]] = {
    ">visual tokens": _tokens,
    ">TTFT ms": lambda summary: milliseconds((summary["ttft_ms"] or {}).get("median")),
    ">samples/s": lambda summary: "–" if summary["samples_per_s"] is None else f"{summary['samples_per_s']:.1f}",
}
