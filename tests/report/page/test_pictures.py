"""Pictures of cells on the page: the right ones, small enough, and none that is torn; attention as it was recorded."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fopru_graph.report.page.page import render
from fopru_graph.report.page.pictures import concentration_figure, kept_pictures
from fopru_graph.report.page.style import page_settings
from fopru_graph.results.methods import ModelResults, results_by_model
from fopru_graph.results.reading import read_results
from tests.report.page.fake_results import write_attention, write_cell, write_json, write_pictures


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with page_settings():
        yield


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    write_cell(tmp_path, "baseline", "scenes", 1.0, 0.9, 256, samples=8, prunes=False)
    for pipeline in ("fopru_rank", "fopru_row", "fastv"):
        for ratio in (0.5, 0.2):
            write_pictures(write_cell(tmp_path, pipeline, "scenes", ratio, 0.5, 64, samples=8), count=5)
    return tmp_path


def shown(folder: Path, most: int = 10_000_000) -> tuple[list[Any], list[Any]]:
    (study,) = results_by_model(read_results(folder).cells)
    return kept_pictures(study, most)


def test_rank_and_row_are_shown_side_by_side_near_a_quarter(pictured: Path) -> None:
    kept, left_out = shown(pictured)
    assert [picture.caption.split(":")[0] for picture in kept] == [
        f"{method} at 20 %, scenes/{number}" for number in range(3) for method in ("fopru_rank", "fopru_row")
    ]
    assert kept[0].caption.endswith(
        "“what colour is the circle ?” – “red”; 64 of 256 visual tokens left in the last layer."
    )
    assert left_out == []


def test_wrong_answers_are_marked_by_the_scores_of_the_rows(pictured: Path) -> None:
    cell = pictured / "fopru_rank--scenes--r0.2"
    rows = [json.loads(line) for line in (cell / "results.jsonl").read_text().splitlines()]
    expected = {}
    for row in rows[:3]:
        path = cell / "pictures" / f"{row['index']}.json"
        write_json(path, json.loads(path.read_text()) | {"source": row["id"]})
        expected[row["id"]] = "" if row["score"] else "wrong"
    assert set(expected.values()) == {"", "wrong"}
    found = [picture for picture in shown(pictured)[0] if picture.caption.startswith("fopru_rank")]
    assert [picture.mark for picture in found] == list(expected.values())
    html = "".join(render(picture.template, block=picture) for picture in found)
    assert html.count('<figure class="wrong">') == html.count("<strong>wrong</strong>")
    assert html.count('<figure class="wrong">') == list(expected.values()).count("wrong")


def test_tokens_are_counted_against_those_of_the_unpruned_model(pictured: Path) -> None:
    """Of a picture that was made smaller the file knows those of the smaller picture alone."""
    path = pictured / "fopru_rank--scenes--r0.2" / "pictures" / "0.json"
    write_json(path, json.loads(path.read_text()) | {"source": "scenes/0/0", "encoded": 64})
    assert "; 64 of 256 visual tokens left" in shown(pictured)[0][0].caption
    write_json(path, json.loads(path.read_text()) | {"source": "unknown", "encoded": 64})
    assert "; 64 of 64 visual tokens left" in shown(pictured)[0][0].caption


def photograph(path: Path) -> None:
    """Noise, which compresses as badly as any photograph."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (480, 1600, 3), dtype=np.uint8)).save(path)


def test_pictures_are_made_small_enough(pictured: Path) -> None:
    for path in pictured.glob("*/pictures/*.png"):
        photograph(path)
    large, _ = shown(pictured)
    size = sum(len(picture.data) for picture in large)
    kept, _ = shown(pictured, size // 2)
    assert len(kept) == len(large) == 6 and sum(len(picture.data) for picture in kept) <= size // 2
    assert len(shown(pictured, size // 20)[0]) < 6 and shown(pictured, 0)[0] == []


def test_photographs_are_kept_as_jpeg(pictured: Path) -> None:
    photograph(pictured / "fopru_rank--scenes--r0.2" / "pictures" / "0.png")
    assert [picture.media for picture in shown(pictured)[0][:2]] == ["image/jpeg", "image/png"]


def test_other_methods_are_shown_where_these_are_not(pictured: Path) -> None:
    for path in pictured.glob("fopru_*"):
        shutil.rmtree(path)
    kept, _ = shown(pictured)
    assert [picture.caption.split(":")[0] for picture in kept] == [
        f"fastv at 20 %, scenes/{number}" for number in range(3)
    ]


def test_a_torn_picture_is_named(pictured: Path) -> None:
    path = pictured / "fopru_rank--scenes--r0.2" / "pictures" / "0.png"
    path.write_bytes(path.read_bytes()[:100])
    kept, left_out = shown(pictured)
    assert len(kept) == 5 and left_out[0].name == "fopru_rank--scenes--r0.2/pictures/0.png"


def test_pictures_without_facts_are_shown(pictured: Path) -> None:
    for path in pictured.glob("*/pictures/*.json"):
        path.write_text("{")
    assert shown(pictured)[0][0].caption == "fopru_rank at 20 %"


def test_pictures_fit_the_page(pictured: Path) -> None:
    with Image.open(io.BytesIO(shown(pictured)[0][0].data)) as picture:
        assert picture.width == 1200 and picture.height == 360


# Attention


def test_attention_is_drawn_from_a_cell(study: ModelResults) -> None:
    drawing, left_out = concentration_figure(study, "attention")
    assert drawing is not None and left_out == []
    assert "layer 4 is the one whose attention FoPru reads" in drawing.caption and "1 picture" in drawing.caption


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 9},
        {"pictures": []},
        {"pictures": None},
        {"read_layer": "x"},
        "torn",
    ],
)
def test_attention_of_another_form_is_named(tmp_path: Path, change: Any) -> None:
    cell = write_cell(tmp_path, "baseline", "scenes", 1.0, 0.9, 256, samples=8, prunes=False)
    write_attention(cell)
    path = cell / "attention.json"
    write_json(path, change if change == "torn" else json.loads(path.read_text()) | change)
    (study,) = results_by_model(read_results(tmp_path).cells)
    drawing, left_out = concentration_figure(study, "attention")
    assert drawing is None and left_out[0].name == "baseline--scenes--r1/attention.json"


def test_layers_that_see_windows_only_have_no_curve(tmp_path: Path) -> None:
    cell = write_cell(tmp_path, "baseline", "scenes", 1.0, 0.9, 256, samples=8, prunes=False)
    write_attention(cell)
    data = json.loads((cell / "attention.json").read_text())
    data["pictures"][0]["curves"][1] = data["pictures"][0]["tokens_for_80"][1] = None
    write_json(cell / "attention.json", data)
    (study,) = results_by_model(read_results(tmp_path).cells)
    assert concentration_figure(study, "attention")[0] is not None
