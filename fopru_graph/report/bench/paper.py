"""The efficiency figures of the FoPru paper (Tables 1, 2 and 5), with ours beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fopru_graph.report.bench.table import gain_text, interval, machine_name
from fopru_graph.results.bench import BenchResult, Variant
from fopru_graph.terminal.console import simple_table, stdout_console
from fopru_graph.terminal.format import milliseconds, percent

# In the order in which they are measured: first the model that the paper says most about, last the largest.
PAPER_MODELS: dict[str, tuple[str, ...]] = {
    "LLaVA-1.5-7B": ("random:llava-1.5-7b", "llava-hf/llava-1.5-7b-hf"),
    "LLaVA-1.6-7B": ("random:llava-1.6-7b", "llava-hf/llava-v1.6-vicuna-7b-hf"),
    "LLaVA-NeXT-8B": ("random:llava-next-8b", "llava-hf/llama3-llava-next-8b-hf"),
    "LLaVA-1.6-13B": ("random:llava-1.6-13b", "llava-hf/llava-v1.6-vicuna-13b-hf"),
}

# The names of the methods in the paper, and our pipelines for them; PruMerge has none yet.
_METHODS = {
    "no pruning": "baseline",
    "FoPru": "fopru_rank",
    "FoPru (row)": "fopru_row",
    "FastV": "fastv",
    "FoPru+FastV": "fopru_fastv",
    "PruMerge": None,
    "PruMerge+": None,
}
CAPTIONS = {
    1: "Table 1: FoPru with the rank strategy",
    2: "Table 2: FoPru (rank) beside other methods",
    5: "Table 5: FoPru with the row strategy",
}
TTFT_COLUMNS = (">TTFT ms\npaper", ">gain\npaper", ">TTFT ms\nours", ">gain\nours", ">95 %\ninterval", ">ideal\nours")
DECODING_COLUMNS = (">TPOT ms\npaper", ">gain\npaper", ">TPOT ms\nours", ">gain\nours", ">GB\npaper", ">GiB\nours")
_WIDE = 120  # columns of a terminal that has room for both halves side by side
NOTES = (
    "The paper names no hardware, number type or batch size of its timings; it says that efficiency was measured on "
    "POPE and that all experiments ran on the LMMS-Eval platform. Milliseconds are therefore not comparable with ours, "
    "gains are.",
    "Nor does it say what its GB count; ours are the peak memory in GiB. PruMerge and PruMerge+ choose the ratio "
    "themselves, and there is no pipeline of ours for them.",
)


@dataclass(frozen=True)
class PaperFigures:
    """What a row of the paper prints: TTFT and TPOT in ms, the gains over no pruning, and GB of GPU memory.

    Gains are None in rows without pruning; ``note`` says what is odd about the printed figures.
    """

    ttft_ms: int
    ttft_gain: float | None
    tpot_ms: float
    tpot_gain: float | None
    memory_gb: float
    note: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of one of the paper's tables; ``ratio`` is the retention ratio, None where the method chooses it."""

    method: str
    ratio: float | None
    paper: PaperFigures | None
    ours: Variant | None

    @property
    def kept(self) -> str:
        """The ratio as text."""
        return "dynamic" if self.ratio is None and self.paper else percent(self.ratio)


@dataclass(frozen=True)
class Block:
    """One model in one of the paper's tables, and the bench that our figures come from."""

    table: int
    model: str
    result: BenchResult | None
    rows: tuple[Row, ...]


_ODD = "printed so; by its own milliseconds it is 94 ÷ 88 = 1.07"

# By table and model, as printed: method, ratio, TTFT ms, S_p, TPOT ms, S_p, GB. Tables 1 and 5 share their first rows.
_PRINTED: dict[tuple[int, str], tuple[tuple[Any, ...], ...]] = {
    (1, "LLaVA-NeXT-8B"): (
        ("no pruning", 1.0, 94, None, 25.61, None, 17.88),
        ("FoPru", 0.75, 88, 1.18, 25.40, 1.01, 17.33, _ODD),
        ("FoPru", 0.50, 57, 1.66, 24.80, 1.03, 16.98),
        ("FoPru", 0.25, 52, 1.83, 24.05, 1.07, 16.98),
    ),
    (1, "LLaVA-1.6-7B"): (
        ("no pruning", 1.0, 88, None, 23.70, None, 16.15),
        ("FoPru", 0.75, 81, 1.09, 23.55, 1.01, 15.44),
        ("FoPru", 0.50, 60, 1.47, 23.05, 1.03, 14.81),
        ("FoPru", 0.25, 50, 1.78, 21.97, 1.08, 14.57),
    ),
    (1, "LLaVA-1.6-13B"): (
        ("no pruning", 1.0, 198, None, 38.30, None, 29.53),
        ("FoPru", 0.75, 153, 1.29, 36.06, 1.06, 28.53),
        ("FoPru", 0.50, 116, 1.70, 33.35, 1.15, 27.53),
        ("FoPru", 0.25, 79, 2.52, 30.94, 1.24, 26.54),
    ),
    (2, "LLaVA-1.5-7B"): (
        ("no pruning", 1.0, 74, None, 27.71, None, 13.91),
        ("PruMerge", None, 47, 1.59, 21.95, 1.26, 13.35),
        ("PruMerge+", None, 74, 1.00, 21.82, 1.27, 13.46),
        ("FastV", 0.75, 69, 1.07, 27.40, 1.01, 13.81),
        ("FoPru", 0.75, 62, 1.20, 21.45, 1.29, 13.76),
        ("FastV", 0.50, 59, 1.26, 27.16, 1.02, 13.69),
        ("FoPru", 0.50, 49, 1.52, 21.41, 1.29, 13.61),
        ("FastV", 0.25, 51, 1.44, 27.28, 1.02, 13.52),
        ("FoPru+FastV", 0.25, 49, 1.50, 27.12, 1.02, 13.51),
        ("FoPru", 0.25, 38, 1.97, 20.89, 1.33, 13.51),
    ),
    (5, "LLaVA-NeXT-8B"): (
        ("no pruning", 1.0, 94, None, 25.61, None, 17.88),
        ("FoPru (row)", 0.75, 74, 1.28, 24.72, 1.04, 17.28),
        ("FoPru (row)", 0.50, 62, 1.52, 24.57, 1.04, 16.98),
        ("FoPru (row)", 0.25, 53, 1.78, 23.67, 1.08, 16.98),
    ),
    (5, "LLaVA-1.6-7B"): (
        ("no pruning", 1.0, 88, None, 23.70, None, 16.15),
        ("FoPru (row)", 0.75, 76, 1.17, 23.48, 1.01, 15.40),
        ("FoPru (row)", 0.50, 53, 1.67, 23.10, 1.03, 14.75),
        ("FoPru (row)", 0.25, 52, 1.71, 22.82, 1.04, 14.57),
    ),
    (5, "LLaVA-1.6-13B"): (
        ("no pruning", 1.0, 198, None, 38.30, None, 29.53),
        ("FoPru (row)", 0.75, 153, 1.29, 35.66, 1.07, 28.44),
        ("FoPru (row)", 0.50, 110, 1.80, 33.16, 1.15, 27.48),
        ("FoPru (row)", 0.25, 76, 2.61, 30.84, 1.24, 26.42),
    ),
}


def show_paper(results: Sequence[BenchResult], unmeasured: Mapping[str, str], out: Console | None = None) -> None:
    """Print the paper's three tables with our figures beside them, on stdout or on ``out``.

    Models that the paper lacks come after those that it has. ``unmeasured`` says why we have no figures of a model.
    """
    out = out or stdout_console()
    caption = None
    for block in blocks(results):
        if caption != CAPTIONS[block.table]:
            caption = CAPTIONS[block.table]
            out.print(f"[bold underline]{caption}[/]\n")
        for table in _tables(block, out.width):
            out.print(table)
        for line in below(block, unmeasured):
            out.print(line, soft_wrap=not out.is_terminal)
        out.print()
    for line in NOTES:
        out.print(f"[dim]{line}[/]", soft_wrap=not out.is_terminal)


def paper_json(results: Sequence[BenchResult]) -> list[dict[str, Any]]:
    """The rows that `show_paper` prints as JSON objects; ``paper`` or ``ours`` is null where there are no figures."""
    return [
        {
            "table": block.table,
            "model": block.model,
            "method": row.method,
            "pipeline": _METHODS[row.method],
            "ratio": row.ratio,
            "paper": asdict(row.paper) if row.paper else None,
            "ours": _ours_json(block.result, row.ours) if block.result and row.ours else None,
        }
        for block in blocks(results)
        for row in block.rows
    ]


def _ours_json(result: BenchResult, variant: Variant) -> dict[str, Any]:
    figures = variant.to_json()
    keys = ("ttft_gain", "ttft_gain_ci", "ttft_gain_ideal", "tpot_gain", "tpot_gain_ci", "tpot_gain_ideal")
    return {
        "model": result.model,
        "machine": dict(result.machine),
        "ttft_ms": variant.ttft.median,
        "tpot_ms": variant.tpot.median if variant.tpot else None,
        **{key: figures[key] for key in (*keys, "step_bytes", "peak_memory_bytes")},
    }


def blocks(results: Sequence[BenchResult]) -> Iterator[Block]:
    """Table by table: the paper's models with a block for each of our benches, then the models that it lacks."""
    known = {name for names in PAPER_MODELS.values() for name in names}
    for table in CAPTIONS:
        for model in (model for number, model in _PRINTED if number == table):
            benches: list[BenchResult | None] = [result for result in results if result.model in PAPER_MODELS[model]]
            for bench in benches or [None]:
                rows = (
                    Row(method, ratio, PaperFigures(*figures), _measured(bench, method, ratio))
                    for method, ratio, *figures in _PRINTED[table, model]
                )
                yield Block(table, model, bench, tuple(rows))
        for result in results:
            if result.model not in known and (ours := tuple(_our_rows(table, result))):
                yield Block(table, result.model, result, ours)


def _measured(result: BenchResult | None, method: str, ratio: float | None) -> Variant | None:
    """Our variant of a row."""
    if result is None or ratio is None:
        return None
    for variant in result.variants:
        ours = _ratio(variant)
        if variant.pipeline == _METHODS[method] and ours is not None and math.isclose(ours, ratio, abs_tol=1e-3):
            return variant
    return None


def _ratio(variant: Variant) -> float | None:
    """The ratio of a variant; the baseline has none that could be set, but keeps every token."""
    return 1.0 if variant.pipeline == "baseline" else variant.ratio


def _our_rows(table: int, result: BenchResult) -> Iterator[Row]:
    """Every variant that runs a pipeline of a table, on a model that the paper lacks."""
    methods = {row[0] for (number, _), rows in _PRINTED.items() if number == table for row in rows}
    named = {_METHODS[method]: method for method in methods}
    for variant in result.variants:
        if variant.pipeline in named:
            yield Row(named[variant.pipeline], _ratio(variant), None, variant)


def _tables(block: Block, width: int) -> Iterator[Table]:
    """The block as one table where the console is wide enough, else one of TTFT and one of TPOT and memory."""
    halves = (slice(len(TTFT_COLUMNS)), slice(len(TTFT_COLUMNS), None))
    for part in (slice(None),) if width >= _WIDE else halves:
        table = simple_table(
            "method", ">kept", *(TTFT_COLUMNS + DECODING_COLUMNS)[part], title=f"[bold]{escape(block.model)}[/]"
        )
        for column in table.columns:
            column.no_wrap = True
            column.style = "dim" if str(column.header).endswith("paper") else ""
        for row in block.rows:
            table.add_row(row.method, row.kept, *cells(block, row)[part])
        yield table


def cells(block: Block, row: Row) -> tuple[str | Text, ...]:
    """The entries of a row below `TTFT_COLUMNS` and `DECODING_COLUMNS`."""
    return *_ttft(block, row), *_decoding(block, row)


def _ttft(block: Block, row: Row) -> tuple[str | Text, ...]:
    paper = (str(row.paper.ttft_ms), _times(row.paper.ttft_gain, row.paper.note)) if row.paper else ("–", "–")
    if block.result is None or row.ours is None:
        return (*paper, *"––––")
    gain = None if row.ours.label == block.result.reference else row.ours.ttft_gain
    ours = milliseconds(row.ours.ttft.median), gain_text(gain, block.result.self_gain), interval(gain)
    return (*paper, *ours, _times(gain.ideal if gain else None))


def _decoding(block: Block, row: Row) -> tuple[str | Text, ...]:
    paper: tuple[str, ...] = ("–",) * 3
    ours: tuple[str | Text, ...] = ("–",) * 3
    if row.paper:
        paper = milliseconds(row.paper.tpot_ms, 2), _times(row.paper.tpot_gain), f"{row.paper.memory_gb:.2f}"
    if block.result and row.ours:
        gain = None if row.ours.label == block.result.reference else row.ours.tpot_gain
        tpot = milliseconds(row.ours.tpot.median if row.ours.tpot else None, 2)
        ours = tpot, gain_text(gain), f"{row.ours.peak_memory_bytes / 2**30:.2f}"
    return *paper[:2], *ours[:2], paper[2], ours[2]


def _times(gain: float | None, note: str | None = None) -> str:
    return "–" if gain is None else f"{gain:.2f}×{'*' if note else ''}"


def below(block: Block, unmeasured: Mapping[str, str]) -> Iterator[str]:
    """Lines of markup under a block: where our figures come from or why there are none, and notes on the paper's."""
    result = block.result
    if result is None:
        reason = unmeasured.get(block.model, "no bench of this model was given")
        yield f"[yellow]ours: not measured:[/] {escape(reason)}"
    else:
        noise = f"; it measures {interval(result.self_gain, 3)} against itself" if result.self_gain else ""
        about = f"{result.model} on {machine_name(result.machine)}; gains relative to {result.reference}{noise}"
        yield f"[dim]ours: {escape(about)}[/]" + (" [bold yellow]interrupted[/]" if result.interrupted else "")
    for row in block.rows:
        if row.paper and row.paper.note:
            yield f"[dim]* {row.method} {percent(row.ratio)}: {row.paper.note}[/]"
