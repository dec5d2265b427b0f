"""From the cells of a results folder and their comparisons to files: the page, tables and figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.report.page.accuracy_plot import accuracy_figure, layers_differ, relative_figure
from fopru_graph.report.page.cost_plot import ttft_figure
from fopru_graph.report.page.findings import Sentences, best_table, failures, losses, references
from fopru_graph.report.page.page import Block, Chapter, page
from fopru_graph.report.page.paired_tables import difference_tables, split_table
from fopru_graph.report.page.pictures import concentration_figure, kept_pictures
from fopru_graph.report.page.style import page_settings
from fopru_graph.report.page.table import to_csv, to_latex, to_markdown
from fopru_graph.report.page.tables import ablation_table, accuracy_table, type_table
from fopru_graph.report.page.token_plot import token_figure
from fopru_graph.results.comparisons import RANDOM, UNPRUNED, Comparison, group_accuracies
from fopru_graph.results.methods import ModelResults
from fopru_graph.results.reading import LeftOut, Results

_PICTURE_BYTES = 2_400_000  # of all pictures of a page together


@dataclass(frozen=True)
class Written:
    """The paths of the page and of all other files, and what could not be read for them."""

    page: Path
    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def write_report(
    results: Results, studies: Sequence[ModelResults], comparisons: Sequence[Comparison], output: Path | None = None
) -> Written:
    """Write the page, and tables and figures beside it; a reader never sees half of a file.

    Args:
        results: the content of the results folder.
        studies: its cells by model.
        comparisons: the results of the pairs of `comparisons.paired_scores`.
        output: where the page goes; by default ``report.html`` in the results folder.

    Raises:
        UserError: a file cannot be written there.
    """
    left_out = list(results.left_out)
    chapters = []
    suffixes = _suffixes([study.model for study in studies])
    with page_settings():
        for study, suffix in zip(studies, suffixes, strict=True):
            chapter, unread = _chapter(study, comparisons, results, suffix, _PICTURE_BYTES // len(studies))
            chapters.append(chapter)
            left_out += unread
    command = ["fopru-graph", "report", str(results.folder.resolve())]
    command += ["--output", str(output.resolve())] if output is not None else []
    output = output or results.folder / "report.html"
    contents = {output: page(chapters, left_out, command).encode(errors="replace")}
    for chapter, suffix in zip(chapters, suffixes, strict=True):
        for table in chapter.tables:
            named = replace(table, name=_slug(table.name) + suffix)  # a LaTeX file contains its name
            for ending, form in (("md", to_markdown), ("csv", to_csv), ("tex", to_latex)):
                contents[output.parent / "tables" / f"{named.name}.{ending}"] = form(named).encode(errors="replace")
        for drawing in chapter.drawings:
            contents[output.parent / "figures" / f"{drawing.name}.svg"] = drawing.svg
            contents[output.parent / "figures" / f"{drawing.name}.png"] = drawing.png
    for path, data in contents.items():
        _write(path, data)
    return Written(output, tuple(contents)[1:], tuple(left_out))


def _chapter(
    study: ModelResults, comparisons: Sequence[Comparison], results: Results, suffix: str, picture_bytes: int
) -> tuple[Chapter, list[LeftOut]]:
    kept, unread = kept_pictures(study, picture_bytes)
    attention, unusable = concentration_figure(study, f"attention{suffix}")
    splits = group_accuracies(study)
    lost = "By the figures as measured; “clearly” where the paired test against random says so too, see below."
    sections: dict[str, list[Block | None]] = {
        "findings": [
            _sentences(references(study)),
            best_table(study, comparisons),
            _sentences(losses(study, comparisons), "Where a method loses", lost),
            _sentences(failures(study), "What failed"),
        ],
        "accuracy": [
            accuracy_figure(study, f"accuracy{suffix}"),
            accuracy_figure(study, f"accuracy-layers{suffix}", by_average=True) if layers_differ(study) else None,
        ],
        "relative": [relative_figure(study, f"relative{suffix}")],
        "time": [ttft_figure(study, results.bench, f"ttft{suffix}")],
        "tokens": [token_figure(study, f"tokens{suffix}")],
        "attention": [attention, *kept],
        "tables": [accuracy_table(study), *(type_table(study, task) for task in study.tasks), ablation_table(study)],
        "paired": [
            *(table for against in (UNPRUNED, RANDOM) for table in difference_tables(study, comparisons, against)),
            *(split_table(study, task, splits) for task in study.tasks),
        ],
    }
    shown = {key: [block for block in blocks if block is not None] for key, blocks in sections.items()}
    return Chapter(study, shown), unread + unusable


def _sentences(lines: Iterable[str], title: str = "", note: str = "") -> Sentences | None:
    sentences = tuple(lines)
    return Sentences(sentences, title, note) if sentences else None


def _suffixes(models: Sequence[str]) -> list[str]:
    """How the file names of every model end: its name, numbered if taken; a single model needs no suffix."""
    if len(models) == 1:
        return [""]
    suffixes: list[str] = []
    for model in models:
        suffix = f"--{_slug(model)}"
        suffixes.append(suffix if suffix not in suffixes else f"{suffix}-{len(suffixes)}")
    return suffixes


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "_"


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}",
            "make room or rights there; --output FILE puts the page, its tables and figures elsewhere",
        ) from error
