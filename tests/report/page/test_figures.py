"""Figures draw what the cells hold: the right points, references as lines, Pareto's front, one style per method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.report.page import accuracy_plot, cost_plot, token_plot
from fopru_graph.report.page.accuracy_plot import accuracy_figure, layers_differ, relative, relative_figure
from fopru_graph.report.page.cost_plot import Timed, pareto, timed, ttft_figure
from fopru_graph.report.page.page import inline_svg
from fopru_graph.report.page.style import page_settings, styles_of, to_drawing
from fopru_graph.report.page.token_plot import kv_left, proportions, token_figure
from fopru_graph.report.plots import COLOURS, INK
from fopru_graph.results.bench import Bench
from fopru_graph.results.methods import ModelResults, results_by_model
from fopru_graph.results.reading import read_results
from tests.report.page.fake_results import write_cell


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with page_settings():
        yield


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures of matplotlib's behind what is drawn in a test."""
    found: list[Any] = []

    def keep(figure: Any, *facts: Any) -> Any:
        found.append(figure)
        return to_drawing(figure, *facts)

    for module in (accuracy_plot, cost_plot, token_plot):
        monkeypatch.setattr(module, "to_drawing", keep)
    return found


def labels(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def bench(*variants: tuple[str, float | None, float]) -> Bench:
    found = [{"pipeline": name, "ratio": ratio, "ttft_ms": {"median": ms}} for name, ratio, ms in variants]
    return Bench.model_validate(
        {"model": "demo", "rounds": 4, "machine": {"device_name": "Test GPU"}, "variants": found}
    )


# Accuracy


def test_accuracy_has_a_panel_a_task_and_one_legend(study: ModelResults, figure: list[Any]) -> None:
    drawing = accuracy_figure(study, "accuracy")
    axes = figure[0].axes
    assert [panel.get_title() for panel in axes] == ["scenes", "textvqa"]
    assert labels(figure[0])[0] == "unpruned" and "random (reference)" in labels(figure[0])
    assert len(labels(figure[0])) == len(set(labels(figure[0])))
    assert not any("fopru_no" in label for label in labels(figure[0]))  # they are in the ablation's table
    assert "n = 58 to 60" in drawing.caption and drawing.caption.startswith("demo;")


def test_points_stand_at_measured_shares(study: ModelResults, figure: list[Any]) -> None:
    accuracy_figure(study, "accuracy")
    axes = figure[0].axes[0]
    by_ratio = next(method for method in study.methods if method.label == "fopru_rank").points["scenes"]
    expected = sorted((point.share, 100 * (point.accuracy or 0)) for point in by_ratio.values())
    drawn = [sorted(zip(*line.get_data(), strict=True)) for line in axes.lines]
    assert expected in [[(float(x), float(y)) for x, y in line] for line in drawn]
    assert axes.get_xscale() == "log" and [tick.get_text() for tick in axes.get_xticklabels()][0] == "100 %"


def test_points_stand_at_the_layer_average_too(study: ModelResults, figure: list[Any]) -> None:
    """FastV's first layers see everything: its line moves, that of a method before the language model does not."""
    drawing = accuracy_figure(study, "accuracy-layers", by_average=True)
    lines = [sorted(zip(*line.get_data(), strict=True)) for line in figure[0].axes[0].lines]
    for label, moved in (("fopru_rank", False), ("fastv", True)):
        by_ratio = next(method for method in study.methods if method.label == label).points["scenes"]
        averages = [point.average for point in by_ratio.values()]
        assert (averages != [point.share for point in by_ratio.values()]) == moved
        assert sorted((point.average, 100 * (point.accuracy or 0)) for point in by_ratio.values()) in lines
    assert layers_differ(study) and drawing.title == "Accuracy against the layer average"


def test_shares_above_a_tenth_are_linear(tmp_path: Path, figure: list[Any]) -> None:
    write_cell(tmp_path, "fastv", "scenes", 0.5, 0.5, 128, samples=8)
    (study,) = results_by_model(read_results(tmp_path).cells)
    accuracy_figure(study, "accuracy")
    assert figure[0].axes[0].get_xscale() == "linear"


def test_unpruned_and_blind_are_lines(study: ModelResults, figure: list[Any]) -> None:
    accuracy_figure(study, "accuracy")
    levels = {line.get_label(): set(line.get_ydata()) for line in figure[0].axes[0].lines}
    assert levels["unpruned"] == {100 * (study.unpruned["scenes"].accuracy or 0)}
    blind = next(method for method in study.methods if method.label == "blind").points["scenes"][None]
    assert levels["blind (reference)"] == {100 * (blind.accuracy or 0)}


def test_what_ran_as_written_is_a_point_with_percentiles(study: ModelResults, figure: list[Any]) -> None:
    accuracy_figure(study, "accuracy")
    point = next(method for method in study.methods if method.label == "prumerge").points["scenes"][None]
    spans = [line.get_xdata() for line in figure[0].axes[0].lines if line.get_linewidth() == 2.5]
    assert [list(map(float, span)) for span in spans] == [[point.low, point.high]]


def test_relative_accuracy(study: ModelResults, figure: list[Any]) -> None:
    drawing = relative_figure(study, "relative")
    assert drawing is not None
    assert [axes.get_title() for axes in figure[0].axes] == ["50 % of the visual tokens", "25 % of the visual tokens"]
    rank = study.methods[0]
    unpruned, pruned = study.unpruned["scenes"].accuracy, rank.points["scenes"][0.25].accuracy
    assert unpruned and pruned and relative(study, rank, "scenes", 0.25) == pytest.approx(pruned / unpruned)
    bars = figure[0].axes[1].containers[0]
    both = [relative(study, rank, task, 0.25) or 0 for task in study.tasks]
    heights = [bar.get_height() for bar in bars]
    assert heights == pytest.approx([100 * both[0], 100 * both[1], 50 * sum(both)])


def test_without_an_unpruned_model_nothing_is_relative(tmp_path: Path) -> None:
    write_cell(tmp_path, "fastv", "scenes", 0.5, 0.5, 128, samples=8)
    (study,) = results_by_model(read_results(tmp_path).cells)
    assert relative_figure(study, "relative") is None and token_figure(study, "tokens") is None


# Time


def test_the_front_is_of_points_that_none_beats() -> None:
    points = [
        Timed(*point) for point in (("a", 1.0, 30, 0.9), ("b", 0.5, 20, 0.8), ("c", 0.5, 25, 0.7), ("d", 0.5, 20, 0.5))
    ]
    assert [point.label for point in pareto(points)] == ["b", "a"]
    equal = [Timed("a", None, 10, 0.5), Timed("b", None, 20, 0.5)]
    assert [point.label for point in pareto(equal)] == ["a"]


def test_times_of_cells_and_what_they_are_worth(study: ModelResults) -> None:
    found = {(point.label, point.ratio): point.ms for point in timed(study, "scenes", None)}
    cell = next(c for c in study.cells if c.folder.name == "fastv--scenes--r0.25")
    assert cell.summary.ttft_ms and found["fastv", 0.25] == cell.summary.ttft_ms.median
    drawing = ttft_figure(study, None, "ttft")
    assert drawing is not None and "may have run beside each other" in drawing.caption


def test_a_partial_bench_hides_no_method_and_its_times_are_told_apart(study: ModelResults, figure: list[Any]) -> None:
    given = bench(("baseline", 1.0, 50.0), ("fastv", 0.25, 20.0))
    found = timed(study, "scenes", given)
    assert {(point.label, point.ratio): point.ms for point in found if point.comparable} == {
        ("unpruned", 1.0): 50.0,
        ("fastv", 0.25): 20.0,
    }
    without = timed(study, "scenes", None)
    assert [(point.label, point.ratio) for point in found] == [(point.label, point.ratio) for point in without]
    assert {point.label for point in pareto(found)} <= {"unpruned", "fastv"}
    drawing = ttft_figure(study, given, "ttft")
    assert drawing is not None and "4 interleaved rounds of bench.json (Test GPU)" in drawing.caption
    assert "what bench.json lacks" in drawing.caption
    pale = [line for line in figure[0].axes[0].lines if line.get_alpha() and line.get_marker() == "o"]
    rank = [point for point in found if point.label == "fopru_rank"]
    assert sum(len(line.get_xdata()) for line in pale) == len(rank) > 0
    assert "fopru_rank" in labels(figure[0])


def test_a_bench_of_everything_is_drawn_as_before(study: ModelResults) -> None:
    every = [(cell.identity.pipeline, cell.identity.ratio, 30.0) for cell in study.cells]
    drawing = ttft_figure(study, bench(*every), "ttft")
    assert drawing is not None and "lacks" not in drawing.caption


def test_markers_stand_at_their_values(study: ModelResults, figure: list[Any]) -> None:
    accuracy_figure(study, "accuracy")
    axes = figure[0].axes[0]
    marked = [line for line in axes.lines if line.get_marker() not in ("None", "", "_") and len(line.get_xdata())]
    assert len(marked) > 5 and all(line.get_transform() == axes.transData for line in marked)


def test_a_bench_of_another_model_is_not_used(study: ModelResults) -> None:
    other = bench(("baseline", 1.0, 50.0), ("fastv", 0.25, 20.0)).model_copy(update={"model": "llava"})
    drawing = ttft_figure(study, other, "ttft")
    assert drawing is not None and "medians of the cells themselves" in drawing.caption


# Tokens


def test_proportions_and_bytes(study: ModelResults) -> None:
    found = proportions(study.unpruned["scenes"])
    assert found == {
        "visual": pytest.approx(25600 / 272),
        "text": pytest.approx(1400 / 272),
        "generated": pytest.approx(200 / 272),
    }
    rank, fastv = study.methods[0], study.methods[3]
    assert kv_left(study, rank, study.tasks, 0.25) == pytest.approx(100 * 80 / 272)
    assert kv_left(study, fastv, study.tasks, 0.25) == pytest.approx(100 * 176 / 272)
    assert kv_left(study, rank, study.tasks, 0.3) is None
    assert token_figure(study, "tokens") is not None


# Style


def test_no_two_methods_look_alike(study: ModelResults) -> None:
    styles = list(styles_of(study).values())
    assert len({(style.colour, style.marker, str(style.dashes)) for style in styles}) == len(styles)
    assert len({style.marker for style in styles}) == len(styles)  # for eyes that see no colour
    many = replace(study, methods=tuple(replace(study.methods[0], label=f"m{i}") for i in range(20)))
    assert len({(style.colour, style.marker, str(style.dashes)) for style in styles_of(many).values()}) == 20


def test_a_method_looks_the_same_in_every_figure(study: ModelResults, figure: list[Any]) -> None:
    accuracy_figure(study, "accuracy")
    ttft_figure(study, None, "ttft")
    colours = [
        {line.get_label(): (line.get_color(), line.get_marker()) for line in drawn.axes[0].lines}["fastv"]
        for drawn in figure
    ]
    assert colours[0] == colours[1] == (styles_of(study)["fastv"].colour, styles_of(study)["fastv"].marker)


def test_inline_svgs_share_no_names_and_follow_the_page(study: ModelResults) -> None:
    text = inline_svg(accuracy_figure(study, "accuracy").svg, "one", "what it shows")
    assert text.startswith('<svg role="img" aria-label="what it shows"')
    assert "http" not in text and "<!--" not in text and "<metadata" not in text and "<?xml" not in text
    assert all(name.startswith("one-") for name in _between(text, ' id="', '"'))
    assert all(name.startswith("one-") for name in [*_between(text, "url(#", ")"), *_between(text, 'href="#', '"')])
    assert not any(f": {colour}" in text for colour in (INK, *COLOURS)) and f"var(--c{INK[1:]})" in text


def _between(text: str, before: str, after: str) -> list[str]:
    found = [part.partition(after)[0] for part in text.split(before)[1:]]
    assert found
    return found


def test_the_same_figure_has_the_same_bytes(study: ModelResults) -> None:
    first, second = (accuracy_figure(study, "accuracy") for _ in range(2))
    assert first.svg == second.svg and first.png == second.png
