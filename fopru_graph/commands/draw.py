"""``fopru-graph draw``: a pipeline as text or as a picture, in the format that the file's name says."""

from __future__ import annotations

from pathlib import Path

from fopru_graph.commands.arguments import fail, make_registry, open_graph, write_bytes, write_text
from fopru_graph.drawing import FORMATS, draw, draw_png

_PNG = "png"
_OF_SUFFIX = {".svg": "svg", ".png": _PNG, ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid"}


def draw_pipeline(
    file: Path, form: str | None, output: Path | None, nodes: list[Path] | None, changes: list[str]
) -> None:
    """Draw a pipeline into ``output``, or on stdout, where PNG has no place; ``changes`` as for `open_graph`."""
    form = _format(form, output)
    graph = open_graph(file, make_registry(nodes), changes)
    if form != _PNG:
        write_text(draw(graph, form), output)
    elif output is None:
        fail(2, "a PNG is no text for stdout", "name a file: -o pipeline.png")
    else:
        write_bytes(draw_png(graph), output)


def _format(form: str | None, output: Path | None) -> str:
    """The format that is asked for by its name, or else by the name of the file; Mermaid where neither says one."""
    known = (*FORMATS, _PNG)
    if form is not None and form not in known:
        fail(2, f"format {form!r} is unknown", f"choose {', '.join(known)}")
    suffix = output.suffix.lower() if output is not None else ""
    named = _OF_SUFFIX.get(suffix)
    if form is None and suffix and named is None:
        fail(2, f"{output}: no format goes by {suffix}", f"name it {', '.join(_OF_SUFFIX)}, or say --format")
    if form is not None and named not in (None, form):
        fail(2, f"--format {form} does not fit the name {output}", "leave out --format, or change the name")
    return form or named or "mermaid"
