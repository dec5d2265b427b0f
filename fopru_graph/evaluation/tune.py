"""The smallest retention ratio that costs no more accuracy than one is ready to give (the paper's open problem, §6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.results.cell import RESULTS
from fopru_graph.results.statistics import agresti_min, paired_difference

# The nine of the paper's Fig. 5 and 7: 1, 16, 36, 64, 100, 144, 288 and 432 of 576 tokens, and all of them.
PAPER_RATIOS = (1 / 576, 16 / 576, 36 / 576, 64 / 576, 100 / 576, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Drop:
    """What a ratio costs: accuracy without pruning less accuracy with it, in points, and its 95 % interval.

    Both are of the same ``n`` samples, those that neither run failed on.
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

    ``ratio`` is the smallest whose measured drop is within the limit; ``sure`` the smallest whose whole interval is.
    None where not even the largest ratio that was tried is.
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
        where = f"{self.pipeline} at {100 * chosen.ratio:.3g} % costs {chosen.drop:.2f} points on {self.task}"
        where += f" (95 % interval {chosen.low:.2f} to {chosen.high:.2f}, {chosen.n} paired samples)"
        if self.sure == self.ratio:
            return f"{where}: within {self.max_drop:g} with 95 % confidence"
        if self.sure is None:
            return f"{where}; no ratio is within {self.max_drop:g} with 95 % confidence: more samples would tell"
        return f"{where}; with 95 % confidence it takes {100 * self.sure:.3g} %"


def tune(pipeline: str, task: str, ratios: Sequence[float], max_drop: float, measure: Callable[[float], Drop]) -> Tuned:
    """Bisect the ratios twice: for the smallest whose drop is within ``max_drop`` points, and whose interval is.

    Bisection takes it that more tokens never cost accuracy. Where a measured ratio contradicts that, the smallest of
    the measured ones that is within the limit counts all the same, and all are reported.

    Raises:
        UserError: there are no ratios, or ``max_drop`` is negative.
    """
    if not ratios:
        raise UserError("there is no ratio to try", "write e.g. --ratio 0.5,0.25")
    if max_drop < 0:
        raise UserError(f"max-drop must not be negative, but is {max_drop:g}", "it is in points of accuracy")
    ordered = sorted(set(ratios))
    known: dict[float, Drop] = {}

    def drop_at(place: int) -> Drop:
        ratio = ordered[place]
        if ratio not in known:
            known[ratio] = measure(ratio)
        return known[ratio]

    ratio = _smallest(len(ordered), lambda place: drop_at(place).drop <= max_drop)
    sure = _smallest(len(ordered), lambda place: drop_at(place).high <= max_drop)
    drops = tuple(known[one] for one in sorted(known))
    return Tuned(
        pipeline,
        task,
        max_drop,
        None if ratio is None else min(one.ratio for one in drops if one.drop <= max_drop),
        None if sure is None else min(one.ratio for one in drops if one.high <= max_drop),
        drops,
    )


def _smallest(count: int, holds: Callable[[int], bool]) -> int | None:
    """The first of ``count`` places from which on ``holds`` is true, by bisection; None where it is not at the last."""
    if not holds(count - 1):
        return None
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return high


def drop_between(whole: Path, pruned: Path, ratio: float) -> Drop:
    """The drop from one cell's folder to another's, over the samples that both have answered.

    Raises:
        UserError: there is no such sample.
    """
    before, after = _scores(whole), _scores(pruned)
    shared = [key for key in before if key in after]
    if not shared:
        raise UserError(f"{whole.name} and {pruned.name} have no answered sample in common", "see their errors")
    pictures = [before[key]["picture"] for key in shared]
    own, reference = ([scores[key]["score"] for key in shared] for scores in (after, before))
    drop, low, high = paired_difference(own, reference, pictures)  # the second less the first
    if {*own, *reference} <= {0.0, 1.0}:  # where hardly any two scores differ, a bootstrap is surer than it may be
        low, high = min(low, (cautious := agresti_min(own, reference))[0]), max(high, cautious[1])
    accuracy = 100 * sum(own) / len(own)
    return Drop(ratio, *(round(one, 4) for one in (accuracy, 100 * drop, 100 * low, 100 * high)), len(shared))


def _scores(folder: Path) -> dict[str, Mapping[str, Any]]:
    with (folder / RESULTS).open(encoding="utf-8") as stream:
        rows = map(json.loads, stream)
        return {row["id"]: {"score": row["score"], "picture": row["picture"]} for row in rows if row["status"] == "ok"}
