"""Layered drawing, first half: the layer of each shape and its order there, so that links lead down and rarely cross.

The method is Sugiyama's: break cycles, assign layers by longest path, add a bend to every layer that a link passes, and
reduce crossings by barycentre sweeps. A vertex is a shape or a bend.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from fopru_graph.drawing.picture import Arrow, Picture

_SWEEPS = 12
_MOST_BENDS = 20_000  # in excess of these, long links run straight, behind the shapes


@dataclass(frozen=True, slots=True)
class Bend:
    """The point of a layer where the links from one output pass on their way to a lower layer."""

    source: str
    output: str
    layer: int


Vertex = str | Bend  # the id of a shape, or a bend


@dataclass
class Layering:
    """Vertices by layer, from top to bottom, and in each layer from left to right.

    The links from one output share a ``trunk``: the shape and the bends of the longest of these links. ``ends`` maps
    every link to the vertex above its target, where it leaves its trunk; ``upward`` are the links that close a cycle.
    """

    layers: list[list[Vertex]]
    trunks: dict[tuple[str, str], list[Vertex]]
    ends: dict[Arrow, Vertex]
    upward: list[Arrow] = field(default_factory=list)

    def parts(self) -> Iterator[tuple[Vertex, Vertex, str, str]]:
        """Every part of a link: upper and lower vertex, the output of the link, and the input if it ends here."""
        for (_, output), trunk in self.trunks.items():
            yield from ((upper, lower, output, "") for upper, lower in zip(trunk, trunk[1:], strict=False))
        for arrow, upper in self.ends.items():
            yield upper, arrow.target, arrow.output, arrow.input


def arrange(picture: Picture) -> Layering:
    """Assign the shapes to layers and order these; every graph has an arrangement, cyclic or not."""
    links: nx.DiGraph[str] = nx.DiGraph()
    links.add_nodes_from(picture.shapes)
    links.add_edges_from((arrow.source, arrow.target) for arrow in picture.arrows)
    closing = closing_links(links)
    links.remove_edges_from(closing)
    layer_of = _layer_numbers(links)
    downward = [arrow for arrow in picture.arrows if (arrow.source, arrow.target) not in closing]
    layering = _with_bends(list(picture.shapes), layer_of, downward)
    layering.upward = [arrow for arrow in picture.arrows if (arrow.source, arrow.target) in closing]
    _reduce_crossings(layering)
    return layering


def closing_links(links: nx.DiGraph[str]) -> set[tuple[str, str]]:
    """Links without which there is no cycle: those that lead a depth-first search back to its current path."""
    on_path: set[str] = set()
    closing: set[tuple[str, str]] = set()
    for source, reader, step in nx.dfs_labeled_edges(links):
        if step == "forward":
            on_path.add(reader)
        elif step == "reverse":
            on_path.discard(reader)
        elif reader in on_path:
            closing.add((source, reader))
    return closing


def _layer_numbers(links: nx.DiGraph[str]) -> dict[str, int]:
    """The longest path to each shape; a shape that reads nothing stands just above its first reader, not at the top."""
    layer_of = {name: number for number, names in enumerate(nx.topological_generations(links)) for name in names}
    for name in links:
        if not links.pred[name] and links.succ[name]:
            layer_of[name] = min(layer_of[reader] for reader in links.succ[name]) - 1
    return layer_of


def _with_bends(names: Iterable[str], layer_of: Mapping[str, int], arrows: Sequence[Arrow]) -> Layering:
    """The layers, with a bend in every layer that a link passes; links from the same output share their bends."""
    layers: list[list[Vertex]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for name in names:
        layers[layer_of[name]].append(name)
    trunks: dict[tuple[str, str], list[Vertex]] = {}
    bends_left = _MOST_BENDS
    for arrow in sorted(arrows, key=lambda arrow: layer_of[arrow.target], reverse=True):  # a trunk's longest link first
        if (arrow.source, arrow.output) not in trunks:
            passed = range(layer_of[arrow.source] + 1, layer_of[arrow.target])
            bends = [Bend(arrow.source, arrow.output, number) for number in passed if len(passed) <= bends_left]
            bends_left -= len(bends)
            trunks[arrow.source, arrow.output] = [arrow.source, *bends]
            for bend in bends:
                layers[bend.layer].append(bend)
    ends: dict[Arrow, Vertex] = {}
    for arrow in arrows:
        trunk = trunks[arrow.source, arrow.output]
        ends[arrow] = trunk[min(layer_of[arrow.target] - layer_of[arrow.source], len(trunk)) - 1]
    return Layering(layers, trunks, ends)


def _reduce_crossings(layering: Layering) -> None:
    links: nx.DiGraph[Vertex] = nx.DiGraph()
    links.add_nodes_from(vertex for layer in layering.layers for vertex in layer)
    links.add_edges_from((upper, lower) for upper, lower, _, _ in layering.parts())
    above, below = links.pred, links.succ
    best, fewest = [list(layer) for layer in layering.layers], _crossings(layering.layers, below)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        index = {vertex: position for layer in layering.layers for position, vertex in enumerate(layer)}
        for layer in layering.layers[1:] if down else layering.layers[-2::-1]:
            _sort_layer(layer, above if down else below, index)
        crossings = _crossings(layering.layers, below)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layering.layers], crossings
    layering.layers = best


def _sort_layer(layer: list[Vertex], neighbours: Mapping[Vertex, Iterable[Vertex]], index: dict[Vertex, int]) -> None:
    """Order a layer by the mean position of each vertex's neighbours; a vertex without any keeps its position."""

    def barycentre(vertex: Vertex) -> float:
        positions = [index[other] for other in neighbours[vertex]]
        return sum(positions) / len(positions) if positions else index[vertex]

    layer.sort(key=barycentre)
    index.update((vertex, position) for position, vertex in enumerate(layer))


def _crossings(layers: list[list[Vertex]], below: Mapping[Vertex, Iterable[Vertex]]) -> int:
    """The number of pairs of links that cross between neighbouring layers."""
    total = 0
    for upper, lower in zip(layers, layers[1:], strict=False):
        index = {vertex: position for position, vertex in enumerate(lower)}
        seen: list[int] = []
        for vertex in upper:
            ends = sorted(index[other] for other in below[vertex] if other in index)
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total
