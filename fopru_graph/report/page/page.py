"""The page: one HTML file that needs nothing else, for screens of any width, light and dark, and for paper."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fopru_graph.report.page.css import STYLE
from fopru_graph.report.page.html import Markup, element, escape, join, void
from fopru_graph.report.page.pictures import Kept
from fopru_graph.report.page.provenance import provenance
from fopru_graph.report.page.style import Drawing, inline_svg
from fopru_graph.report.page.table import Table, to_html
from fopru_graph.results.methods import ModelResults
from fopru_graph.results.reading import LeftOut


@dataclass(frozen=True, eq=False)
class Chapter:
    """All that the page says of one model."""

    study: ModelResults
    best: Table | None
    references: tuple[str, ...]
    losses: tuple[str, ...]
    failures: tuple[str, ...]
    figures: dict[str, Drawing]
    kept: tuple[Kept, ...]
    accuracy: Table
    types: tuple[Table, ...]
    ablation: Table | None
    paired: tuple[Table, ...]
    groups: tuple[Table, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table."""
        some = (self.best, self.accuracy, *self.types, self.ablation, *self.paired, *self.groups)
        return tuple(table for table in some if table is not None)


def page(chapters: Sequence[Chapter], left_out: Sequence[LeftOut]) -> str:
    """The whole page; the same content always gives the same text."""
    models = ", ".join(chapter.study.model for chapter in chapters)
    title = f"Visual-token pruning on {models}"
    sections = [
        _section("findings", "Findings", chapters, _findings),
        _section("accuracy", "Accuracy against retention", chapters, lambda c: _figure(c, "accuracy")),
        _section("relative", "Relative accuracy by strategy", chapters, lambda c: _figure(c, "relative")),
        _section("time", "Accuracy against time to first token", chapters, lambda c: _figure(c, "ttft")),
        _section("tokens", "Tokens and KV cache", chapters, lambda c: _figure(c, "tokens")),
        _section("attention", "Attention and kept tokens", chapters, _attention),
        _section("tables", "Tables", chapters, _tables),
        _section("paired", "Paired comparisons", chapters, _paired),
    ]
    shown = [section for section in sections if section is not None]
    shown.append(("provenance", "Provenance", provenance([chapter.study for chapter in chapters])))
    links = [element("li", element("a", name, href=f"#{key}")) for key, name, _ in shown]
    body = join(
        element("header", element("h1", title), _summary(chapters)),
        _left_out(left_out),
        element("nav", element("ol", *links), aria_label="Sections"),
        element("main", *(element("section", element("h2", name), content, id=key) for key, name, content in shown)),
    )
    head = join(
        void("meta", charset="utf-8"),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    return f"<!DOCTYPE html>\n{element('html', element('head', head), element('body', body), lang='en')}\n"


def _section(
    key: str, name: str, chapters: Sequence[Chapter], content: Callable[[Chapter], Markup]
) -> tuple[str, str, Markup] | None:
    """A section with a part for every model; None where no model has anything in it."""
    parts = [(chapter.study.model, content(chapter)) for chapter in chapters]
    several = len(parts) > 1
    inside = [join(element("h3", model) if several else None, part) for model, part in parts if part]
    return (key, name, join(*inside)) if inside else None


def _summary(chapters: Sequence[Chapter]) -> Markup:
    """What was measured, when, with what."""
    lines = []
    for chapter in chapters:
        study = chapter.study
        counts = []
        for task in study.tasks:
            own = [point.cell.summary.n for method in study.methods for point in method.points.get(task, {}).values()]
            own += [study.unpruned[task].cell.summary.n] if task in study.unpruned else []
            counts.append(f"{task} ({max(own)} samples)")
        days = sorted(cell.identity.started[:10] for cell in study.cells if cell.identity.started)
        when = "" if not days else f", {days[0]}" if days[0] == days[-1] else f", {days[0]} to {days[-1]}"
        methods = f"{len(study.methods)} method{'s' if len(study.methods) != 1 else ''}"
        unpruned = "and the unpruned model" if study.unpruned else "without an unpruned model to compare with"
        lines.append(
            element(
                "p",
                element("strong", study.model),
                f": {methods} {unpruned} on {', '.join(counts)}, {len(study.cells)} cells{when}.",
            )
        )
    return join(*lines)


def _left_out(left_out: Sequence[LeftOut]) -> Markup | None:
    if not left_out:
        return None
    rows = [element("li", element("code", one.name), f": {one.reason}") for one in left_out]
    return element("aside", element("h2", "Left out of this report"), element("ul", *rows), class_="warning")


def _findings(chapter: Chapter) -> Markup:
    parts = [element("ul", *(_item(text) for text in chapter.references))] if chapter.references else []
    parts += [to_html(chapter.best)] if chapter.best else []
    if chapter.losses:
        parts.append(element("h4", "Where a method loses"))
        parts.append(element("ul", *(_item(text) for text in chapter.losses)))
        note = "By the figures as measured; “clearly” where the paired test against random says so too, see below."
        parts.append(element("p", note, class_="note"))
    if chapter.failures:
        parts.append(element("h4", "What failed"))
        parts.append(element("ul", *(_item(text) for text in chapter.failures)))
    return join(*parts)


def _item(text: str) -> Markup:
    """A sentence of a list, whose percentages do not break."""
    return element("li", text.replace(" %", "\u00a0%"))


def _figure(chapter: Chapter, key: str) -> Markup:
    drawing = chapter.figures.get(key)
    if drawing is None:
        return Markup("")
    svg = Markup(inline_svg(drawing.svg, drawing.name, escape(drawing.alt)))
    scroll = element("div", svg, class_="scroll figure", tabindex="0", role="region", aria_label=drawing.title)
    return element("figure", scroll, element("figcaption", drawing.caption))


def _attention(chapter: Chapter) -> Markup:
    pictures = [
        element(
            "figure",
            void("img", src=f"data:{kept.media};base64,{base64.b64encode(kept.data).decode()}", alt=kept.alt),
            element("figcaption", kept.caption),
        )
        for kept in chapter.kept
    ]
    return join(_figure(chapter, "attention"), *pictures)


def _tables(chapter: Chapter) -> Markup:
    found = (chapter.accuracy, *chapter.types, chapter.ablation)
    return join(*(to_html(table) for table in found if table is not None))


def _paired(chapter: Chapter) -> Markup:
    return join(*(to_html(table) for table in (*chapter.paired, *chapter.groups)))
