"""From what was read and compared to files: the page, the tables and the figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fopru_graph.errors import UserError
from fopru_graph.graph.files import write_atomically
from fopru_graph.report.page.accuracy_plot import accuracy_figure, relative_figure
from fopru_graph.report.page.cost_plot import ttft_figure
from fopru_graph.report.page.findings import best_table, failures, losses, references
from fopru_graph.report.page.page import Chapter, page
from fopru_graph.report.page.paired_tables import difference_tables, split_table
from fopru_graph.report.page.pictures import concentration_figure, kept_pictures
from fopru_graph.report.page.style import Drawing, style
from fopru_graph.report.page.table import Table, to_csv, to_latex, to_markdown
from fopru_graph.report.page.tables import ablation_table, accuracy_table, type_table
from fopru_graph.report.page.token_plot import token_figure
from fopru_graph.results.comparisons import RANDOM, UNPRUNED, Comparison, group_accuracies
from fopru_graph.results.methods import ModelResults
from fopru_graph.results.reading import LeftOut, Results

_PICTURES = 2_400_000  # bytes of all pictures of a page together


@dataclass(frozen=True)
class Written:
    """The page and all other files, and what is not in them."""

    page: Path
    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def write_report(
    results: Results, studies: Sequence[ModelResults], comparisons: Sequence[Comparison], output: Path | None = None
) -> Written:
    """Write the page, and tables and figures beside the cells; each file appears whole or not at all.

    Args:
        results: what was read.
        studies: the same by model.
        comparisons: what came of the pairs of `comparisons.paired_scores`.
        output: where the page goes; ``report.html`` in the results folder without it.

    Raises:
        UserError: a file cannot be written there.
    """
    left_out = list(results.left_out)
    chapters = []
    names = _names([study.model for study in studies])
    with style():
        for study, suffix in zip(studies, names, strict=True):
            chapter, more = _chapter(study, comparisons, results, suffix, len(studies))
            chapters.append(chapter)
            left_out += more
    output = output or results.folder / "report.html"
    contents = {output: page(chapters, left_out).encode()}
    for chapter, suffix in zip(chapters, names, strict=True):
        for table in chapter.tables:
            contents |= _table_files(replace(table, name=_slug(table.name) + suffix), results.folder / "tables")
        for drawing in chapter.figures.values():
            contents |= _figure_files(drawing, results.folder / "figures")
    for path, data in contents.items():
        _write(path, data)
    return Written(output, tuple(contents)[1:], tuple(left_out))


def _chapter(
    study: ModelResults, comparisons: Sequence[Comparison], results: Results, suffix: str, studies: int
) -> tuple[Chapter, list[LeftOut]]:
    kept, unread = kept_pictures(study, _PICTURES // studies)
    attention, torn = concentration_figure(study, f"attention{suffix}")
    figures = {
        "accuracy": accuracy_figure(study, f"accuracy{suffix}"),
        "relative": relative_figure(study, f"relative{suffix}"),
        "ttft": ttft_figure(study, results.bench, f"ttft{suffix}"),
        "tokens": token_figure(study, f"tokens{suffix}"),
        "attention": attention,
    }
    splits = group_accuracies(study)
    chapter = Chapter(
        study,
        best_table(study, comparisons),
        tuple(references(study)),
        tuple(losses(study, comparisons)),
        tuple(failures(study)),
        {key: drawing for key, drawing in figures.items() if drawing is not None},
        tuple(kept),
        accuracy_table(study),
        tuple(_some(type_table(study, task) for task in study.tasks)),
        ablation_table(study),
        tuple(table for against in (UNPRUNED, RANDOM) for table in difference_tables(study, comparisons, against)),
        tuple(_some(split_table(study, task, splits) for task in study.tasks)),
    )
    return chapter, unread + torn


def _some(tables: Iterable[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]


def _names(models: Sequence[str]) -> list[str]:
    """What the names of every model's files end in: nothing for a single one, else its name, told apart by a number."""
    if len(models) == 1:
        return [""]
    found: list[str] = []
    for model in models:
        name = f"--{_slug(model)}"
        found.append(name if name not in found else f"{name}-{len(found)}")
    return found


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "_"


def _table_files(table: Table, folder: Path) -> dict[Path, bytes]:
    forms = {"md": to_markdown(table), "csv": to_csv(table), "tex": to_latex(table)}
    return {folder / f"{table.name}.{ending}": text.encode(errors="replace") for ending, text in forms.items()}


def _figure_files(drawing: Drawing, folder: Path) -> dict[Path, bytes]:
    return {folder / f"{drawing.name}.svg": drawing.svg, folder / f"{drawing.name}.png": drawing.png}


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}",
            "make room or rights in the results folder; --output puts the page elsewhere",
        ) from error
