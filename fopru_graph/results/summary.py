"""From the rows of a cell to the figures of its summary; the rows are read once and not kept."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from fopru_graph.results.statistics import interval, timing

Metrics = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, float]]

_TOKENS = ("encoded", "kept", "final", "layer_average", "text_tokens", "new_tokens")


def figures_of(rows: Iterable[Mapping[str, Any]], metrics: Metrics) -> dict[str, Any]:
    """The figures of `schema.Summary` that rows give, by name; see docs/evaluation.md for their meaning.

    Args:
        rows: JSON objects of `schema.Row`.
        metrics: a task's further figures, from the ``score``, ``facts`` and ``type`` of each row that has facts.
    """
    scores, ttft, total = array("d"), array("d"), array("d")
    types: list[str] = []
    pictures: list[str] = []
    counts = {name: array("d") for name in (*_TOKENS, "kv_bytes")}
    with_facts: list[dict[str, Any]] = []
    errors: Counter[str] = Counter()  # by message
    batch_size = 1
    for row in rows:
        if row["status"] != "ok":
            errors[row["error"]] += 1
            continue
        scores.append(row["score"])
        types.append(sys.intern(row["type"]))
        pictures.append(sys.intern(row["picture"]))
        for name, numbers in counts.items():
            numbers.append(row[name])
        total.append(row["timing"]["total_ms"])
        batch_size = max(batch_size, row["timing"].get("batch", 1))
        if row["timing"]["ttft_ms"] is not None:
            ttft.append(row["timing"]["ttft_ms"])
        if row["facts"]:
            with_facts.append({key: row[key] for key in ("score", "facts", "type")})
    return {
        "accuracy": _rounded(np.mean(scores)) if scores else None,
        "n": len(scores),
        "ci": [_rounded(end) for end in interval(scores, pictures)] if scores else [None, None],
        "errors": errors.total(),
        "common_error": dict(zip(("message", "count"), errors.most_common(1)[0], strict=True)) if errors else None,
        "per_type": _accuracy_by_type(np.asarray(scores), types),
        "metrics": {name: _rounded(value) for name, value in metrics(with_facts).items()},
        "retention": _retention({name: np.asarray(numbers) for name, numbers in counts.items()}),
        "tokens": {name.removesuffix("_tokens"): _mean(counts[name]) for name in _TOKENS},
        "kv_bytes": _mean(counts["kv_bytes"]),
        "ttft_ms": {name: round(value, 3) for name, value in asdict(timing(ttft)).items()} if ttft else None,
        "samples_per_s": _rounded(1e3 * len(scores) / sum(total)) if total else None,
        "batch_size": batch_size,
    }


def _accuracy_by_type(scores: npt.NDArray[np.float64], types: list[str]) -> dict[str, dict[str, float]]:
    of_type = {name: scores[np.asarray(types) == name] for name in sorted(set(types))}
    return {name: {"accuracy": _rounded(values.mean()), "n": len(values)} for name, values in of_type.items()}


def _retention(counts: Mapping[str, npt.NDArray[np.float64]]) -> Mapping[str, float | None]:
    """Mean shares of the encoded visual tokens; None where a sample had no picture."""
    encoded = counts["encoded"]
    if not len(encoded) or not encoded.all():
        return dict.fromkeys(("kept", "final", "layer_average", "p10", "p90"))
    shares = {name: counts[name] / encoded for name in ("kept", "final", "layer_average")}
    low, high = np.percentile(shares["final"], [10, 90])
    means = {name: _rounded(share.mean()) for name, share in shares.items()}
    return means | {"p10": _rounded(low), "p90": _rounded(high)}


def _mean(numbers: array[float]) -> float | None:
    return _rounded(sum(numbers) / len(numbers)) if numbers else None


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 6)
