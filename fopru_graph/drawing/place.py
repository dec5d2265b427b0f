"""Where everything stands: rows below each other, and links as straight as the order within the rows allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fopru_graph.drawing.boxes import Box
from fopru_graph.drawing.layers import Bend, Layers, Place
from fopru_graph.drawing.straight import Straightener, distance

MARGIN = 20.0
GAP = 42.0  # between rows, where links change their place
_PASSES = 24
_BEND_WEIGHT = 6.0  # a long link is kept straight rather than a short one


@dataclass(frozen=True)
class Link:
    """A part of a link between two rows, seen from one end: the other end, and how far right of it is straight."""

    other: Place
    offset: float


@dataclass(frozen=True)
class Placed:
    """The middle of every place, the upper and lower edge of every row, and the size of the whole."""

    x: Mapping[Place, float]
    rows: tuple[tuple[float, float], ...]
    width: float
    height: float


def place(layers: Layers, boxes: Mapping[str, Box]) -> Placed:
    """Give every place its coordinates; no two boxes overlap."""
    half = {place: boxes[place].width / 2 if isinstance(place, str) else 0.0 for row in layers.rows for place in row}
    x = _columns(layers, boxes, half)
    left = min((x[place] - half[place] for place in x), default=0.0)
    x = {place: round(at - left + MARGIN, 1) for place, at in x.items()}
    right = max((x[place] + half[place] for place in x), default=0.0)
    rows, top = [], MARGIN
    for row in layers.rows:
        height = max((boxes[place].height for place in row if isinstance(place, str)), default=0.0)
        rows.append((top, top + height))
        top += height + GAP
    return Placed(x, tuple(rows), right + MARGIN, max(top - GAP, MARGIN) + MARGIN)


def _columns(layers: Layers, boxes: Mapping[str, Box], half: Mapping[Place, float]) -> dict[Place, float]:
    above, below = _links(layers, boxes)
    x: dict[Place, float] = {}
    for row in layers.rows:
        _settle(row, dict.fromkeys(row, 0.0), {}, half, x)
    for number in range(_PASSES):
        last = number >= _PASSES - 4  # the last passes balance both sides
        down = number % 2 == 0
        for row in layers.rows if down else reversed(layers.rows):
            wanted, weights = {}, {}
            for one in row:
                links = [*above[one], *below[one]] if last else (above if down else below)[one]
                wanted[one] = sum(x[link.other] + link.offset for link in links) / len(links) if links else x[one]
                weights[one] = _BEND_WEIGHT if isinstance(one, Bend) else float(len(links)) or 0.1
            _settle(row, wanted, weights, half, x)
    straightener = Straightener(layers, half, x)
    straightener.snap({one: [(link.other, link.offset) for link in links] for one, links in above.items()})
    straightener.straighten()
    return x


def _links(layers: Layers, boxes: Mapping[str, Box]) -> tuple[dict[Place, list[Link]], dict[Place, list[Link]]]:
    """The links of every place to those above and to those below it."""
    above: dict[Place, dict[Link, None]] = {place: {} for row in layers.rows for place in row}
    below: dict[Place, dict[Link, None]] = {place: {} for row in layers.rows for place in row}
    for upper, lower, output, name in layers.parts():
        leaves = boxes[upper].outputs[output] if isinstance(upper, str) else 0.0
        enters = boxes[lower].inputs[name] if isinstance(lower, str) else 0.0
        above[lower][Link(upper, leaves - enters)] = None
        below[upper][Link(lower, enters - leaves)] = None
    return {key: list(value) for key, value in above.items()}, {key: list(value) for key, value in below.items()}


def _settle(
    row: list[Place],
    wanted: Mapping[Place, float],
    weights: Mapping[Place, float],
    half: Mapping[Place, float],
    x: dict[Place, float],
) -> None:
    """Put a row's places as near to where they want to be as their order and distances allow (isotonic regression)."""
    shift, shifts = 0.0, []
    for number, one in enumerate(row):
        if number:
            shift += half[row[number - 1]] + half[one] + distance(row[number - 1], one)
        shifts.append(shift)
    pools: list[tuple[float, float, int]] = []  # mean, weight and number of places that touch each other
    for one, shift in zip(row, shifts, strict=True):
        mean, weight, count = wanted[one] - shift, weights.get(one, 1.0), 1
        while pools and pools[-1][0] > mean:
            other_mean, other_weight, other_count = pools.pop()
            mean = (mean * weight + other_mean * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        pools.append((mean, weight, count))
    means = [mean for mean, _, count in pools for _ in range(count)]
    x.update((one, mean + shift) for one, mean, shift in zip(row, means, shifts, strict=True))
