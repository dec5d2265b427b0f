"""Answers with and without pruning side by side on the terminal, with small maps of what was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.columns import Columns
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fopru_graph.terminal.console import simple_table, stdout_console
from fopru_graph.terminal.format import milliseconds, percent

Row = Mapping[str, Any]  # label, tokens, text, ttft_ms, total_ms, same, error; map: lines of text


def show_question(image: str, prompt: str, rows: Sequence[Row], error: str | None) -> None:
    """Print a question about a picture and a row for each answer, the unpruned one first, and maps below."""
    console = stdout_console()
    console.print(Text.assemble((image, "bold"), "  ", prompt))
    if error is not None:
        console.print(Text.assemble(("not asked: ", "red"), error))
    if rows:
        console.print(_answers(rows))
        maps = [_map(row) for row in rows if row["map"]]
        if maps:
            console.print(Columns(maps, padding=(0, 3)))
    console.print()


def _answers(rows: Sequence[Row]) -> Table:
    table = simple_table("pipeline", "answer (≠: changed)", ">visual tokens", ">TTFT ms", ">time ms")
    table.columns[1].ratio = 1
    table.columns[1].overflow = "fold"
    for row in rows:
        if row["error"] is not None:
            table.add_row(escape(row["label"]), Text(f"no answer: {row['error']}", "red"), "–", "–", "–")
            continue
        table.add_row(
            escape(row["label"]),
            Text(f"≠ {row['text']}", "yellow") if row["same"] is False else Text(row["text"]),
            row["tokens"],
            milliseconds(row["ttft_ms"]),
            milliseconds(row["total_ms"]),
        )
    return table


def _map(row: Row) -> Text:
    return Text.assemble((f"{row['label']}\n", "dim"), "\n".join(row["map"]), no_wrap=True)


def show_comparison(summary: Sequence[Mapping[str, Any]], questions: int) -> None:
    """Print one row a pipeline over all questions; times as shares of the unpruned model's."""
    table = simple_table(
        *("pipeline", ">tokens left", ">TTFT ms", ">time ms", ">same answer"),
        title=f"[bold]all {questions} questions[/] [dim](medians, and shares of the unpruned model's)[/]",
    )
    for row in summary:
        table.add_row(
            escape(row["label"]),
            percent(row["share"]),
            _beside_unpruned(row["ttft_ms"], row["ttft_share"]),
            _beside_unpruned(row["total_ms"], row["total_share"]),
            "–" if row["same"] is None else f"{row['same']} of {row['answered']}",
        )
    stdout_console().print(table)


def _beside_unpruned(value: float | None, share: float | None) -> str:
    return milliseconds(value) if share is None else f"{milliseconds(value)} ({100 * share:.0f} %)"
