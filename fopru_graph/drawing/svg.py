"""A picture as a standalone SVG file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape, quoteattr

from fopru_graph.drawing.boxes import PADDING, SOCKET, STATE, Box, make_boxes
from fopru_graph.drawing.coordinates import GAP, MARGIN, coordinates_of
from fopru_graph.drawing.layers import Vertex, arrange
from fopru_graph.drawing.picture import DISABLED, Arrow, Picture
from fopru_graph.drawing.style import DARK, LIGHT, NEUTRAL, Ground, accent, fill

_TIP = 7.0  # length of an arrow head
_LANE = 12.0  # between links that lead up, right of everything
_CORNER = 8.0
_SANS = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif'
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"


def svg(picture: Picture) -> str:
    """The picture as SVG text: light or dark like the reader's system, light if that is unknown."""
    return _Drawing(picture).text()


class _Drawing:
    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.layering = arrange(picture)
        self.boxes = make_boxes(picture.shapes, self.layering)
        self.at = coordinates_of(self.layering, self.boxes)
        self.layer_of = {name: number for number, layer in enumerate(self.layering.layers) for name in layer}

    def text(self) -> str:
        title = f"Pipeline {self.picture.title}".strip()
        width, height = self.at.width + len(self.layering.upward) * _LANE, self.at.height
        size = f'width="{_n(width)}" height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(title)}>',
            f"<title>{escape(title)}</title>",
            f"<style>{_style_sheet()}</style>",
            f'<rect class="panel" x="0.5" y="0.5" width="{_n(width - 1)}" height="{_n(height - 1)}" rx="10"/>',
            *self._links(),
            *(line for box in self.boxes.values() for line in self._box(box)),
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    # -- shapes -------------------------------------------------------------------------------------------------------

    def _top(self, box: Box) -> float:
        upper, lower = self.at.layers[self.layer_of[box.shape.id]]
        return (upper + lower - box.height) / 2

    def _box(self, box: Box) -> Iterator[str]:
        shape, middle, top = box.shape, self.at.x[box.shape.id], self._top(box)
        flags = ["missing"] * shape.missing + [state for state in ("done", "failed", DISABLED) if state == shape.state]
        css = " ".join([shape.kind, f"c{shape.colour}", *flags])
        radius = 7.0 if shape.kind == "node" else box.height / 2
        frame = f'x="{_n(middle - box.width / 2)}" y="{_n(top)}" width="{_n(box.width)}" height="{_n(box.height)}"'
        yield f'<g id="{shape.id}" class="{css}">'
        yield f"<title>{escape(_tooltip(box))}</title>"
        yield f'<rect class="box" {frame} rx="{_n(radius)}"/>'
        baseline = top + PADDING / 2
        if any(box.inputs):
            yield from _sockets(box.inputs, middle, baseline + SOCKET.height - 4)
            baseline += SOCKET.height
        for style, text in box.lines:
            if style is STATE:
                yield _badge(text, middle, baseline)
            yield _text(style.css, middle, baseline + style.height - 4.5, text)
            baseline += style.height
        if any(box.outputs):
            yield from _sockets(box.outputs, middle, baseline + SOCKET.height - 3)
        yield "</g>"

    # -- links --------------------------------------------------------------------------------------------------------

    def _links(self) -> Iterator[str]:
        for (source, output), trunk in self.layering.trunks.items():
            if len(trunk) > 1:
                path = self._trunk(trunk, self._start(source, output))
                colour = self.picture.shapes[source].colour
                yield f'<path class="line c{colour}" data-trunk="{source}" d="{path}"/>'
        for arrow, above in self.layering.ends.items():
            yield from self._link(arrow, self._downward(arrow, above))
        for number, arrow in enumerate(self.layering.upward):
            yield from self._link(arrow, self._around(arrow, number))

    def _link(self, arrow: Arrow, path: str) -> Iterator[str]:
        shapes = self.picture.shapes
        ends = f'data-from="{arrow.source}" data-to="{arrow.target}" data-input={quoteattr(arrow.path)}'
        source = shapes[arrow.source].name + (f".{arrow.output}" if arrow.output else "")
        target = shapes[arrow.target].name + (f".{arrow.path}" if arrow.path else "")
        x, y = self._end(arrow)
        yield f'<g class="link c{shapes[arrow.source].colour}" {ends}>'
        yield f"<title>{escape(source)} → {escape(target)}</title>"
        yield f'<path class="line" d="{path}"/>'
        yield f'<path class="tip" d="M{_n(x)},{_n(y)} l-4,-{_n(_TIP)} l8,0 z"/></g>'

    def _start(self, source: str, output: str) -> tuple[float, float]:
        box = self.boxes[source]
        return self.at.x[source] + box.outputs[output], self._top(box) + box.height

    def _end(self, arrow: Arrow) -> tuple[float, float]:
        box = self.boxes[arrow.target]
        return self.at.x[arrow.target] + box.inputs[arrow.input], self._top(box)

    def _trunk(self, trunk: list[Vertex], start: tuple[float, float]) -> str:
        """The part that several links share: from layer to layer, straight through each of them."""
        x, y = start
        parts = [f"M{_n(x)},{_n(y)}"]
        for bend in trunk[1:]:
            next_x, layer = self.at.x[bend], self.layer_of[bend]
            parts += [self._step(x, next_x, layer), f"V{_n(self.at.layers[layer][1])}"]
            x = next_x
        return " ".join(parts)

    def _downward(self, arrow: Arrow, above: Vertex) -> str:
        """The last part of a link, from its source or its trunk."""
        if isinstance(above, str):
            x, y = self._start(arrow.source, arrow.output)
        else:
            x, y = self.at.x[above], self.at.layers[self.layer_of[above]][1]
        end_x, end_y = self._end(arrow)
        step = self._step(x, end_x, self.layer_of[arrow.target])
        return f"M{_n(x)},{_n(y)} {step} V{_n(end_y - _TIP + 1)}"

    def _step(self, x: float, next_x: float, layer: int) -> str:
        """A curve through the gap above a layer, so that no box is in the way."""
        upper = self.at.layers[layer][0]
        middle = _n(upper - GAP / 2)
        return f"V{_n(upper - GAP)} C{_n(x)},{middle} {_n(next_x)},{middle} {_n(next_x)},{_n(upper - _TIP)}"

    def _around(self, arrow: Arrow, number: int) -> str:
        """Out below the source, up along the right edge, and in above the target."""
        (x, y), (end_x, end_y) = self._start(arrow.source, arrow.output), self._end(arrow)
        lane = self.at.width - MARGIN / 2 + number * _LANE
        low = self.at.layers[self.layer_of[arrow.source]][1] + GAP / 3
        high = self.at.layers[self.layer_of[arrow.target]][0] - GAP / 3
        corner = _CORNER
        return (
            f"M{_n(x)},{_n(y)} V{_n(low - corner)} q0,{corner} {corner},{corner} H{_n(lane - corner)} "
            f"q{corner},0 {corner},-{corner} V{_n(high + corner)} q0,-{corner} -{corner},-{corner} "
            f"H{_n(end_x + corner)} q-{corner},0 -{corner},{corner} V{_n(end_y - _TIP + 1)}"
        )


def _tooltip(box: Box) -> str:
    shape = box.shape
    head = f"{shape.name}: {shape.type}" if shape.type else shape.name
    return "\n".join([head, *([shape.doc] if shape.doc else []), *shape.details])


def _text(css: str, x: float, y: float, text: str) -> str:
    return f'<text class="{css}" x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>'


def _sockets(offsets: Mapping[str, float], middle: float, y: float) -> Iterator[str]:
    return (_text(SOCKET.css, middle + offset, y, SOCKET.fit(name)) for name, offset in offsets.items() if name)


def _badge(state: str, middle: float, top: float) -> str:
    """The background of a run state, which is written as a word because not everybody can see colours."""
    width = STATE.width(state) + PADDING
    left = middle - width / 2
    return f'<rect class="badge" x="{_n(left)}" y="{_n(top + 3)}" width="{_n(width)}" height="14" rx="7"/>'


def _n(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _style_sheet() -> str:
    fonts = (
        f"text{{font-family:{_SANS};text-anchor:middle}}.name{{font-size:13px;font-weight:600}}.type{{font-size:11px}}"
        f".detail,.socket{{font-family:{_MONO}}}.detail{{font-size:10.5px}}.socket{{font-size:9.5px}}"
        ".state{font-size:9.5px;font-weight:600}.line{fill:none;stroke-width:1.6}.box{stroke-width:1.4}"
        ".missing .box,.disabled .box{stroke-dasharray:5 4}.failed .box{stroke-width:2.6}"
    )
    return f"{fonts}{_colours(LIGHT)}@media (prefers-color-scheme:dark){{{_colours(DARK)}}}"


def _colours(ground: Ground) -> str:
    rules = [
        f".panel{{fill:{ground.panel};stroke:{ground.frame}}}text{{fill:{ground.text}}}",
        f".type,.socket{{fill:{ground.muted}}}.badge{{fill:{ground.muted}}}.state{{fill:{ground.panel}}}",
    ]
    for index in range(NEUTRAL + 1):
        strong = accent(index, ground)
        rules.append(
            f".c{index} .box{{fill:{fill(index, ground)};stroke:{strong}}}"
            f".c{index} .line,.line.c{index}{{stroke:{strong}}}.c{index} .tip{{fill:{strong}}}"
        )
    rules.append(f".done .badge{{fill:{ground.done}}}.failed .badge{{fill:{ground.failed}}}")
    rules.append(f".failed .box{{stroke:{ground.failed}}}")
    return "".join(rules)
