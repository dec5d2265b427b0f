"""The size of each shape, and the points on its border where links begin and end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fopru_graph.drawing.layers import Layering
from fopru_graph.drawing.picture import Shape
from fopru_graph.drawing.style import fit, text_width

WIDEST_TEXT = 240.0
PADDING = 12.0
_NARROWEST = 84.0
_BETWEEN_SOCKETS = 12.0


@dataclass(frozen=True)
class Style:
    """The font of a line of text: its CSS class, size, and the height of the line."""

    css: str
    size: float
    height: float
    bold: bool = False
    mono: bool = False

    def fit(self, text: str, width: float = WIDEST_TEXT) -> str:
        """The text, cut to a width."""
        return fit(text, self.size, width, bold=self.bold, mono=self.mono)

    def width(self, text: str) -> float:
        """The largest width that the text may need."""
        return text_width(text, self.size, bold=self.bold, mono=self.mono)


NAME = Style("name", 13, 18, bold=True)
TYPE = Style("type", 11, 15)
DETAIL = Style("detail", 10.5, 15, mono=True)
SOCKET = Style("socket", 9.5, 13, mono=True)
STATE = Style("state", 9.5, 18, bold=True)


@dataclass(frozen=True)
class Box:
    """A shape's size and lines of text. ``inputs`` and ``outputs`` are x offsets from the middle of the box."""

    shape: Shape
    width: float
    height: float
    lines: tuple[tuple[Style, str], ...]
    inputs: Mapping[str, float]
    outputs: Mapping[str, float]


def make_boxes(shapes: Mapping[str, Shape], layering: Layering) -> dict[str, Box]:
    """A box for every shape. Sockets are ordered like the other ends of their links, so that these do not cross."""
    shares = {vertex: (at + 0.5) / len(layer) for layer in layering.layers for at, vertex in enumerate(layer)}
    inputs: dict[str, dict[str, list[float]]] = {name: {} for name in shapes}
    outputs: dict[str, dict[str, list[float]]] = {name: {} for name in shapes}
    for upper, lower, output, name in layering.parts():
        if isinstance(lower, str):
            inputs[lower].setdefault(name, []).append(shares[upper])
        if isinstance(upper, str):
            outputs[upper].setdefault(output, []).append(shares[lower])
    for arrow in layering.upward:  # they run along the right edge of the picture
        inputs[arrow.target].setdefault(arrow.input, []).append(1.0)
        outputs[arrow.source].setdefault(arrow.output, []).append(1.0)
    return {name: _box(shape, _ordered(inputs[name]), _ordered(outputs[name])) for name, shape in shapes.items()}


def _ordered(sockets: Mapping[str, list[float]]) -> list[str]:
    return sorted(sockets, key=lambda name: sum(sockets[name]) / len(sockets[name]))


def _box(shape: Shape, inputs: list[str], outputs: list[str]) -> Box:
    texts = [(NAME, shape.name), (TYPE, shape.type), *((DETAIL, text) for text in shape.details), (STATE, shape.state)]
    lines = tuple((style, style.fit(text)) for style, text in texts if text or style is DETAIL)
    widest = max((style.width(text) for style, text in lines), default=0.0)
    width = max(_NARROWEST, widest + 2 * PADDING, _total_width(inputs), _total_width(outputs))
    height = sum(style.height for style, _ in lines) + PADDING + (any(inputs) + any(outputs)) * SOCKET.height
    return Box(shape, width, height, lines, _spread(inputs, width), _spread(outputs, width))


def _socket_width(name: str) -> float:
    return SOCKET.width(SOCKET.fit(name)) + _BETWEEN_SOCKETS


def _total_width(names: Iterable[str]) -> float:
    return sum(map(_socket_width, names)) + PADDING


def _spread(names: list[str], width: float) -> dict[str, float]:
    """The middle of every socket as an offset from the middle of the box; free space is shared evenly."""
    spare = (width - _total_width(names)) / (len(names) or 1)
    left, offsets = PADDING / 2 - width / 2, {}
    for name in names:
        space = _socket_width(name) + spare
        offsets[name] = left + space / 2
        left += space
    return offsets
