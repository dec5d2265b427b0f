"""A picture as a PNG file: the SVG, on a light ground, drawn by Pillow; it needs no other program.

Only what ``svg.py`` writes is understood: rounded rectangles, texts, and paths of M, V, H, C, q, l and z.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, ImageDraw, ImageFont

from fopru_graph.drawing.boxes import DETAIL, NAME, SOCKET, STATE, TYPE
from fopru_graph.drawing.picture import Picture
from fopru_graph.drawing.style import LIGHT, accent, fill
from fopru_graph.drawing.svg import svg

_SCALE = 2  # pixels of the PNG per unit of the SVG, so that it is sharp on dense screens too
_FINER = 2  # it is drawn this many times larger: Pillow draws lines without smooth edges
_LINE, _BOX, _FAILED, _FRAME = 1.6, 1.4, 2.6, 1.0  # widths
_DASH, _SPACE = 5.0, 4.0
_SEGMENTS = 24  # of a curve
_TEXTS = {style.css: style for style in (NAME, TYPE, DETAIL, SOCKET, STATE)}
_TOKEN = re.compile(r"[A-Za-z]|-?\d+(?:\.\d+)?")

Point = tuple[float, float]


def png(picture: Picture) -> bytes:
    """The picture as the content of a PNG file; the same picture gives the same pixels."""
    root = ElementTree.fromstring(svg(picture))
    canvas = _Canvas(float(root.attrib["width"]), float(root.attrib["height"]))
    for element in root:
        canvas.draw(element, ())
    stream = io.BytesIO()
    canvas.picture().save(stream, "PNG")
    return stream.getvalue()


class _Canvas:
    def __init__(self, width: float, height: float) -> None:
        self._unit = _SCALE * _FINER
        self._size = round(width * _SCALE), round(height * _SCALE)
        self._image = Image.new("RGB", (self._size[0] * _FINER, self._size[1] * _FINER), LIGHT.panel)
        self._draw = ImageDraw.Draw(self._image)

    def picture(self) -> Image.Image:
        return self._image.resize(self._size, Image.Resampling.BOX)

    def draw(self, element: ElementTree.Element, around: Sequence[str]) -> None:
        """Draw an element and all in it; ``around`` are the CSS classes of those that it is in."""
        css = [*around, *element.attrib.get("class", "").split()]
        kind = element.tag.rpartition("}")[2]
        if kind == "rect":
            self._rectangle(element, css)
        elif kind == "text":
            self._text(element, css[-1])
        elif kind == "path":
            self._path(element.attrib["d"], css)
        for inner in element if kind == "g" else ():
            self.draw(inner, css)

    def _rectangle(self, element: ElementTree.Element, css: Sequence[str]) -> None:
        x, y, width, height, radius = (float(element.attrib[name]) for name in ("x", "y", "width", "height", "rx"))
        inside, edge, line = _paint(css)
        dashed = "missing" in css
        self._draw.rounded_rectangle(
            [self._at((x, y)), self._at((x + width, y + height))],
            radius * self._unit,
            inside,
            None if dashed else edge,
            0 if dashed else round(line * self._unit),
        )
        if dashed:
            for dash in _dashes(_outline(x, y, width, height, radius)):
                self._line(dash, edge, line)

    def _text(self, element: ElementTree.Element, css: str) -> None:
        style = _TEXTS[css]
        at = self._at((float(element.attrib["x"]), float(element.attrib["y"])))
        colour = {"type": LIGHT.muted, "socket": LIGHT.muted, "state": LIGHT.panel}.get(css, LIGHT.text)
        name = "DejaVuSansMono" if style.mono else "DejaVuSans-Bold" if style.bold else "DejaVuSans"
        self._draw.text(at, element.text or "", colour, _font(name, style.size * self._unit), anchor="ms")

    def _path(self, text: str, css: Sequence[str]) -> None:
        points, colour = list(_points(text)), accent(_hue(css))
        if css[-1] == "tip":
            self._draw.polygon([self._at(point) for point in points], colour)
        else:
            self._line(points, colour, _LINE)

    def _line(self, points: Sequence[Point], colour: str, width: float) -> None:
        ends = [self._at(point) for point in points]
        self._draw.line(ends, colour, round(width * self._unit), joint="curve")

    def _at(self, point: Point) -> Point:
        return point[0] * self._unit, point[1] * self._unit


def _hue(css: Sequence[str]) -> int:
    return next(int(name[1:]) for name in css if re.fullmatch(r"c\d+", name))


def _paint(css: Sequence[str]) -> tuple[str, str, float]:
    """The inside of a rectangle, its border, and the border's width."""
    if css[-1] == "panel":
        return LIGHT.panel, LIGHT.frame, _FRAME
    if css[-1] == "badge":
        colour = LIGHT.done if "done" in css else LIGHT.failed if "failed" in css else LIGHT.muted
        return colour, colour, 0
    failed = "failed" in css
    return fill(_hue(css)), LIGHT.failed if failed else accent(_hue(css)), _FAILED if failed else _BOX


def _points(text: str) -> Iterator[Point]:
    """The points of a path, curves as many short lines."""
    tokens = _TOKEN.findall(text)
    x = y = 0.0
    while tokens:
        command = tokens.pop(0)
        count = {"M": 2, "V": 1, "H": 1, "C": 6, "q": 4, "l": 2, "z": 0}[command]
        while count and tokens and not tokens[0].isalpha():
            given, tokens = [float(token) for token in tokens[:count]], tokens[count:]
            if command == "V":
                given = [x, *given]
            elif command == "H":
                given = [*given, y]
            elif command.islower():
                given = [number + (x, y)[index % 2] for index, number in enumerate(given)]
            ends = [(x, y), *zip(given[::2], given[1::2], strict=True)]
            yield from _curve(ends) if command in "Cq" else ends[1:]
            x, y = ends[-1]


def _curve(ends: Sequence[Point]) -> Iterator[Point]:
    """A Bézier curve of any degree through its end points, by de Casteljau, without its first point."""
    for step in range(1, _SEGMENTS + 1):
        share, level = step / _SEGMENTS, list(ends)
        while len(level) > 1:
            level = [(a + share * (c - a), b + share * (d - b)) for (a, b), (c, d) in zip(level, level[1:])]  # noqa: B905
        yield level[0]


def _outline(x: float, y: float, width: float, height: float, radius: float) -> list[Point]:
    right, low, r = x + width, y + height, radius
    path = (
        f"M{x + r} {y} H{right - r} q{r} 0 {r} {r} V{low - r} q0 {r} {-r} {r} H{x + r} q{-r} 0 {-r} {-r} "
        f"V{y + r} q0 {-r} {r} {-r}"
    )
    return list(_points(path))


def _dashes(points: Sequence[Point]) -> Iterator[list[Point]]:
    """The parts of a line that are drawn where it is dashed."""
    dash, left, drawn = [points[0]], _DASH, True
    for end in points[1:]:
        (x, y), (a, b) = dash[-1], end
        while (length := ((a - x) ** 2 + (b - y) ** 2) ** 0.5) > left:
            x, y = x + (a - x) * left / length, y + (b - y) * left / length
            dash.append((x, y))
            if drawn:
                yield dash
            dash, drawn = [(x, y)], not drawn
            left = _DASH if drawn else _SPACE
        left -= length
        dash.append(end)
    if drawn:
        yield dash


@functools.lru_cache(maxsize=16)
def _font(name: str, size: float) -> ImageFont.FreeTypeFont:
    """A font that matplotlib ships, so that a picture is the same on every machine; matplotlib itself is not loaded."""
    package = Path(str(getattr(importlib.util.find_spec("matplotlib"), "origin", None))).parent
    return ImageFont.truetype(package / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf", size)
