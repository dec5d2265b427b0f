"""How notebooks show what people hold: a graph as its drawing, answers and results as HTML.

The engine knows nothing of drawing, so its classes get their methods here; `fopru_graph.Graph` comes with them.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, RunResult, describe

if TYPE_CHECKING:
    import PIL.Image

    from fopru_graph.answer import Answer

_WIDEST = 900  # pixels of a picture as it is shown
_MOST_TEXT = 2000  # characters of a value
_UNITS = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "kv_bytes": "KV cache", "new_tokens": "new tokens"}


def graph_svg(graph: Graph) -> str:
    """The drawing of a pipeline, as SVG."""
    from fopru_graph.drawing import draw

    return draw(graph, "svg")


def answer_html(answer: Answer) -> str:
    """An answer: text, picture of what was kept, figures."""
    try:
        picture = [_picture(answer.picture, "the visual tokens that were kept")]
    except UserError:  # there is none to draw
        picture = []
    return _page([f"<p><b>{escape(answer.text)}</b></p>", *picture, _table([answer.figures])])


def result_html(result: RunResult) -> str:
    """The result of a run: its outputs, the figures of what was generated, the time of every node."""
    from fopru_graph.measure.timing import summarise

    summary = summarise(result)
    nodes = {name: "cached" if node["cached"] else f"{node['ms']:.1f} ms" for name, node in summary["nodes"].items()}
    figures = [{"node": name} | figures for name, figures in summary["generations"].items()]
    warned = [f"<p>{escape(warning)}</p>" for warning in result.record.warnings]
    details = f"<details><summary>{len(nodes)} nodes</summary>{_rows(nodes.items())}</details>"
    shown = [_output(name, value) for name, value in result.items()]
    return _page([*shown, *warned, _table(figures if len(figures) > 1 else summary["generations"].values()), details])


def _output(name: str, value: Any) -> str:
    """An output under its name: a text, a list of texts, a picture, or what else it is in a few words."""
    import PIL.Image

    if isinstance(value, PIL.Image.Image):
        return _picture(value, name)
    if isinstance(value, str) and value.endswith(".png") and os.path.isfile(value):
        with PIL.Image.open(value) as opened:
            return _picture(opened, f"{name}: {value}")
    texts = value if isinstance(value, list) and all(isinstance(text, str) for text in value) else [value]
    said = [text[:_MOST_TEXT] if isinstance(text, str) else describe(text) for text in texts]
    return "".join(f"<p>{escape(name)}: <b>{escape(text)}</b></p>" for text in said)


def _picture(picture: PIL.Image.Image, text: str) -> str:
    stream = io.BytesIO()
    small = picture.convert("RGB")
    small.thumbnail((_WIDEST, 100 * _WIDEST))
    small.save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    alt = escape(text, quote=True)
    return f'<img src="data:image/png;base64,{data}" width="{small.width}" alt="{alt}" style="max-width: 100%">'


def _table(figures: Iterable[Mapping[str, Any]]) -> str:
    """Figures of generations, one a row; nothing without any."""
    rows = [_columns(row) for row in figures]
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row.values())}</tr>" for row in rows)
    return f"<table><caption>visual tokens and speed</caption><tr>{head}</tr>{body}</table>"


def _columns(figures: Mapping[str, Any]) -> dict[str, str]:
    """The columns of one generation, as they are read."""
    columns: dict[str, str] = {}
    for name, value in figures.items():
        if name == "visual_tokens":
            columns |= {key.replace("_", " "): f"{number:g}" for key, number in (value or {}).items()}
        elif value is None:
            columns[_UNITS.get(name, name)] = "–"
        elif name.endswith("_ms"):
            columns[_UNITS.get(name, name)] = f"{value:.1f} ms"
        elif name.endswith("_bytes"):
            columns[_UNITS.get(name, name)] = f"{value / 2**20:.2f} MiB"
        else:
            columns[_UNITS.get(name, name)] = str(value)
    return columns


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in pairs)
    return f"<table>{cells}</table>"


def _page(parts: Iterable[str]) -> str:
    return f"<div>{''.join(parts)}</div>"


Graph._repr_svg_ = graph_svg  # type: ignore[attr-defined]
RunResult._repr_html_ = result_html  # type: ignore[attr-defined]
