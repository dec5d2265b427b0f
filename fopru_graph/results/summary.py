"""From the rows of a cell to its figures; the rows are read once and not kept."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fopru_graph.results.statistics import interval

if TYPE_CHECKING:
    from fopru_graph.evaluation.task import Task

_COUNTS = ("encoded", "kept", "final", "layer_average", "text_tokens", "new_tokens", "kv_bytes")


class Figures:
    """Gathers the rows of one cell, a few numbers of each."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._scores = array("d")
        self._types: list[int] = []
        self._pictures: list[int] = []
        self._names: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._counts = {name: array("d") for name in _COUNTS}
        self._first, self._total = array("d"), array("d")
        self._rows: list[dict[str, Any]] = []
        self.errors = 0
        self.first_error: str | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row."""
        if row["status"] != "ok":
            self.errors += 1
            self.first_error = self.first_error or row["error"]
            return
        self._scores.append(row["score"])
        self._types.append(self._names.setdefault(row["type"], len(self._names)))
        self._pictures.append(self._groups.setdefault(row["picture"], len(self._groups)))
        for name, values in self._counts.items():
            values.append(row[name])
        timing = row["timing"]
        self._total.append(timing["total_ms"])
        if timing["ttft_ms"] is not None:
            self._first.append(timing["ttft_ms"])
        if row["facts"]:
            self._rows.append({"score": row["score"], "facts": row["facts"], "type": row["type"]})

    def to_json(self) -> dict[str, Any]:
        """All figures; see docs/evaluation.md for their meaning."""
        scores = np.asarray(self._scores)
        low, high = interval(scores, self._pictures) if len(scores) else (None, None)
        return {
            "accuracy": _rounded(scores.mean()) if len(scores) else None,
            "n": len(scores),
            "ci": [_rounded(low), _rounded(high)],
            "errors": self.errors,
            "first_error": self.first_error,
            "per_type": self._per_type(scores),
            "metrics": {name: _rounded(value) for name, value in self._task.metrics(self._rows).items()},
            "retention": self._retention(),
            "tokens": {name.removesuffix("_tokens"): _mean(self._counts[name]) for name in _COUNTS[:-1]},
            "kv_bytes": _mean(self._counts["kv_bytes"]),
            "ttft_ms": self._ttft(),
            "samples_per_s": _rounded(1e3 * len(scores) / sum(self._total)) if self._total else None,
        }

    def _per_type(self, scores: np.ndarray) -> dict[str, dict[str, Any]]:
        types = np.asarray(self._types)
        return {
            name: {"accuracy": _rounded(scores[types == number].mean()), "n": int((types == number).sum())}
            for name, number in sorted(self._names.items())
        }

    def _retention(self) -> dict[str, float | None]:
        """Shares of the encoded visual tokens: means of the samples' own, and how much the last one varies."""
        encoded = np.asarray(self._counts["encoded"])
        if not len(encoded) or not encoded.all():
            return dict.fromkeys(("kept", "final", "layer_average", "p10", "p90"))
        shares = {name: np.asarray(self._counts[name]) / encoded for name in ("kept", "final", "layer_average")}
        ends = np.percentile(shares["final"], [10, 90])
        figures = {name: _rounded(share.mean()) for name, share in shares.items()}
        return figures | {"p10": _rounded(ends[0]), "p90": _rounded(ends[1])}

    def _ttft(self) -> dict[str, float | int] | None:
        if not self._first:
            return None
        median, p90 = np.percentile(np.asarray(self._first), [50, 90])
        return {"median": round(float(median), 3), "p90": round(float(p90), 3), "n": len(self._first)}


def figures_of(task: Task, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of all rows of a cell."""
    figures = Figures(task)
    for row in rows:
        figures.add(row)
    return figures.to_json()


def _mean(values: array[float]) -> float | None:
    return _rounded(sum(values) / len(values)) if values else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
