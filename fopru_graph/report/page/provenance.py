"""Where the figures of a page are from: versions, machines, data, commands, and every cell with its hashes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fopru_graph.report.bench.table import machine_line
from fopru_graph.report.page.html import Markup, element, join
from fopru_graph.report.page.tables import points_text
from fopru_graph.results.methods import ModelResults, one_line
from fopru_graph.results.reading import FinishedCell
from fopru_graph.terminal.console import percent


def provenance(studies: Sequence[ModelResults]) -> Markup:
    """The last section of the page."""
    cells = [cell for study in studies for cell in study.cells]
    commands = list(dict.fromkeys(shlex.join(cell.identity.command) for cell in cells if cell.identity.command))
    facts = [
        ("Versions", _counted(_line(cell.identity.versions) for cell in cells)),
        ("Machines", _counted(machine_line(cell.identity.machine) for cell in cells)),
        ("Tasks and scorers", _counted(f"{cell.identity.task}: {cell.identity.scorer}" for cell in cells)),
        ("Data", _counted(_data(cell) for cell in cells)),
    ]
    return join(
        *(join(element("h3", name), element("ul", *lines)) for name, lines in facts),
        element("h3", "To run it all again"),
        element("pre", "\n".join([*(_whole(command) for command in commands), "fopru-graph report DIR"])),
        element("h3", "Cells"),
        _cells(studies),
        element(
            "p",
            "Hashes are the first twelve digits of SHA-256: of the pipeline with its settings, and of "
            "results.jsonl, whose timings differ from run to run.",
            class_="note",
        ),
    )


def _counted(lines: Iterable[str]) -> list[Markup]:
    """Every different line with the number of cells that it is true of, where that is not all."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line] = counts.get(line, 0) + 1
    several = len(counts) > 1
    return [
        element("li", f"{line} ({count} cell{'s' if count != 1 else ''})" if several else line)
        for line, count in counts.items()
    ]


def _line(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items()) or "not recorded"


def _data(cell: FinishedCell) -> str:
    data = cell.identity.data
    fingerprint = data.fingerprint or "not recorded"
    return f"{cell.identity.task}: {data.source or 'source not recorded'}, fingerprint {fingerprint}"


def _whole(command: str) -> str:
    """A command on one line, whatever is in it."""
    return " ".join(command.splitlines())


def _cells(studies: Sequence[ModelResults]) -> Markup:
    names = ("Folder", "Model", "Ratio", "Accuracy, %", "n", "Errors", "Started", "Pipeline", "Results")
    rows = [
        element(
            "tr",
            element("th", element("code", cell.folder.name), scope="row"),
            element("td", study.model),
            element("td", "as written" if cell.identity.ratio is None else percent(cell.identity.ratio)),
            element("td", points_text(cell.summary.accuracy)),
            element("td", str(cell.summary.n)),
            element("td", str(cell.summary.errors)),
            element("td", one_line(cell.identity.started)),
            element("td", element("code", cell.graph_digest[:12])),
            element("td", element("code", cell.digest[:12])),
        )
        for study in studies
        for cell in study.cells
    ]
    kinds = ["head", *[None] * (len(names) - 1)]
    titles = [element("th", name, scope="col", class_=kind) for name, kind in zip(names, kinds, strict=True)]
    head = element("thead", element("tr", *titles))
    table = element("table", element("caption", "Every cell of this report"), head, element("tbody", *rows))
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label="Cells")
