"""The page: one HTML file that needs nothing else, filled from the templates of this folder."""

from __future__ import annotations

import functools
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fopru_graph.report.bench.table import machine_line
from fopru_graph.report.page.findings import Sentences
from fopru_graph.report.page.pictures import Kept
from fopru_graph.report.page.style import Drawing
from fopru_graph.report.page.table import Table
from fopru_graph.report.plots import COLOURS, INK, PALE, PAPER
from fopru_graph.results.methods import ModelResults, one_line
from fopru_graph.results.reading import LeftOut
from fopru_graph.results.schema import Data, Identity
from fopru_graph.terminal.format import accuracy_text, counted, ratio_text

SECTIONS = {
    "findings": "Findings",
    "accuracy": "Accuracy against retention",
    "relative": "Relative accuracy by strategy",
    "time": "Accuracy against time to first token",
    "tokens": "Tokens and KV cache",
    "attention": "Attention and kept tokens",
    "tables": "Tables",
    "paired": "Paired comparisons",
}
Block = Sentences | Table | Drawing | Kept  # each names the template that shows it


@dataclass(frozen=True, eq=False)
class Chapter:
    """All that the page says about one model: blocks by section, with a key for each of `SECTIONS`."""

    study: ModelResults
    sections: Mapping[str, Sequence[Block]]

    @property
    def tables(self) -> list[Table]:
        """The tables of all sections."""
        return [block for blocks in self.sections.values() for block in blocks if isinstance(block, Table)]

    @property
    def drawings(self) -> list[Drawing]:
        """The figures of all sections."""
        return [block for blocks in self.sections.values() for block in blocks if isinstance(block, Drawing)]

    @property
    def summary(self) -> str:
        """What was measured, how often and when, e.g. ``2 methods and the unpruned model on pope (500 samples), …``."""
        study = self.study
        counts = []
        for task in study.tasks:
            points = [point for method in study.methods for point in method.points.get(task, {}).values()]
            points += [study.unpruned[task]] if task in study.unpruned else []
            counts.append(f"{task} ({max(point.cell.summary.n for point in points)} samples)")
        unpruned = "and the unpruned model" if study.unpruned else "without an unpruned model to compare with"
        days = sorted(cell.identity.started[:10] for cell in study.cells if cell.identity.started)
        when = "" if not days else f", {days[0]}" if days[0] == days[-1] else f", {days[0]} to {days[-1]}"
        methods = counted(len(study.methods), "method")
        return f"{methods} {unpruned} on {', '.join(counts)}, {len(study.cells)} cells{when}"


def page(chapters: Sequence[Chapter], left_out: Sequence[LeftOut], command: Sequence[str]) -> str:
    """The whole page, which ``command`` makes; the same content always gives the same text."""
    return render(
        "page",
        title=f"Visual-token pruning on {', '.join(chapter.study.model for chapter in chapters)}",
        chapters=chapters,
        left_out=left_out,
        sections={key: name for key, name in SECTIONS.items() if any(chapter.sections[key] for chapter in chapters)},
        provenance=_provenance([chapter.study for chapter in chapters], command),
    )


def render(template: str, **values: Any) -> str:
    """Fill ``templates/TEMPLATE.html.jinja``. Text is escaped; characters that HTML forbids become U+FFFD.

    A block is shown by its own template, e.g. ``render(table.template, block=table)``.
    """
    text = _environment().get_template(f"{template}.html.jinja").render(values)
    return re.sub(r"[^\n\t\x20-\uD7FF\uE000-\U0010FFFF]", "\ufffd", text)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    environment.filters.update(accuracy_text=accuracy_text, one_line=one_line, ratio_text=ratio_text)
    environment.globals["inline_svg"] = inline_svg
    return environment


def inline_svg(svg: bytes, prefix: str, alt: str) -> Markup:
    """An SVG file of matplotlib as an element of the page.

    Its ids get a prefix, since they must differ from those of other figures; its colours become variables of the
    style sheet, which has other values for dark screens; metadata is left out.
    """
    root = ElementTree.fromstring(svg)
    for metadata in root.findall("{*}metadata"):
        root.remove(metadata)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(name): _adapted(_local(name), value, prefix) for name, value in element.items()}
        element.text = (element.text or "").strip() or None
        element.tail = "\n"
    root.attrib = {"role": "img", "aria-label": alt, **root.attrib}
    return Markup(ElementTree.tostring(root, encoding="unicode").strip())


def _local(name: str) -> str:
    """A name without its namespace, which HTML does not know, e.g. ``{http://www.w3.org/2000/svg}path`` → ``path``."""
    namespace, _, local = name.rpartition("}")
    return f"xlink:{local}" if namespace.endswith("xlink") else local


def _adapted(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "xlink:href" and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    value = value.replace("url(#", f"url(#{prefix}-")
    for colour in (INK, PALE, PAPER, *COLOURS):
        value = value.replace(f": {colour}", f": var({css_variable(colour)})")
    return value


def css_variable(colour: str) -> str:
    """The variable of ``page.css`` for a colour of the figures."""
    return f"--c{colour.removeprefix('#')}"


@dataclass(frozen=True)
class _Provenance:
    """Where the figures come from: lines of facts by heading, and lines for a shell that make all of it again."""

    facts: Mapping[str, Sequence[str]]
    commands: Sequence[str]


def _provenance(studies: Sequence[ModelResults], report: Sequence[str]) -> _Provenance:
    cells = [cell for study in studies for cell in study.cells]
    facts = {
        "Versions": _distinct(_listed(cell.identity.versions) for cell in cells),
        "Machines": _distinct(machine_line(cell.identity.machine) for cell in cells),
        "Tasks and scorers": _distinct(f"{cell.identity.task}: {cell.identity.scorer}" for cell in cells),
        "Data": _distinct(f"{cell.identity.task}: {_source(cell.identity.data)}" for cell in cells),
    }
    return _Provenance(facts, [*_commands(cell.identity for cell in cells), shlex.join(report)])


def _commands(identities: Iterable[Identity]) -> list[str]:
    """Every command once, after a ``cd`` into the folder that its paths are relative to."""
    lines: list[str] = []
    cwd = ""
    for given, folder in dict.fromkeys((tuple(each.command), each.cwd) for each in identities if each.command):
        if folder and folder != cwd:
            lines.append(shlex.join(("cd", folder)))
            cwd = folder
        lines.append(shlex.join(given))
    return lines


def _distinct(lines: Iterable[str]) -> list[str]:
    """Every different line; with the number of cells that it is true of, where there are several lines."""
    counts = Counter(lines)
    return [f"{line} ({counted(n, 'cell')})" if len(counts) > 1 else line for line, n in counts.items()]


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items()) or "not recorded"


def _source(data: Data) -> str:
    return f"{data.source or 'source not recorded'}, fingerprint {data.fingerprint or 'not recorded'}"
