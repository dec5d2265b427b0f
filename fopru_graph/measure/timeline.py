"""From the events of one run to its times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fopru_graph.graph.events import Event, NodeFinished, NodeStarted
from fopru_graph.measure.summary import NOT_TIMED

# Which stage a node of a category belongs to; `generate` splits into prefill and decode by its own figures.
STAGE_OF = {
    "encode": "encode",
    "score": "score",
    "prune": "select",
    "merge": "select",
    "order": "select",
    "project": "project",
}


@dataclass(frozen=True)
class Sample:
    """The times of one run in milliseconds; see `result.Variant`.

    ``tiles`` are the visual tokens of every encoded tile, ``report`` is what the generating node tells.
    """

    ttft: float
    ttft_with_preprocessing: float
    steps: tuple[float, ...]
    end_to_end: float
    stages: Mapping[str, float]
    tiles: tuple[int, ...]
    report: Mapping[str, Any]


class Timeline:
    """Listens to one run.

    Args:
        categories: the category of every node.
        target: the generating node; the run ends with it.
        clock: seconds.
        settle: called before each look at the clock; on a GPU it may wait for the device, so that each stage is charged
            with its own work. The time to first token is then a little longer.
    """

    def __init__(
        self, categories: Mapping[str, str], target: str, clock: Callable[[], float], settle: Callable[[], None]
    ) -> None:
        self._categories, self._target, self._clock, self._settle = categories, target, clock, settle
        self._begin: float | None = None
        self._started: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._preprocess = 0.0
        self._end = 0.0
        self._tiles: tuple[int, ...] = ()
        self._report: Mapping[str, Any] = {}

    def __call__(self, event: Event) -> None:
        """Take one event of the run."""
        if isinstance(event, NodeStarted) and self._categories[event.node] != NOT_TIMED:
            self._settle()
            self._started[event.node] = self._clock()
            if self._begin is None:
                self._begin = self._started[event.node]
        elif isinstance(event, NodeFinished) and event.node in self._started:
            self._settle()
            self._end = self._clock()
            self._finish(event, self._end - self._started[event.node])

    def _finish(self, event: NodeFinished, seconds: float) -> None:
        report = event.report or {}
        preprocess = report.get("preprocess_ms", 0.0)
        self._preprocess += preprocess
        self._tiles += tuple(report.get("tile_tokens", ()))
        if event.node == self._target:
            self._report = report
        stage = STAGE_OF.get(self._categories[event.node])
        if stage is not None:
            self._spent[stage] = self._spent.get(stage, 0.0) + seconds * 1e3 - preprocess

    def sample(self) -> Sample:
        """The times of the finished run."""
        assert self._begin is not None
        steps = tuple(self._report["step_ms"])
        before = (self._started[self._target] - self._begin) * 1e3
        own = self._report.get("preprocess_ms", 0.0)  # a generating node that prepares pictures itself
        whole = before + own + self._report["prefill_ms"]
        stages = self._spent | {"decode": sum(steps)}
        if not own:  # else all that comes before the first token is one stage, and its parts are not known
            stages["prefill"] = self._report["prefill_ms"]
        return Sample(
            ttft=whole - self._preprocess,
            ttft_with_preprocessing=whole,
            steps=steps,
            end_to_end=(self._end - self._begin) * 1e3,
            stages=stages,
            tiles=self._tiles,
            report=self._report,
        )
