"""What was measured as JSON values, and the tables that are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.peers.peers import OURS
from benchmarks.peers.rounds import Measured
from fopru_graph.results.statistics import gain, timing

HEADER = ("peer", "weights", "visual tokens", "TTFT ms", "TPOT ms", "peak MiB", "ours ÷ it: TTFT", "TPOT", "versions")
_LIKE = {"int8": "bfloat16"}  # ours has no int8 weights: the nearest type


def rows_as_json(measured: Sequence[Measured], visual_tokens: int) -> list[dict[str, Any]]:
    """One object per row; ``ours_over_this`` holds ratios of medians with their 95 % bootstrap interval over rounds.

    They compare ours at the pruned share with the row, weights of the same type.
    """
    return [
        {
            "peer": entry.row.name,
            "weights": entry.row.weights,
            "visual_tokens": round(visual_tokens * entry.row.keep),
            "versions": entry.versions,
            "note": entry.note,
            "failed": entry.failed,
            "peak_bytes": entry.peak_bytes,
            "ttft_ms": _timing(entry.ttft),
            "tpot_ms": _timing(entry.tpot),
            "ours_over_this": _over(_pruned_ours(measured, entry), entry),
        }
        for entry in measured
    ]


def _pruned_ours(measured: Sequence[Measured], other: Measured) -> Measured | None:
    weights = _LIKE.get(other.row.weights, other.row.weights)
    matching = (entry for entry in measured if (entry.row.name, entry.row.weights) == (OURS, weights))
    return next((entry for entry in matching if entry is not other), None)


def _timing(milliseconds: Sequence[float]) -> dict[str, float] | None:
    if not milliseconds:
        return None
    times = timing(milliseconds)
    return {"median": times.median, "p90": times.p90, "n": times.n}


def _over(ours: Measured | None, other: Measured) -> dict[str, list[float]]:
    """Ratios as [median, low, high], where both have been measured."""
    ratios = {}
    for name in ("ttft", "tpot"):
        theirs, our_times = getattr(other, name), getattr(ours, name, [])
        if theirs and our_times:
            found = gain([[ms] for ms in our_times], [[ms] for ms in theirs], 1.0)
            ratios[name] = [found.measured, found.low, found.high]
    return ratios


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The cells of a row under `HEADER`; one that was not measured says why."""
    versions = " ".join(f"{name} {version}" for name, version in row["versions"].items())
    said = "; ".join(filter(None, (versions, row["note"], row["failed"] and f"not measured: {row['failed']}")))
    peak = row["peak_bytes"]
    return (
        row["peer"],
        row["weights"],
        str(row["visual_tokens"]),
        _number(row["ttft_ms"], 0),
        _number(row["tpot_ms"], 1),
        "–" if peak is None else f"{peak / 2**20:.0f}",
        _ratio(row["ours_over_this"].get("ttft")),
        _ratio(row["ours_over_this"].get("tpot")),
        said,
    )


def _number(times: Mapping[str, float] | None, digits: int) -> str:
    return "–" if times is None else f"{times['median']:.{digits}f}"


def _ratio(ratio: Sequence[float] | None) -> str:
    """The ratio and its interval; a single round has none."""
    if ratio is None:
        return "–"
    middle, low, high = ratio
    return f"{middle:.2f} ({low:.2f}–{high:.2f})" if low < high else f"{middle:.2f}"


def markdown(result: Mapping[str, Any]) -> str:
    """The tables of all models with what they were measured on."""
    return "\n".join(_lines(result))


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    yield caption(result)
    for model, rows in result["models"].items():
        yield f"\n## {model}\n"
        yield f"| {' | '.join(HEADER)} |"
        yield "|" + "---|" * len(HEADER)
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', '/') for cell in cells(row))} |"


def caption(result: Mapping[str, Any]) -> str:
    """What the tables hold, in a sentence."""
    threads = result["threads"]
    return (
        f"{result['date']}, {result['cpu']}, {threads} thread{'s' * (threads != 1)} each, {result['rounds']} rounds, "
        f"answers of {result['new_tokens']} tokens; medians, and ratios of ours at 25 % to the row with 95 % intervals "
        "(int8 rows: ours in bfloat16)."
    )
