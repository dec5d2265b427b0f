"""What all forms of ``fopru-graph export`` share."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from fopru_graph.commands.arguments import parse_ratios
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph
from fopru_graph.measure.pipelines import at_ratio


def check_writable(output: Path) -> None:
    """Refuse a place that nothing can be written to, before the work.

    Raises:
        UserError: it says why.
    """
    folder = output.parent
    reason = errno.ENOENT if not folder.is_dir() else 0 if os.access(folder, os.W_OK | os.X_OK) else errno.EACCES
    reason = errno.EISDIR if output.is_dir() else reason
    if reason:
        raise UserError(f"{output} cannot be written: {os.strerror(reason)}", "name another file with -o")


def at_one_ratio(graph: Graph, text: str | None) -> Graph:
    """The pipeline at the ratio of ``--ratio``.

    Raises:
        UserError: there are several, or the pipeline has none to set.
    """
    ratios = parse_ratios(text)
    if ratios is None:
        return graph
    if len(ratios) > 1:
        raise UserError(f"--ratio {text}: a file holds the tokens of one ratio", "give one")
    return at_ratio(graph, ratios[0])
