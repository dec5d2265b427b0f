"""JSON lines: any row in any order, flat memory, and errors that name file and row."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.records import jsonl
from fopru_graph.evaluation.records.jsonl import JsonLines
from fopru_graph.evaluation.task import RecordError
from fopru_graph.evaluation.tasks import get_task
from tests.evaluation.datafiles import pope_row, write_lines


def lines(folder, content: str | bytes) -> JsonLines:
    path = folder / "some.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return JsonLines(path)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_any_row_in_any_order_however_the_file_is_cut_into_chunks(tmp_path, monkeypatch, chunk, end, last):
    monkeypatch.setattr(jsonl, "_CHUNK", chunk)
    rows = [{"n": number, "text": "é" * number} for number in range(9)]
    text = end.join(json.dumps(row, ensure_ascii=number % 2 == 0) for number, row in enumerate(rows)) + end * last
    source = lines(tmp_path, text)
    order = random.Random(0).sample(range(9), 9)
    assert [source.row(index) for index in order] == [rows[index] for index in order]
    assert len(source) == 9


@pytest.mark.parametrize("chunk", [1, 4, 2**20])
def test_empty_lines_are_left_out_but_count_as_lines(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(jsonl, "_CHUNK", chunk)
    source = lines(tmp_path, '\n{"a": 1}\n\n  \r\n{"a": 2}\n{"a": 3}\n\n{"a": 4}\n \n\t')
    assert [source.row(index)["a"] for index in range(len(source))] == [1, 2, 3, 4]
    assert [source.where(index) for index in range(4)] == [f"some.jsonl row {line}" for line in (2, 5, 6, 8)]


@pytest.mark.parametrize(
    "bad",
    ['{"a": 1', "nonsense", '"text"', "[1]", "3", "null", '{"a": "\xff"}'.encode("latin-1"), b"\x00", "[" * 100_000],
)
def test_a_bad_line_is_an_error_of_its_own_row(tmp_path, bad):
    bad = bad.encode() if isinstance(bad, str) else bad
    source = lines(tmp_path, b'{"a": 1}\n' + bad + b'\n{"a": 3}\n')
    with pytest.raises(RecordError, match="^some.jsonl row 2: the line "):
        source.row(1)
    assert source.row(0) == {"a": 1} and source.row(2) == {"a": 3}


def test_a_torn_last_line_is_an_error_of_its_row(tmp_path):
    source = lines(tmp_path, '{"a": 1}\n{"a": "never fini')
    assert len(source) == 2 and source.row(0) == {"a": 1}
    with pytest.raises(RecordError, match="^some.jsonl row 2: "):
        source.row(1)


def test_a_line_beyond_all_bounds_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_LINE", 100)
    source = lines(tmp_path, json.dumps({"a": "x" * 200}) + '\n{"a": 1}')
    with pytest.raises(RecordError, match="row 1: the line has .* MiB"):
        source.row(0)
    assert source.row(1) == {"a": 1}


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
    assert lines(tmp_path, b'\xef\xbb\xbf{"a": 1}\n').row(0) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "reason"), [("", "no rows"), ("\n \n", "no rows"), ('[\n{"a": 1}\n]', "JSON array")]
)
def test_what_is_no_such_file_is_refused_when_it_is_opened(tmp_path, content, reason):
    with pytest.raises(UserError, match=reason):
        lines(tmp_path, content)


def test_columns_are_looked_for_until_all_are_found(tmp_path, monkeypatch):
    source = lines(tmp_path, 'torn\n{"a": 1}\n{"b": 2}\n{"c": 3}\n')
    assert source.columns([["a"], ["x", "b"]]) == {"a", "b"}
    assert source.columns([["z"]]) == {"a", "b", "c"}
    monkeypatch.setattr(source, "row", lambda index: pytest.fail("read on") if index > 1 else {"a": 1})
    assert source.columns([["a"]]) == {"a"}


def test_the_fingerprint_is_of_the_content(tmp_path):
    first = lines(tmp_path, '{"a": 1}\n').fingerprint
    assert first == lines(tmp_path, '{"a": 1}\n').fingerprint != lines(tmp_path, '{"a": 2}\n').fingerprint
    assert first.startswith("sha256:")


def test_a_file_that_shrinks_while_it_is_read_gives_errors_of_rows(tmp_path):
    source = lines(tmp_path, '{"a": 1}\n{"a": 2}\n')
    (tmp_path / "some.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(RecordError, match="row 2"):
        source.row(1)
    (tmp_path / "some.jsonl").unlink()
    with pytest.raises(RecordError, match="row 1: cannot be read"):
        source.row(0)


def test_reading_ten_thousand_records_keeps_memory_flat(tmp_path):
    filler = "x" * 3000
    path = write_lines(tmp_path / "pope.jsonl", (pope_row(number, lecture=filler) for number in range(10_000)))
    assert (tmp_path / "pope.jsonl").stat().st_size > 30 * 2**20
    tracemalloc.start()
    try:
        records = get_task("pope").open(path, None)
        for index in range(len(records)):
            record = records.read(index)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert record["question"].endswith("picture 9999?")
    assert peak < 4 * 2**20
