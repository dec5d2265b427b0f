"""Which layer each shape stands in and in which order: links lead down, and cross as seldom as possible."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from fopru_graph.drawing.picture import Arrow, Picture

_SWEEPS = 12
_MOST_BENDS = 20_000  # beyond that, long links run straight, behind the shapes


@dataclass(frozen=True, slots=True)
class Bend:
    """A place in a layer where the links from one output pass on their way to a lower layer."""

    source: str
    output: str
    layer: int


Place = str | Bend  # the id of a shape, or a bend


@dataclass
class Layers:
    """Places by layer, from top to bottom and from left to right."""

    rows: list[list[Place]]
    trunks: dict[tuple[str, str], list[Place]]  # by shape and output: the shape, and the bends of its longest link
    ends: dict[Arrow, Place]  # the place above its target at which a link leaves its trunk
    upward: list[Arrow] = field(default_factory=list)  # the links that close a cycle

    def index(self) -> dict[Place, int]:
        """The position of every place in its row."""
        return {place: index for row in self.rows for index, place in enumerate(row)}

    def parts(self) -> Iterator[tuple[Place, Place, str, str]]:
        """Every part of a link between two places, with the output it comes from and the input it ends in, if any."""
        for (_, output), trunk in self.trunks.items():
            yield from ((upper, lower, output, "") for upper, lower in zip(trunk, trunk[1:], strict=False))
        for arrow, upper in self.ends.items():
            yield upper, arrow.target, arrow.output, arrow.input


def arrange(picture: Picture) -> Layers:
    """Put the shapes into layers and order these by barycentre sweeps; any graph, cyclic or not, has an arrangement."""
    links: nx.DiGraph[str] = nx.DiGraph()
    links.add_nodes_from(picture.shapes)
    links.add_edges_from((arrow.source, arrow.target) for arrow in picture.arrows)
    closing = closing_links(links)
    links.remove_edges_from(closing)
    layer = _layer_numbers(links)
    downward = [arrow for arrow in picture.arrows if (arrow.source, arrow.target) not in closing]
    layers = _with_bends(list(picture.shapes), layer, downward)
    layers.upward = [arrow for arrow in picture.arrows if (arrow.source, arrow.target) in closing]
    _reduce_crossings(layers)
    return layers


def closing_links(links: nx.DiGraph[str]) -> set[tuple[str, str]]:
    """Links without which there is no cycle: those that a depth-first walk finds to lead back to its own path."""
    on_path: set[str] = set()
    done: set[str] = set()
    closing: set[tuple[str, str]] = set()
    for root in links:
        stack = [] if root in done else [(root, iter(links[root]))]
        on_path.update(name for name, _ in stack)
        while stack:
            name, readers = stack[-1]
            reader = next(readers, None)
            if reader is None:
                stack.pop()
                on_path.discard(name)
                done.add(name)
            elif reader in on_path:
                closing.add((name, reader))
            elif reader not in done:
                on_path.add(reader)
                stack.append((reader, iter(links[reader])))
    return closing


def _layer_numbers(links: nx.DiGraph[str]) -> dict[str, int]:
    """The longest path to each shape; what nothing leads to stands just above its first reader, not at the top."""
    layer = {name: number for number, names in enumerate(nx.topological_generations(links)) for name in names}
    for name in links:
        if not links.pred[name] and links.succ[name]:
            layer[name] = min(layer[reader] for reader in links.succ[name]) - 1
    return layer


def _with_bends(names: Iterable[str], layer: Mapping[str, int], arrows: Sequence[Arrow]) -> Layers:
    """The rows, where links that cross a layer have a place too; links from the same output share theirs."""
    rows: list[list[Place]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in names:
        rows[layer[name]].append(name)
    trunks: dict[tuple[str, str], list[Place]] = {}
    room = _MOST_BENDS
    for arrow in sorted(arrows, key=lambda arrow: layer[arrow.target], reverse=True):  # the longest of a trunk first
        if (arrow.source, arrow.output) not in trunks:
            passed = range(layer[arrow.source] + 1, layer[arrow.target])
            bends = [Bend(arrow.source, arrow.output, number) for number in passed if len(passed) <= room]
            room -= len(bends)
            trunks[arrow.source, arrow.output] = [arrow.source, *bends]
            for bend in bends:
                rows[bend.layer].append(bend)
    ends: dict[Arrow, Place] = {}
    for arrow in arrows:
        trunk = trunks[arrow.source, arrow.output]
        ends[arrow] = trunk[min(layer[arrow.target] - layer[arrow.source], len(trunk)) - 1]
    return Layers(rows, trunks, ends)


class Segments:
    """The neighbours of every place in the layers above and below."""

    def __init__(self, layers: Layers) -> None:
        self.above: dict[Place, dict[Place, None]] = {place: {} for row in layers.rows for place in row}
        self.below: dict[Place, dict[Place, None]] = {place: {} for row in layers.rows for place in row}
        for upper, lower, _, _ in layers.parts():
            self.below[upper][lower] = None
            self.above[lower][upper] = None


def _reduce_crossings(layers: Layers) -> None:
    segments = Segments(layers)
    best, fewest = [list(row) for row in layers.rows], _crossings(layers.rows, segments)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        neighbours = segments.above if down else segments.below
        order = range(1, len(layers.rows)) if down else range(len(layers.rows) - 2, -1, -1)
        index = layers.index()
        for number in order:
            _sort_row(layers.rows[number], neighbours, index)
        crossings = _crossings(layers.rows, segments)
        if crossings < fewest:
            best, fewest = [list(row) for row in layers.rows], crossings
    layers.rows = best


def _sort_row(row: list[Place], neighbours: Mapping[Place, Iterable[Place]], index: dict[Place, int]) -> None:
    """Order a row by the mean position of its neighbours; a place without any keeps its own."""

    def barycentre(place: Place) -> float:
        positions = [index[other] for other in neighbours[place]]
        return sum(positions) / len(positions) if positions else index[place]

    row.sort(key=barycentre)
    index.update((place, position) for position, place in enumerate(row))


def _crossings(rows: list[list[Place]], segments: Segments) -> int:
    """How many pairs of links cross between neighbouring rows."""
    total = 0
    for upper, lower in zip(rows, rows[1:], strict=False):
        index = {place: position for position, place in enumerate(lower)}
        seen: list[int] = []
        for place in upper:
            ends = sorted(index[other] for other in segments.below[place] if other in index)
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total
