"""Drawing a pipeline: Mermaid, Graphviz DOT, or a standalone picture, SVG or PNG.

``picture`` says what is in the drawing. For SVG, ``layers`` orders the shapes, ``boxes`` measures them and
``coordinates`` gives them their positions; Mermaid and Graphviz do this themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

from fopru_graph.drawing.markup import dot, mermaid
from fopru_graph.drawing.picture import picture_of
from fopru_graph.drawing.svg import svg
from fopru_graph.graph import Graph

_WRITERS = {"mermaid": mermaid, "dot": dot, "svg": svg}
FORMATS = tuple(_WRITERS)


def draw(graph: Graph, form: str, states: Mapping[str, str] | None = None) -> str:
    """The graph as text in one of `FORMATS`; the same graph always gives the same text.

    Every graph can be drawn: a missing node that something refers to is dashed, and links that close a cycle lead back
    up. ``states`` maps names of nodes to ``done``, ``cached``, ``failed`` or another word to show. Raises ValueError
    for an unknown format.
    """
    if form not in _WRITERS:
        raise ValueError(f"cannot draw as {form!r}; the formats are {', '.join(FORMATS)}")
    return _WRITERS[form](picture_of(graph, states))


def draw_png(graph: Graph, states: Mapping[str, str] | None = None) -> bytes:
    """The graph as the content of a PNG file, light, with two pixels for each of the SVG; see `draw`."""
    from fopru_graph.drawing.png import png

    return png(picture_of(graph, states))
