"""Finishing touches to places: links that are almost straight become so, and long ones bend seldom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fopru_graph.drawing.layers import Bend, Layers, Place

BETWEEN_BOXES, BETWEEN_LINKS = 22.0, 16.0
_ALMOST = 30.0  # a link that is this near to straight is made so
_ROUNDS = 3


def distance(one: Place, other: Place) -> float:
    """The room between two neighbours of a row."""
    return BETWEEN_BOXES if isinstance(one, str) and isinstance(other, str) else BETWEEN_LINKS


class Straightener:
    """Moves places of ``x`` within the room that their neighbours in the row leave."""

    def __init__(self, layers: Layers, half: Mapping[Place, float], x: dict[Place, float]) -> None:
        self.layers = layers
        self.half = half
        self.x = x
        self.neighbours: dict[Place, tuple[Place | None, Place | None]] = {}
        for row in layers.rows:
            for one, left, right in zip(row, [None, *row], [*row[1:], None], strict=False):
                self.neighbours[one] = left, right

    def room(self, one: Place) -> tuple[float, float]:
        """The least and the greatest x that a place can have without coming too near to a neighbour."""
        left, right = self.neighbours[one]
        low, high = float("-inf"), float("inf")
        if left is not None:
            low = self.x[left] + self.half[left] + distance(left, one) + self.half[one]
        if right is not None:
            high = self.x[right] - self.half[right] - distance(one, right) - self.half[one]
        return low, high

    def snap(self, links_above: Mapping[Place, Sequence[tuple[Place, float]]]) -> None:
        """Move each box under the one above it that it is almost in line with."""
        for row in self.layers.rows:
            for one in row:
                moves = [self.x[other] + offset - self.x[one] for other, offset in links_above[one]]
                moves = [move for move in moves if abs(move) <= _ALMOST]
                low, high = self.room(one)
                for move in sorted(moves, key=abs)[:1] if isinstance(one, str) else []:
                    if low <= self.x[one] + move <= high:
                        self.x[one] += move

    def straighten(self) -> None:
        """Give the bends of a long link one column wherever there is one that is free in all of their rows."""
        trunks: dict[tuple[str, str], list[Bend]] = {}
        for row in self.layers.rows:
            for one in row:
                if isinstance(one, Bend):
                    trunks.setdefault((one.source, one.output), []).append(one)
        for _ in range(_ROUNDS):
            for bends in trunks.values():
                self._straighten_trunk(bends)

    def _straighten_trunk(self, bends: list[Bend]) -> None:
        run: list[Bend] = []
        low, high = float("-inf"), float("inf")
        for one in bends:
            one_low, one_high = self.room(one)
            if run and max(low, one_low) > min(high, one_high):
                self._align(run, low, high)
                run, low, high = [], float("-inf"), float("inf")
            run.append(one)
            low, high = max(low, one_low), min(high, one_high)
        self._align(run, low, high)

    def _align(self, run: list[Bend], low: float, high: float) -> None:
        """The column is the one nearest to the middle of the run's places."""
        if low > high:  # a row without any room to spare: its place stays
            return
        ordered = sorted(self.x[one] for one in run)
        column = min(max(ordered[len(ordered) // 2], low), high)
        self.x.update(dict.fromkeys(run, column))
