"""A bench as files: all of it as JSON, a CSV for spreadsheets, a LaTeX table for papers, and a picture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.report.bench.plot import bench_picture
from fopru_graph.report.bench.table import interval, machine_name, visual_tokens
from fopru_graph.report.text_tables import csv_table, latex_escaped, latex_table
from fopru_graph.results.bench import STAGES, BenchResult, Gain, Variant
from fopru_graph.results.schema import Timing
from fopru_graph.terminal.format import milliseconds, percent, size

_TEX_COLUMNS = (
    *("Pipeline", "Kept", "TTFT (ms)", "Gain", r"95\,\% interval", "Ideal", "Reached"),
    *("Visual tokens", "TPOT (ms)", "Gain", "End to end (ms)", "KV cache", "Peak memory"),
)


def write_bench(result: BenchResult, folder: str | Path) -> list[Path]:
    """Write ``bench.json``, ``.csv``, ``.tex``, ``.png`` and ``.svg`` and return their paths.

    The folder is made where it is missing. Files of an earlier bench are replaced; a reader never sees half of one.

    Raises:
        UserError: the files cannot be written there.
    """
    folder = Path(folder)
    contents: dict[str, bytes | str] = {
        **_bench_json(result),
        "bench.csv": bench_csv(result),
        "bench.tex": bench_tex(result),
        "bench.png": bench_picture(result, "png"),
        "bench.svg": bench_picture(result, "svg"),
    }
    return write_files(contents, folder)


def read_bench(folder: Path) -> BenchResult | None:
    """The bench in a folder; None where there is none that this version wrote."""
    try:
        return BenchResult.from_json(json.loads((folder / "bench.json").read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_bench(result: BenchResult, folder: Path) -> None:
    """Write ``bench.json`` alone, which is cheap enough to do while measuring; errors as in `write_bench`."""
    write_files(_bench_json(result), folder)


def write_files(contents: Mapping[str, bytes | str], folder: Path) -> list[Path]:
    """Write texts and pictures by file name and return their paths; see `write_bench`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            write_atomically(folder / name, data)
    except OSError as error:
        raise UserError(
            f"the results cannot be written to '{folder}': {error.strerror or error}",
            "choose another folder with --out",
        ) from error
    return [folder / name for name in contents]


def _bench_json(result: BenchResult) -> dict[str, str]:
    return {"bench.json": json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n"}


def bench_csv(result: BenchResult) -> str:
    """One row per variant; units are in the columns' names, what was not measured is empty."""
    memory = dict.fromkeys(kind for variant in result.variants for kind in variant.memory)
    return csv_table([_record(result, variant, memory) for variant in result.variants])


def _record(result: BenchResult, variant: Variant, memory: Iterable[str]) -> dict[str, Any]:
    visual = variant.visual_per_layer or (None,)
    record: dict[str, Any] = {
        "model": result.model,
        "pipeline": variant.pipeline,
        "ratio": variant.ratio,
        "is_reference": int(variant.label == result.reference),
        **_timing("ttft", variant.ttft),
        **_timing("ttft_with_preprocessing", variant.ttft_with_preprocessing),
        **_timing("tpot", variant.tpot),
        **_timing("end_to_end", variant.end_to_end),
        **_gain("ttft_gain", variant.ttft_gain),
        **_gain("tpot_gain", variant.tpot_gain),
        "visual_tokens_first_layer": visual[0],
        "visual_tokens_last_layer": visual[-1],
        "visual_tokens_layer_average": None if visual[0] is None else sum(visual) / len(visual),
        "new_tokens": variant.new_tokens,
        "kv_bytes": variant.kv_bytes,
        "peak_memory_bytes": variant.peak_memory_bytes,
        "loop": variant.loop,
        "captured": int(variant.captured),
        "positions": variant.positions,
        "one_time_ms": variant.one_time_ms,
    }
    record |= {f"peak_{kind}_bytes": variant.memory.get(kind) for kind in memory}
    for stage in STAGES:
        record |= _timing(stage, variant.stages.get(stage))
    return record | {f"{stage}_flops": variant.flops.get(stage) for stage in STAGES[:-1]}


def _timing(name: str, timing: Timing | None) -> dict[str, float | None]:
    median, p90, n = (timing.median, timing.p90, timing.n) if timing else (None, None, None)
    return {f"{name}_median_ms": median, f"{name}_p90_ms": p90, f"{name}_n": n}


def _gain(name: str, gain: Gain | None) -> dict[str, float | None]:
    """A gain, its 95 % interval and its ideal."""
    measured, low, high, ideal = (gain.measured, gain.low, gain.high, gain.ideal) if gain else (None,) * 4
    return {name: measured, f"{name}_ci_low": low, f"{name}_ci_high": high, f"{name}_ideal": ideal}


def bench_tex(result: BenchResult) -> str:
    """A ``tabular`` of the package booktabs, to be used with ``\\input``; comments on top say how."""
    rows = [tuple(map(latex_escaped, _entries(variant, result.reference))) for variant in result.variants]
    return latex_table("l" + "r" * (len(_TEX_COLUMNS) - 1), _TEX_COLUMNS, [rows], _comments(result))


def _comments(result: BenchResult) -> list[str]:
    r"""How to ``\input`` the table with a caption, and what was not measured."""
    about = f"{result.model} on {machine_name(result.machine)}, {result.rounds} rounds"
    noise = f"; it measures {interval(result.self_gain, 3)} against itself" if result.self_gain else ""
    caption = f"Medians on {about}. Gains are relative to {result.reference}{noise}."
    return [
        r"  \begin{table}\centering",
        r"    \resizebox{\linewidth}{!}{\input{bench.tex}}",
        rf"    \caption{{{latex_escaped(caption)}}}",
        r"  \end{table}",
        *(["Interrupted: the figures are those of the rounds that were finished."] if result.interrupted else []),
        *(f"Warning: {line}" for line in result.warnings),
        *(f"Not measured: {line}" for line in result.skipped),
    ]


def _entries(variant: Variant, reference: str) -> tuple[str, ...]:
    """A row of the LaTeX table, not yet escaped; the gain of the reference is 1 by definition, without interval."""
    gain, tpot = variant.ttft_gain, variant.tpot_gain
    compared = interval(gain), f"{gain.ideal:.2f}×", f"{100 * gain.reached:.0f} %"
    return (
        *(variant.pipeline, percent(variant.ratio), milliseconds(variant.ttft.median), f"{gain.measured:.2f}×"),
        *(("–",) * 3 if variant.label == reference else compared),
        visual_tokens(variant),
        milliseconds(variant.tpot.median if variant.tpot else None, 2),
        f"{tpot.measured:.2f}×" if tpot else "–",
        milliseconds(variant.end_to_end.median),
        *(size(variant.kv_bytes), size(variant.peak_memory_bytes)),
    )
