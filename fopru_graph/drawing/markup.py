"""A picture as text for programs that do the layout: Mermaid and Graphviz DOT."""

from __future__ import annotations

import re

from fopru_graph.drawing.picture import Arrow, Picture, Shape
from fopru_graph.drawing.style import LIGHT, accent, fill, fit

_WIDTH, _SIZE = 320, 12  # of the longest line of a label, approximately
_HARMLESS = re.compile(r"[A-Za-z0-9 _.,=/()+-]")


def mermaid(picture: Picture) -> str:
    """The picture as a Mermaid flowchart."""
    shapes = picture.shapes.values()
    lines = ["flowchart TD"]
    for shape in shapes:
        label = "<br/>".join(map(_mermaid_text, _label_lines(shape)))
        lines.append(f'  {shape.id}["{label}"]' if shape.kind == "node" else f'  {shape.id}(["{label}"])')
    for arrow in picture.arrows:
        label = _mermaid_text(_arrow_label(arrow))
        lines.append(f"  {arrow.source} -->" + (f'|"{label}"|' if label else "") + f" {arrow.target}")
    for colour in sorted({shape.colour for shape in shapes}):
        style = f"fill:{fill(colour)},stroke:{accent(colour)},color:{LIGHT.text}"
        lines += _mermaid_class(f"c{colour}", style, [shape.id for shape in shapes if shape.colour == colour])
    lines += _mermaid_class("missing", "stroke-dasharray:5 4", [shape.id for shape in shapes if shape.dashed])
    failed = [shape.id for shape in shapes if shape.state == "failed"]
    lines += _mermaid_class("failed", f"stroke:{LIGHT.failed},stroke-width:3px", failed)
    return "\n".join(lines) + "\n"


def _mermaid_class(name: str, style: str, members: list[str]) -> list[str]:
    return [f"  classDef {name} {style}", f"  class {','.join(members)} {name}"] if members else []


def _mermaid_text(text: str) -> str:
    """The text with a numeric entity for every character that Mermaid, HTML or Markdown may interpret."""
    return "".join(char if _HARMLESS.match(char) or char.isalpha() else f"#{ord(char)};" for char in text)


def dot(picture: Picture) -> str:
    """The picture as a Graphviz graph."""
    lines = [
        f"digraph {_dot_text(picture.title)} {{",
        "  rankdir=TB",
        '  node [shape=box, style=filled, fontname="Helvetica", fontsize=11]',
        '  edge [fontname="Helvetica", fontsize=9]',
    ]
    for shape in picture.shapes.values():
        attributes = ", ".join(f"{key}={value}" for key, value in _dot_attributes(shape).items())
        lines.append(f"  {shape.id} [{attributes}]")
    for arrow in picture.arrows:
        colour = _dot_text(accent(picture.shapes[arrow.source].colour))
        lines.append(f"  {arrow.source} -> {arrow.target} [label={_dot_text(_arrow_label(arrow))}, color={colour}]")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_attributes(shape: Shape) -> dict[str, str]:
    label = "\\n".join(_dot_text(line)[1:-1] for line in _label_lines(shape))
    attributes = {"label": f'"{label}"', "tooltip": _dot_text(shape.doc or shape.name)}
    attributes["fillcolor"], attributes["color"] = _dot_text(fill(shape.colour)), _dot_text(accent(shape.colour))
    attributes["fontcolor"] = _dot_text(LIGHT.text)
    styles = ["filled", *(["rounded"] if shape.kind != "node" else []), *(["dashed"] if shape.dashed else [])]
    attributes["style"] = f'"{",".join(styles)}"'
    if shape.state == "failed":
        attributes["color"], attributes["penwidth"] = _dot_text(LIGHT.failed), "3"
    return attributes


def _dot_text(text: str) -> str:
    """A quoted string; Graphviz reads backslashes as escapes and ampersands as HTML entities."""
    return '"' + text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') + '"'


def _label_lines(shape: Shape) -> list[str]:
    texts = [shape.name, shape.type, *shape.details, f"({shape.state})" if shape.state else ""]
    return [fit(text, _SIZE, _WIDTH) for text in texts if text]


def _arrow_label(arrow: Arrow) -> str:
    """The input's name, preceded by the output's name if the node has several outputs."""
    names = [fit(name, _SIZE, _WIDTH) for name in (arrow.output, arrow.path) if name]
    return " → ".join(names)
