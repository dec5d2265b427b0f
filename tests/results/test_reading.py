"""What is in a results folder is read, or named with a reason; figures that rows do not bear out are not believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.errors import UserError
from fopru_graph.results.reading import Results, read_results
from tests.report.page.fake_results import write_cell, write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One good cell and one to spoil."""
    write_cell(tmp_path, "baseline", "scenes", 1.0, 0.9, 256, samples=12, prunes=False)
    write_cell(tmp_path, "fastv", "scenes", 0.5, 0.8, 128, samples=12, errors=2)
    return tmp_path


def edited(path: Path, change: Callable[[Any], Any]) -> None:
    write_json(path, change(json.loads(path.read_text())))


def reason(folder: Path) -> str:
    results = read_results(folder)
    assert [cell.identity.pipeline for cell in results.cells] == ["baseline"]
    (left_out,) = results.left_out
    assert left_out.name == "fastv--scenes--r0.5"
    return left_out.reason


def test_every_good_cell_is_read(folder: Path) -> None:
    results = read_results(folder)
    baseline, fastv = results.cells
    assert (fastv.identity.pipeline, fastv.identity.ratio, fastv.identity.prunes) == ("fastv", 0.5, True)
    assert (fastv.summary.n, fastv.summary.errors, len(fastv.samples)) == (10, 2, 10)
    assert baseline.samples["scenes/0/0"].picture == "scenes/0" and baseline.samples["scenes/0/0"].encoded == 256
    assert results.left_out == () and results.bench is None


def test_other_folders_are_no_cells(folder: Path) -> None:
    (folder / "logs").mkdir()
    (folder / "sweep.sqlite").write_bytes(b"")
    assert read_results(folder).left_out == ()


@pytest.mark.parametrize("name", ["cell.json", "results.jsonl", "summary.json"])
def test_a_missing_file_is_an_unfinished_cell(folder: Path, name: str) -> None:
    (folder / "fastv--scenes--r0.5" / name).unlink()
    assert reason(folder) == f"unfinished: there is no {name}"


@pytest.mark.parametrize("name", ["cell.json", "results.jsonl", "summary.json"])
def test_half_a_file_is_torn(folder: Path, name: str) -> None:
    path = folder / "fastv--scenes--r0.5" / name
    path.write_bytes(path.read_bytes()[:-20])
    assert reason(folder).startswith("torn: ") and name in reason(folder)


def test_another_format_is_named(folder: Path) -> None:
    edited(folder / "fastv--scenes--r0.5" / "cell.json", lambda found: found | {"format": 7})
    assert reason(folder) == "unknown format '7'; this version reads format 1"


@pytest.mark.parametrize("content", ["[]", "3", "null", '"x"', "{}", "[" * 100_000])
def test_anything_else_is_torn(folder: Path, content: str) -> None:
    (folder / "fastv--scenes--r0.5" / "cell.json").write_text(content)
    assert "torn" in reason(folder)


def test_a_lost_row_is_found(folder: Path) -> None:
    path = folder / "fastv--scenes--r0.5" / "results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert reason(folder) == "torn: results.jsonl has 9 scored rows and 2 errors, summary.json says 10 and 2"


def test_an_accuracy_must_be_that_of_the_rows(folder: Path) -> None:
    edited(folder / "fastv--scenes--r0.5" / "summary.json", lambda found: found | {"accuracy": 0.123})
    assert "summary.json says 0.123" in reason(folder)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1.5", "-0.1", '"0.5"x'])
def test_numbers_that_are_none_are_refused(folder: Path, value: str) -> None:
    path = folder / "fastv--scenes--r0.5" / "results.jsonl"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace('"score": 1.0', f'"score": {value}').replace('"score": 0.0', f'"score": {value}')
    path.write_text("\n".join(lines))
    assert "results.jsonl row 6" in reason(folder)


def test_an_id_may_come_once(folder: Path) -> None:
    path = folder / "fastv--scenes--r0.5" / "results.jsonl"
    path.write_text(path.read_text().replace('"scenes/1/1"', '"scenes/1/2"'))
    assert "has the id 'scenes/1/2' of another row" in reason(folder)


def test_an_ok_row_has_a_score(folder: Path) -> None:
    path = folder / "fastv--scenes--r0.5" / "results.jsonl"
    path.write_text(path.read_text().replace('"score": 1.0', '"score": null'))
    assert "lacks its score" in reason(folder)


def test_without_any_cell_there_is_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results") as caught:
        read_results(tmp_path)
    assert "fopru-graph eval" in str(caught.value.hint)
    with pytest.raises(UserError, match="there is no folder"):
        read_results(tmp_path / "nowhere")


def test_without_any_usable_cell_the_first_reason_is_said(folder: Path) -> None:
    for path in folder.glob("*/summary.json"):
        path.unlink()
    with pytest.raises(UserError, match=r"first of 2, baseline--scenes--r1: unfinished: there is no summary\.json"):
        read_results(folder)


def test_a_bench_is_read_and_a_torn_one_named(folder: Path) -> None:
    variant = {"pipeline": "fastv", "ratio": 0.5, "ttft_ms": {"median": 12.5, "p90": 13.0, "n": 4}}
    write_json(folder / "bench.json", {"model": "demo", "rounds": 4, "machine": {}, "variants": [variant]})
    bench = read_results(folder).bench
    assert bench is not None and bench.variants[0].ttft_ms.median == 12.5
    (folder / "bench.json").write_text('{"model": ')
    results = read_results(folder)
    assert results.bench is None and results.left_out[0].name == "bench.json"


def test_the_folder_of_the_other_tests_has_one_broken_cell(results: Results) -> None:
    assert [one.name for one in results.left_out] == ["fastv--scenes--r0.3"]
