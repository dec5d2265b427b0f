"""How large each shape is drawn, and where on its border the links begin and end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fopru_graph.drawing.layers import Layers
from fopru_graph.drawing.picture import Shape
from fopru_graph.drawing.text import fit, text_width

WIDEST_TEXT = 240.0
PADDING = 12.0
_NARROWEST = 84.0
_BETWEEN_SOCKETS = 12.0


@dataclass(frozen=True)
class Style:
    """How a line of text is set."""

    css: str
    size: float
    height: float
    bold: bool = False
    mono: bool = False

    def fit(self, text: str, width: float = WIDEST_TEXT) -> str:
        """The text, cut to a width."""
        return fit(text, self.size, width, bold=self.bold, mono=self.mono)

    def width(self, text: str) -> float:
        """The width that the text needs at most."""
        return text_width(text, self.size, bold=self.bold, mono=self.mono)


NAME = Style("name", 13, 18, bold=True)
TYPE = Style("type", 11, 15)
DETAIL = Style("detail", 10.5, 15, mono=True)
SOCKET = Style("socket", 9.5, 13, mono=True)
STATE = Style("state", 9.5, 18, bold=True)


@dataclass(frozen=True)
class Box:
    """A shape's size and lines; the sockets' places count from the middle of the box."""

    shape: Shape
    width: float
    height: float
    lines: tuple[tuple[Style, str], ...]
    inputs: Mapping[str, float]
    outputs: Mapping[str, float]
    input_names: bool
    output_names: bool


def make_boxes(shapes: Mapping[str, Shape], layers: Layers) -> dict[str, Box]:
    """A box for every shape. Sockets stand in the order in which their links come in, so that these do not cross."""
    shares = {place: (at + 0.5) / len(row) for row in layers.rows for at, place in enumerate(row)}
    inputs: dict[str, dict[str, list[float]]] = {name: {} for name in shapes}
    outputs: dict[str, dict[str, list[float]]] = {name: {} for name in shapes}
    for upper, lower, output, name in layers.parts():
        if isinstance(lower, str):
            inputs[lower].setdefault(name, []).append(shares[upper])
        if isinstance(upper, str):
            outputs[upper].setdefault(output, []).append(shares[lower])
    for arrow in layers.upward:  # they run along the right edge of the picture
        inputs[arrow.target].setdefault(arrow.input, []).append(1.0)
        outputs[arrow.source].setdefault(arrow.output, []).append(1.0)
    return {name: _box(shape, _ordered(inputs[name]), _ordered(outputs[name])) for name, shape in shapes.items()}


def _ordered(sockets: Mapping[str, list[float]]) -> list[str]:
    return sorted(sockets, key=lambda name: sum(sockets[name]) / len(sockets[name]))


def _box(shape: Shape, inputs: list[str], outputs: list[str]) -> Box:
    lines = [(NAME, NAME.fit(shape.name)), (TYPE, TYPE.fit(shape.type))]
    lines = [*((style, text) for style, text in lines if text), *((DETAIL, DETAIL.fit(text)) for text in shape.details)]
    if shape.state:
        lines.append((STATE, STATE.fit(shape.state)))
    widest = max((style.width(text) for style, text in lines), default=0.0)
    width = max(_NARROWEST, widest + 2 * PADDING, _row_width(inputs), _row_width(outputs))
    height = sum(style.height for style, _ in lines) + PADDING
    input_names, output_names = any(inputs), any(outputs)
    height += (input_names + output_names) * SOCKET.height
    return Box(
        shape, width, height, tuple(lines), _spread(inputs, width), _spread(outputs, width), input_names, output_names
    )


def _socket_width(name: str) -> float:
    return SOCKET.width(SOCKET.fit(name)) + _BETWEEN_SOCKETS


def _row_width(names: Iterable[str]) -> float:
    return sum(map(_socket_width, names)) + PADDING


def _spread(names: list[str], width: float) -> dict[str, float]:
    """The middle of every socket, counted from the middle of the box; what room is left is shared evenly."""
    spare = (width - _row_width(names)) / (len(names) or 1)
    left, places = PADDING / 2 - width / 2, {}
    for name in names:
        room = _socket_width(name) + spare
        places[name] = left + room / 2
        left += room
    return places
