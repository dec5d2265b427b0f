"""The smallest retention ratio whose loss of accuracy is acceptable (left open by the FoPru paper, §6)."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.results.cell import RESULTS
from fopru_graph.results.statistics import agresti_min, paired_difference

# The nine ratios of the paper's Fig. 5 and 7: 1, 16, 36, 64, 100, 144, 288 and 432 of 576 tokens, and all of them.
PAPER_RATIOS = (1 / 576, 16 / 576, 36 / 576, 64 / 576, 100 / 576, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Drop:
    """What a ratio costs: accuracy without pruning minus accuracy with it, in points, and its 95 % interval.

    Both accuracies are over the same ``n`` samples, those that both runs answered.
    """

    ratio: float
    accuracy: float
    drop: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Tuned:
    """The outcome for one pipeline on one task.

    ``ratio`` is the smallest whose measured drop is at most ``max_drop``, ``sure`` the smallest whose whole interval
    is. Each is None if even the largest ratio that was tried costs more.
    """

    pipeline: str
    task: str
    max_drop: float
    ratio: float | None
    sure: float | None
    drops: tuple[Drop, ...]

    @property
    def chosen(self) -> Drop | None:
        """The drop at ``ratio``."""
        return next((drop for drop in self.drops if drop.ratio == self.ratio), None)

    def to_json(self) -> dict[str, Any]:
        """The outcome as a JSON object; drops in points of accuracy."""
        return asdict(self) | {"statement": self.statement()}

    def statement(self) -> str:
        """The outcome in a sentence."""
        chosen = self.chosen
        if chosen is None:
            return f"no ratio that was tried keeps {self.pipeline} within {self.max_drop:g} points on {self.task}"
        cost = f"{self.pipeline} at {100 * chosen.ratio:.3g} % costs {chosen.drop:.2f} points on {self.task}"
        cost += f" (95 % interval {chosen.low:.2f} to {chosen.high:.2f}, {chosen.n} paired samples)"
        if self.sure == self.ratio:
            return f"{cost}: within {self.max_drop:g} with 95 % confidence"
        if self.sure is None:
            return f"{cost}; no ratio is within {self.max_drop:g} with 95 % confidence: more samples would tell"
        return f"{cost}; with 95 % confidence it takes {100 * self.sure:.3g} %"


def find_smallest_ratio(
    pipeline: str, task: str, ratios: Sequence[float], max_drop: float, measure: Callable[[float], Drop]
) -> Tuned:
    """Find the smallest ratio whose drop is at most ``max_drop`` points, and the smallest whose whole interval is.

    Bisects the ratios, on the assumption that more tokens never cost accuracy. If a measured ratio contradicts that,
    the smallest measured ratio within the limit counts; the result has all measured ratios.

    Raises:
        UserError: there are no ratios, or ``max_drop`` is negative.
    """
    if not ratios:
        raise UserError("there is no ratio to try", "write e.g. --ratio 0.5,0.25")
    if max_drop < 0:
        raise UserError(f"max-drop must not be negative, but is {max_drop:g}", "it is in points of accuracy")
    ascending = sorted(set(ratios))
    measured: dict[float, Drop] = {}

    def drop_at(ratio: float) -> Drop:
        if ratio not in measured:
            measured[ratio] = measure(ratio)
        return measured[ratio]

    def search(within: Callable[[Drop], bool]) -> None:
        if within(drop_at(ascending[-1])):
            bisect_left(ascending, True, hi=len(ascending) - 1, key=lambda ratio: within(drop_at(ratio)))

    def smallest(within: Callable[[Drop], bool]) -> float | None:
        if not within(measured[ascending[-1]]):
            return None
        return min(ratio for ratio, drop in measured.items() if within(drop))

    limits: list[Callable[[Drop], bool]] = [lambda drop: drop.drop <= max_drop, lambda drop: drop.high <= max_drop]
    for within in limits:
        search(within)
    ratio, sure = map(smallest, limits)
    return Tuned(pipeline, task, max_drop, ratio, sure, tuple(measured[ratio] for ratio in sorted(measured)))


def drop_between(unpruned: Path, pruned: Path, ratio: float) -> Drop:
    """The drop from one cell's folder to another's, over the samples that both have answered.

    Raises:
        UserError: there is no such sample.
    """
    before, after = _scores(unpruned), _scores(pruned)
    shared = [key for key in before if key in after]
    if not shared:
        raise UserError(f"{unpruned.name} and {pruned.name} have no answered sample in common", "see their errors")
    pictures = [before[key]["picture"] for key in shared]
    scores, reference = ([answers[key]["score"] for key in shared] for answers in (after, before))
    drop, low, high = paired_difference(scores, reference, pictures)
    if {*scores, *reference} <= {0.0, 1.0}:  # if hardly any two scores differ, the bootstrap's interval is too narrow
        cautious_low, cautious_high = agresti_min(scores, reference)
        low, high = min(low, cautious_low), max(high, cautious_high)
    accuracy = 100 * sum(scores) / len(scores)
    figures = (accuracy, 100 * drop, 100 * low, 100 * high)
    return Drop(ratio, *(round(figure, 4) for figure in figures), len(shared))


def _scores(folder: Path) -> dict[str, Mapping[str, Any]]:
    with (folder / RESULTS).open(encoding="utf-8") as stream:
        rows = map(json.loads, stream)
        return {row["id"]: {"score": row["score"], "picture": row["picture"]} for row in rows if row["status"] == "ok"}
