"""A bench as tables on the terminal: time to first token, decoding and memory, and the stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fopru_graph.results.bench import STAGES, BenchResult, Gain, Variant
from fopru_graph.terminal.console import simple_table, stdout_console
from fopru_graph.terminal.format import milliseconds, percent, size


def show_bench(result: BenchResult, out: Console | None = None) -> None:
    """Print a bench on stdout, or on ``out``: three tables no wider than 80 columns, and notes on how to read them."""
    out = out or stdout_console()
    out.print(f"[bold]{escape(result.model)}[/] [dim]on {escape(machine_name(result.machine))}[/]\n")
    for table in (_first_token(result), _decoding(result), _stages(result)):
        out.print(table)
        out.print()
    for line in _remarks(result):
        out.print(line, soft_wrap=not out.is_terminal)  # files and pipes get whole lines


def machine_name(machine: Mapping[str, Any]) -> str:
    """Device and number type of a machine, e.g. ``NVIDIA A100, float16``."""
    parts = (machine.get("device_name") or machine.get("device"), machine.get("dtype"))
    return ", ".join(str(part) for part in parts if part) or "an unnamed machine"


def gain_text(gain: Gain | None, noise: Gain | None = None) -> Text:
    """The measured gain, e.g. ``1.63×``; green where its whole interval is above ``noise``, red where it is below.

    ``noise`` is the gain of the reference against itself: an interval that overlaps it shows no change.
    """
    if gain is None:
        return Text("–")
    low, high = (min(noise.low, 1), max(noise.high, 1)) if noise else (1, 1)
    return Text(f"{gain.measured:.2f}×", "green" if gain.low > high else "red" if gain.high < low else "")


def interval(gain: Gain | None, digits: int = 2) -> str:
    """The 95 % interval of a gain, e.g. ``1.60–1.66``; ``–`` for None."""
    return "–" if gain is None else f"{gain.low:.{digits}f}–{gain.high:.{digits}f}"


def visual_tokens(variant: Variant) -> str:
    """Visual tokens in the first and, where they are fewer, the last decoder layer, e.g. ``432→288``."""
    if not variant.visual_per_layer:
        return "–"
    first, last = variant.visual_per_layer[0], variant.visual_per_layer[-1]
    return str(first) if first == last else f"{first}→{last}"


def _table(title: str, *columns: str) -> Table:
    """A table in which only the first column, the pipeline, may break, so that numbers stay whole."""
    table = simple_table("pipeline", ">kept", *columns, title=title)
    for column in table.columns[1:]:
        column.no_wrap = True
    table.columns[0].overflow = "fold"
    return table


def _name(variant: Variant) -> tuple[str, str]:
    return escape(variant.pipeline), percent(variant.ratio)


def _first_token(result: BenchResult) -> Table:
    table = _table(
        "[bold]time to first token (TTFT)[/]",
        *(">TTFT\nms", ">p90\nms", ">gain", ">95 %\ninterval", ">ideal\ngain", ">ideal\nreached"),
    )
    for variant in result.variants:
        gain, p90 = variant.ttft_gain, Text(milliseconds(variant.ttft.p90), "dim")
        if variant.label == result.reference:
            entries: tuple[Text | str, ...] = Text(f"{gain.measured:.2f}×", "dim"), Text("reference", "dim"), "", ""
        else:
            gains = gain_text(gain, result.self_gain), interval(gain)
            entries = *gains, f"{gain.ideal:.2f}×", f"{100 * gain.reached:.0f} %"
        table.add_row(*_name(variant), milliseconds(variant.ttft.median), p90, *entries)
    return table


def _decoding(result: BenchResult) -> Table:
    counts = sorted({variant.new_tokens for variant in result.variants})
    new = f"{'/'.join(map(str, counts))} new tokens"
    table = _table(
        f"[bold]visual tokens, time per output token (TPOT), memory[/] [dim]({new})[/]",
        *(">visual\nfirst→last", ">TPOT\nms", ">TPOT\ngain", ">end to\nend ms", ">KV\ncache", ">peak\nmemory"),
    )
    for variant in result.variants:
        is_reference = variant.label == result.reference and variant.tpot_gain
        table.add_row(
            *_name(variant),
            visual_tokens(variant),
            milliseconds(variant.tpot.median if variant.tpot else None, 2),
            Text("1.00×", "dim") if is_reference else gain_text(variant.tpot_gain),
            milliseconds(variant.end_to_end.median),
            size(variant.kv_bytes),
            size(variant.peak_memory_bytes),
        )
    return table


def _stages(result: BenchResult) -> Table:
    table = _table("[bold]stages[/] [dim](medians, ms)[/]", *(f">{stage}" for stage in STAGES))
    for variant in result.variants:
        timings = (variant.stages.get(stage) for stage in STAGES)
        table.add_row(*_name(variant), *(milliseconds(timing.median if timing else None, 2) for timing in timings))
    return table


def _remarks(result: BenchResult) -> Iterator[str]:
    """Lines of markup: what was not measured, what gains are relative to, and how certain they are."""
    if result.interrupted:
        yield "[bold yellow]interrupted:[/] the figures are those of the rounds that were finished"
    for line in result.warnings:
        yield f"[bold yellow]warning:[/] {escape(line)}"
    for line in result.skipped:
        yield f"[yellow]not measured:[/] {escape(line)}"
    yield (
        f"[dim]gain:[/] median of {escape(result.reference)} ÷ median, with a 95 % bootstrap interval; "
        f"{result.rounds} rounds; ideal by arithmetic for TTFT, by bytes read for TPOT"
    )
    if result.self_gain is not None:
        noise = f"{interval(result.self_gain, 3)} against itself"
        yield f"[dim]noise:[/] {escape(result.reference)} measures {noise}; a difference inside it is no change"
    yield "[dim]TTFT:[/] from the pixels in memory to the first token's id; stage decode: all that follows"
    if loops := _loops(result.variants):
        yield f"[dim]loop:[/] {escape(loops)}"
    yield f"[dim]FLOPs:[/] {escape(result.convention)}"
    yield f"[dim]machine:[/] {escape(machine_line(result.machine))}"


def _loops(variants: Sequence[Variant]) -> str:
    """What drove the decoder in which variants, and what was done once, e.g. ``static, captured (baseline, fastv)``."""
    pipelines: dict[str, dict[str, None]] = {}
    for variant in variants:
        if variant.loop:
            name = f"{variant.loop}, captured" if variant.captured else variant.loop
            pipelines.setdefault(name, {})[variant.pipeline] = None
    told = "; ".join(f"{name} ({', '.join(names)})" for name, names in pipelines.items())
    once = max((variant.one_time_ms or 0.0 for variant in variants), default=0.0)
    return told and f"{told}; work done once took up to {milliseconds(once)} ms and is in no TPOT"


def machine_line(machine: Mapping[str, Any]) -> str:
    """The texts and numbers of a machine's description as one line; its lists and objects are left out."""
    facts = {key: value for key, value in machine.items() if isinstance(value, str | int | float)}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()) or "not described"
