"""Layered drawing, second half: coordinates of all vertices, with links as straight as the order allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from fopru_graph.drawing.boxes import Box
from fopru_graph.drawing.layers import Bend, Layering, Vertex

MARGIN = 20.0
GAP = 42.0  # between layers, where links move sideways
_BETWEEN_BOXES, _BETWEEN_LINKS = 22.0, 16.0
_PASSES = 24
_BEND_WEIGHT = 6.0  # a long link is kept straight rather than a short one
_ALMOST = 30.0  # a link that is off by at most this much is made straight
_ROUNDS = 3


@dataclass(frozen=True)
class Coordinates:
    """The x of the middle of every vertex, the upper and lower edge of every layer, and the size of the picture."""

    x: Mapping[Vertex, float]
    layers: tuple[tuple[float, float], ...]
    width: float
    height: float


def coordinates_of(layering: Layering, boxes: Mapping[str, Box]) -> Coordinates:
    """Give every vertex its coordinates; no two boxes overlap."""
    columns = _Columns(layering, boxes)
    columns.relax()
    columns.snap()
    columns.straighten()
    x, half = columns.x, columns.half
    left = min((x[vertex] - half[vertex] for vertex in x), default=0.0)
    x = {vertex: round(at - left + MARGIN, 1) for vertex, at in x.items()}
    right = max((x[vertex] + half[vertex] for vertex in x), default=0.0)
    edges, top = [], MARGIN
    for layer in layering.layers:
        height = max((boxes[vertex].height for vertex in layer if isinstance(vertex, str)), default=0.0)
        edges.append((top, top + height))
        top += height + GAP
    return Coordinates(x, tuple(edges), right + MARGIN, max(top - GAP, MARGIN) + MARGIN)


class _Columns:
    """The x of every vertex, moved step by step towards straight links."""

    def __init__(self, layering: Layering, boxes: Mapping[str, Box]) -> None:
        self.layers = layering.layers
        vertices = [vertex for layer in self.layers for vertex in layer]
        self.half = {vertex: boxes[vertex].width / 2 if isinstance(vertex, str) else 0.0 for vertex in vertices}
        self.x: dict[Vertex, float] = {}
        self.neighbours: dict[Vertex, tuple[Vertex | None, Vertex | None]] = {}
        for layer in self.layers:
            for vertex, left, right in zip(layer, [None, *layer], [*layer[1:], None], strict=False):
                self.neighbours[vertex] = left, right
            self._settle(layer, dict.fromkeys(layer, 0.0), {})
        # The ends of the links of each vertex: the vertex there, and the offset to it of a straight link.
        self.above: dict[Vertex, dict[tuple[Vertex, float], None]] = {vertex: {} for vertex in vertices}
        self.below: dict[Vertex, dict[tuple[Vertex, float], None]] = {vertex: {} for vertex in vertices}
        for upper, lower, output, name in layering.parts():
            leaves = boxes[upper].outputs[output] if isinstance(upper, str) else 0.0
            enters = boxes[lower].inputs[name] if isinstance(lower, str) else 0.0
            self.above[lower][upper, leaves - enters] = None
            self.below[upper][lower, enters - leaves] = None

    def relax(self) -> None:
        """Move the vertices of each layer towards the mean of their links, downwards and upwards in turn."""
        x = self.x
        for number in range(_PASSES):
            last = number >= _PASSES - 4  # the last passes balance both sides
            down = number % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                wanted, weights = {}, {}
                for vertex in layer:
                    both = [*self.above[vertex], *self.below[vertex]]
                    links = both if last else (self.above if down else self.below)[vertex]
                    places = [x[other] + offset for other, offset in links]
                    wanted[vertex] = sum(places) / len(places) if places else x[vertex]
                    weights[vertex] = _BEND_WEIGHT if isinstance(vertex, Bend) else float(len(links)) or 0.1
                self._settle(layer, wanted, weights)

    def _distance(self, left: Vertex, right: Vertex) -> float:
        """The least distance between the middles of two neighbours in a layer."""
        boxes = isinstance(left, str) and isinstance(right, str)
        return self.half[left] + self.half[right] + (_BETWEEN_BOXES if boxes else _BETWEEN_LINKS)

    def _settle(self, layer: list[Vertex], wanted: Mapping[Vertex, float], weights: Mapping[Vertex, float]) -> None:
        """Move a layer's vertices as near to ``wanted`` as their order and distances allow (isotonic regression)."""
        shifts = list(accumulate(map(self._distance, layer, layer[1:]), initial=0.0))[: len(layer)]
        pools: list[tuple[float, float, int]] = []  # mean, weight and number of vertices that touch each other
        for vertex, shift in zip(layer, shifts, strict=True):
            mean, weight, count = wanted[vertex] - shift, weights.get(vertex, 1.0), 1
            while pools and pools[-1][0] > mean:
                other_mean, other_weight, other_count = pools.pop()
                mean = (mean * weight + other_mean * other_weight) / (weight + other_weight)
                weight, count = weight + other_weight, count + other_count
            pools.append((mean, weight, count))
        means = [mean for mean, _, count in pools for _ in range(count)]
        self.x.update((vertex, mean + shift) for vertex, mean, shift in zip(layer, means, shifts, strict=True))

    def _range(self, vertex: Vertex) -> tuple[float, float]:
        """The least and the greatest x that a vertex can have without coming too near to a neighbour."""
        left, right = self.neighbours[vertex]
        low = float("-inf") if left is None else self.x[left] + self._distance(left, vertex)
        high = float("inf") if right is None else self.x[right] - self._distance(vertex, right)
        return low, high

    def snap(self) -> None:
        """Move each box under the vertex above it that it is almost in line with."""
        for vertex in (vertex for layer in self.layers for vertex in layer if isinstance(vertex, str)):
            moves = [self.x[other] + offset - self.x[vertex] for other, offset in self.above[vertex]]
            low, high = self._range(vertex)
            for move in sorted((move for move in moves if abs(move) <= _ALMOST), key=abs)[:1]:
                if low <= self.x[vertex] + move <= high:
                    self.x[vertex] += move

    def straighten(self) -> None:
        """Give the bends of a long link one x wherever a value is free in all of their layers."""
        trunks: dict[tuple[str, str], list[Bend]] = {}
        for bend in (vertex for layer in self.layers for vertex in layer if isinstance(vertex, Bend)):
            trunks.setdefault((bend.source, bend.output), []).append(bend)
        for _ in range(_ROUNDS):
            for bends in trunks.values():
                self._straighten_trunk(bends)

    def _straighten_trunk(self, bends: list[Bend]) -> None:
        run: list[Bend] = []
        low, high = float("-inf"), float("inf")
        for bend in bends:
            bend_low, bend_high = self._range(bend)
            if run and max(low, bend_low) > min(high, bend_high):
                self._align(run, low, high)
                run, low, high = [], float("-inf"), float("inf")
            run.append(bend)
            low, high = max(low, bend_low), min(high, bend_high)
        self._align(run, low, high)

    def _align(self, run: list[Bend], low: float, high: float) -> None:
        """Move the bends to the free x that is nearest to the median of theirs."""
        if low > high:  # a layer without free space stays as it is
            return
        ordered = sorted(self.x[bend] for bend in run)
        column = min(max(ordered[len(ordered) // 2], low), high)
        self.x.update(dict.fromkeys(run, column))
