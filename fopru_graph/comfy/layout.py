"""Where nodes stand on a canvas: in columns from left to right, and how large they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fopru_graph.drawing.boxes import Box
from fopru_graph.drawing.coordinates import coordinates_of
from fopru_graph.drawing.layers import arrange
from fopru_graph.drawing.picture import Arrow, Picture, Shape

Size = tuple[int, int]
Position = tuple[int, int]

TITLE = 30  # a node's title bar stands above its position
# Heights of a socket, a widget, a text of several lines, and what is around, such that neither of the frontend's two
# ways to draw nodes makes one higher: else it would lie on the one below.
_ROW, _WIDGET, _LINES, _MARGIN = 20, 28, 76, 46
_NARROW, _WIDTH, _WIDE, _LETTER = 225, 270, 400, 7
_ACROSS, _BELOW = 60, 20  # free space beside what `drawing` leaves between boxes


def size_of(sockets: int, widgets: int, long_texts: int, title: str) -> Size:
    """(width, height) of a node, without its title bar.

    Args:
        sockets: rows of sockets, the larger number of inputs and outputs.
        widgets: widgets of one line.
        long_texts: widgets of several lines.
        title: what the title bar says.
    """
    width = _WIDE if long_texts else max(_WIDTH if widgets else _NARROW, len(title) * _LETTER + 60)
    return width, _ROW * sockets + _WIDGET * widgets + _LINES * long_texts + _MARGIN


def placed(sizes: Mapping[str, Size], links: Iterable[tuple[str, str]]) -> dict[str, Position]:
    """The upper left corner of each node; no two overlap, and what is read stands left of what reads it.

    Args:
        sizes: of the nodes by id, in their order.
        links: from one node to another.
    """
    # `drawing` lays layers out from top to bottom, so widths and heights change places.
    shapes = {name: Shape(name, "node", name) for name in sizes}
    boxes = {
        name: Box(shapes[name], height + TITLE + _BELOW, width + _ACROSS, (), {"": 0.0}, {"": 0.0})
        for name, (width, height) in sizes.items()
    }
    arrows = tuple(Arrow(*pair) for pair in dict.fromkeys(links))
    layering = arrange(Picture("", shapes, arrows))
    coordinates = coordinates_of(layering, boxes)
    positions = {}
    for layer, (left, _) in zip(layering.layers, coordinates.layers, strict=True):
        for name in layer:
            if isinstance(name, str):
                top = coordinates.x[name] - boxes[name].width / 2 + TITLE
                positions[name] = (round(left), round(top))
    return {name: positions[name] for name in sizes}
