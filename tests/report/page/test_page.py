"""The page stands alone: well-formed, quiet on the network, safe with hostile names, the same when made twice."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fopru_graph.errors import UserError
from fopru_graph.report.page.findings import Sentences
from fopru_graph.report.page.page import css_variable, render
from fopru_graph.report.page.write import Written, write_report
from fopru_graph.report.plots import COLOURS, INK, PALE, PAPER
from fopru_graph.results.comparisons import Comparison, compare, paired_scores
from fopru_graph.results.methods import ModelResults, results_by_model
from fopru_graph.results.reading import Results, read_results
from tests.report.page.fake_results import write_attention, write_cell, write_pictures

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>-->]]>"


class Reader(HTMLParser):
    """Checks that tags are balanced and gathers what a browser would fetch, run or look up."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.images_without_text = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._look(tag, dict(attrs))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._look(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def _look(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.ids += [value for name, value in attributes.items() if name == "id" and value]
        self.handlers += [name for name in attributes if name.startswith("on")]
        names = ("src", "srcset", "href", "xlink:href", "data", "action", "poster")
        self.fetched += [value for name in names if (value := attributes.get(name))]
        self.images_without_text += tag == "img" and not attributes.get("alt")


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def report(folder: Path) -> str:
    results = read_results(folder)
    studies = results_by_model(results.cells)
    written = write_report(results, studies, compare(pair for study in studies for pair in paired_scores(study)))
    return written.page.read_text(encoding="utf-8")


def test_the_page_is_well_formed(page: str) -> None:
    reader = read(page)
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">') and page.count("<h1>") == 1
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.images_without_text == 0 and reader.tags.count("img") == 4
    assert reader.tags.count("svg") == 6 and page.count('role="img" aria-label="') == 6
    assert reader.tags.count("figcaption") == reader.tags.count("figure") == 10


def test_the_page_fetches_and_runs_nothing(page: str) -> None:
    reader = read(page)
    assert all(value.startswith(("#", "data:image/")) for value in reader.fetched)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(reader.tags)
    assert reader.handlers == []
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"https?://", page)
    assert len(page) < 5_000_000


def test_links_lead_somewhere(page: str) -> None:
    reader = read(page)
    anchors = [value[1:] for value in reader.fetched if value.startswith("#")]
    assert anchors and set(anchors) <= set(reader.ids)


def test_all_sections_are_there(page: str) -> None:
    headings = re.findall(r"<h2>([^<]*)</h2>", page)
    assert headings == [
        "Left out of this report",
        "Findings",
        "Accuracy against retention",
        "Relative accuracy by strategy",
        "Accuracy against time to first token",
        "Tokens and KV cache",
        "Attention and kept tokens",
        "Tables",
        "Paired comparisons",
        "Provenance",
    ]


def test_the_page_says_what_was_measured_and_what_is_missing(page: str) -> None:
    assert "scenes (60 samples), textvqa (60 samples)" in page and "2026-11-24" in page
    assert "<code>fastv--scenes--r0.3</code>: torn: results.jsonl row 60" in page
    assert "12 methods and the unpruned model" in page


def test_provenance_can_be_run_again(page: str, results: Results) -> None:
    assert "fopru-graph eval pipelines/baseline.yaml --task scenes --out &#39;my results&#39;" in page
    assert f"\nfopru-graph report {results.folder.resolve()}</pre>" in page
    assert "torch 2.13.0" in page and "device name Test CPU" in page and "f" * 64 in page
    assert all(cell.digest[:12] in page and cell.folder.name in page for cell in results.cells)


def test_made_twice_it_is_the_same(
    results: Results, study: ModelResults, comparisons: list[Comparison], written: Written
) -> None:
    before = {path: path.read_bytes() for path in (written.page, *written.files)}
    again = write_report(
        read_results(results.folder), results_by_model(read_results(results.folder).cells), comparisons
    )
    assert {path: path.read_bytes() for path in (again.page, *again.files)} == before


def test_every_table_and_figure_is_a_file(written: Written) -> None:
    names = sorted(path.name for path in written.files)
    assert [name for name in names if name.endswith(".svg")] == [
        f"{name}.svg" for name in ("accuracy-layers", "accuracy", "attention", "relative", "tokens", "ttft")
    ]
    for table in ("accuracy", "ablation", "best", "types-scenes", "paired-unpruned-scenes", "groups-textvqa"):
        assert {f"{table}.md", f"{table}.csv", f"{table}.tex"} <= set(names)
    assert not list(written.page.parent.glob("**/.*"))  # nothing half-written is left


def test_hostile_names_and_answers_are_text(tmp_path: Path) -> None:
    cell = write_cell(tmp_path, HOSTILE, "scenes", 0.5, 0.5, 128, 8, model=HOSTILE, scorer=HOSTILE)
    write_pictures(cell, 1, answer=HOSTILE)
    write_attention(write_cell(tmp_path, "baseline", "scenes", 1.0, 0.9, 256, 8, HOSTILE, prunes=False, scorer=HOSTILE))
    text = report(tmp_path)
    reader = read(text)
    assert not {"script"} & set(reader.tags) and reader.handlers == []
    assert all(value.startswith(("#", "data:image/")) for value in reader.fetched)
    assert "&lt;script&gt;alert(1)" in text


def test_several_models_have_files_of_their_own(tmp_path: Path) -> None:
    for model in ("llava/a", "llava:a"):
        for pipeline, ratio in (("baseline", 1.0), ("fastv", 0.5)):
            settings = {"model": model}
            cell = write_cell(
                tmp_path, pipeline, "scenes", ratio, 0.5, 128, 8, model, prunes=ratio < 1, settings=settings
            )
            cell.rename(f"{cell}{len(model)}{model[5:6].encode().hex()}")
    text = report(tmp_path)
    read(text)
    assert text.count("<h3>llava/a</h3>") >= 4 and text.count("<h3>llava:a</h3>") >= 4
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"accuracy--llava_a.svg", "accuracy--llava_a-1.svg"} <= names


def test_one_cell_is_enough(tmp_path: Path) -> None:
    write_cell(tmp_path, "fastv", "scenes", 0.5, 0.5, 128, 8)
    text = report(tmp_path)
    read(text)
    assert "1 method without an unpruned model to compare with" in text


def test_one_failed_cell_is_enough(tmp_path: Path) -> None:
    write_cell(tmp_path, "fastv", "scenes", 0.5, 0.0, 128, 8, errors=8)
    text = report(tmp_path)
    read(text)
    assert "Failed" in text and "prune: out of memory" in text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_cell(tmp_path, "fastv", "scenes", 0.5, 0.5, 128, 8)
    (tmp_path / "tables").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"tables/.* cannot be written"):
        report(tmp_path)


# Filling templates


def test_characters_that_no_page_may_hold_are_replaced() -> None:
    assert "<li>a\ufffd\ufffd\ufffdb\n\t</li>" in render("sentences", block=Sentences(("a\x00\ud800\x1bb\n\t",)))


def test_text_is_escaped_and_percentages_do_not_break() -> None:
    text = render("sentences", block=Sentences(("5 % < <b>'\"</b>",), title="<i>", note="&"))
    assert "<li>5\u00a0% &lt; &lt;b&gt;&#39;&#34;&lt;/b&gt;</li>" in text
    assert "<h4>&lt;i&gt;</h4>" in text and '<p class="note">&amp;</p>' in text


def test_every_colour_of_the_figures_has_a_light_and_a_dark_value(page: str) -> None:
    style = page[page.index("<style>") : page.index("</style>")]
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
    for colour in COLOURS:
        assert f"{css_variable(colour)}: {colour};" in light and f"{css_variable(colour)}: #" in dark
    for colour, name in ((INK, "ink"), (PALE, "line"), (PAPER, "paper")):
        assert f"--{name}: {colour};" in light and f"{css_variable(colour)}: var(--{name});" in light
        assert f"--{name}: #" in dark
