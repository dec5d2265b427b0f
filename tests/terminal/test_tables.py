"""The tables of eval and sweep on a terminal of 80 columns: every figure whole, in the row of its pipeline."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fopru_graph.terminal import sweep, tables

NAMES = ("baseline", "fopru_no_reordering", "a_pipeline_of_mine_that_has_a_rather_long_name")


def printed(module, monkeypatch, width: int, show) -> list[str]:
    stream = io.StringIO()
    out = Console(file=stream, width=width, highlight=False, emoji=False)
    monkeypatch.setattr(module, "stdout_console", lambda: out)
    show()
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def summary(name: str, accuracy: float | None = 0.9167) -> dict:
    return {
        "pipeline": name, "task": "refcoco+_testA", "ratio": 0.5, "accuracy": accuracy, "ci": (0.38, 0.9951), "n": 5000,
        "errors": 0, "tokens": {"encoded": 2880, "kept": 1440.6, "final": 1127.8}, "ttft_ms": {"median": 1234.5},
        "samples_per_s": 12.84, "not_drawn": None,
    }  # fmt: skip


def rows_of(lines: list[str], figures: list[str]) -> int:
    return sum(all(figure in line.split("  ") or f" {figure}" in line for figure in figures) for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_every_figure_of_an_evaluation_is_whole(width, monkeypatch):
    summaries = [summary(name) for name in NAMES]
    lines = printed(tables, monkeypatch, width, lambda: tables.show_evaluation(summaries))
    assert rows_of(lines, ["50 %", "91.7", "38.0–99.5", "5000", "0"]) == 3
    assert rows_of(lines, ["50 %", "2880 → 1441 → 1128", "1234.5", "12.8"]) == 3
    assert "…" not in "".join(lines)


def test_a_wide_terminal_has_one_table(monkeypatch):
    summaries = [summary("baseline"), summary("fastv", None)]
    lines = printed(tables, monkeypatch, 200, lambda: tables.show_evaluation(summaries))
    assert rows_of(lines, ["91.7", "38.0–99.5", "2880 → 1441 → 1128", "12.8"]) == 1
    assert sum("Failed" in line for line in lines) == 1 and len(lines) == 4


def cell(name: str) -> dict:
    return {
        "pipeline": name, "task": "refcoco+_testA", "ratio": None, "settings": {"generate.max_new_tokens": 8},
        "state": "done", "accuracy": 0.9167, "n": 5000, "errors": 12, "started": 0.0, "ended": 3725.0, "error": None,
        "label": name,
    }  # fmt: skip


@pytest.mark.parametrize("width", [80, 120, 200])
def test_every_figure_of_a_sweep_is_whole(width, monkeypatch):
    cells = [cell(name) for name in NAMES]
    lines = printed(sweep, monkeypatch, width, lambda: sweep.show_sweep(cells))
    assert rows_of(lines, ["as written", "done", "91.7", "5000", "12", "1 h 02 min"]) == 3
    end = lines[0].index("task")
    told = "".join(line[:end].strip() for line in lines) if width < 200 else "".join(lines)
    assert told.count("generate.max_new_tokens=8") == 3
    assert "…" not in "".join(lines)
