"""Parquet files: any row in any order, one row group in memory, snapshots of the hub as they lie."""

from __future__ import annotations

import random
import sys
import tracemalloc

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.task import RecordError
from fopru_graph.evaluation.tasks import get_task
from tests.evaluation.datafiles import png, pope_row

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def row(number: int) -> dict:
    return pope_row(number, image={"bytes": png((number % 256, 0, 0)), "path": None})


def write(path, rows, group: int = 4) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=group)
    return str(path)


def numbers(records) -> list[int]:
    order = random.Random(0).sample(range(len(records)), len(records))
    found = {index: records.images(index, records.read(index))[0][1].getpixel((0, 0))[0] for index in order}
    return [found[index] for index in range(len(records))]


@pytest.mark.parametrize("group", [1, 4, 100])
def test_any_row_in_any_order(tmp_path, group):
    records = get_task("pope").open(write(tmp_path / "x.parquet", map(row, range(11)), group), None)
    assert numbers(records) == list(range(11))
    assert records.read(3) == get_task("pope").open(str(tmp_path / "x.parquet"), 5).read(3)
    assert len(get_task("pope").open(str(tmp_path / "x.parquet"), 5)) == 5


@pytest.mark.parametrize("folder", ["data", "."])
def test_a_snapshot_of_the_hub_is_read_shard_by_shard_in_order(tmp_path, folder):
    for shard in (1, 0):
        name = f"test-0000{shard}-of-00002.parquet"
        write(tmp_path / folder / name, map(row, range(shard * 6, shard * 6 + 6)))
    write(tmp_path / folder / "train-00000-of-00001.parquet", map(row, range(90, 99)))
    records = get_task("pope").open(str(tmp_path), None)
    assert numbers(records) == list(range(12))
    with pytest.raises(IndexError):
        records.read(12)


def test_a_folder_of_the_config_comes_first(tmp_path):
    rows = [{"question": "q", "choices": ["a", "b"], "answer": 0, "image": {"bytes": png("red")}}]
    write(tmp_path / "ScienceQA-IMG" / "test-0.parquet", rows)
    write(tmp_path / "ScienceQA-FULL" / "test-0.parquet", rows * 3)
    assert len(get_task("scienceqa").open(str(tmp_path), None)) == 1


def test_other_names_of_files_in_a_folder(tmp_path):
    write(tmp_path / "anything.parquet", map(row, range(3)))
    assert len(get_task("pope").open(str(tmp_path), None)) == 3
    write(tmp_path / "pope.parquet", map(row, range(2)))
    assert len(get_task("pope").open(str(tmp_path), None)) == 2


def test_pictures_of_gqa_come_from_their_own_table(tmp_path):
    asked = [
        {"question": f"q{i}", "answer": "a", "imageId": f"n{i % 2}", "types": {"structural": "choose"}}
        for i in range(4)
    ]
    write(tmp_path / "testdev_balanced_instructions" / "testdev-0.parquet", [*asked, asked[0] | {"imageId": "n9"}])
    shown = [{"id": f"n{i}", "image": {"bytes": png((i, 0, 0))}} for i in range(3)]
    pictures = write(tmp_path / "testdev_balanced_images" / "testdev-0.parquet", shown, 1)
    records = get_task("gqa").open(str(tmp_path), None)
    before = records.fingerprint
    assert [records.images(i, records.read(i))[0][1].getpixel((0, 0))[0] for i in range(4)] == [0, 1, 0, 1]
    assert get_task("gqa").kind(records.read(0)) == "choose"
    with pytest.raises(RecordError, match="testdev-0.parquet row 5: there is no picture whose id is 'n9'"):
        records.images(4, records.read(4))
    write(tmp_path / "testdev_balanced_images" / "testdev-0.parquet", shown[::-1], 1)
    assert get_task("gqa").open(str(tmp_path), None).fingerprint != before, pictures


def test_rows_are_counted_in_their_own_file(tmp_path):
    write(tmp_path / "test-0.parquet", map(row, range(5)), 2)
    write(tmp_path / "test-1.parquet", [row(0), row(1), row(2) | {"answer": "perhaps"}], 2)
    records = get_task("pope").open(str(tmp_path), None)
    with pytest.raises(RecordError, match="^test-1.parquet row 3: column 'answer' holds 'perhaps', not yes or no$"):
        records.read(7)


def test_a_missing_column_is_named(tmp_path):
    rows = [{"qestion": "q", "answer": "yes", "image": {"bytes": png()}}]
    with pytest.raises(UserError) as caught:
        get_task("pope").open(write(tmp_path / "x.parquet", rows), None)
    assert "lacks 'question'" in caught.value.message
    assert "did you mean 'qestion'?" in caught.value.hint and "answer, image, qestion" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as parquet"):
        get_task("pope").open(str(tmp_path / "x.parquet"), None)


def test_no_rows_are_refused(tmp_path):
    path = write(tmp_path / "x.parquet", [row(0)])
    parquet.write_table(parquet.read_table(path).slice(0, 0), path)
    with pytest.raises(UserError, match="has no rows"):
        get_task("pope").open(path, None)


def test_a_damaged_row_group_is_an_error_of_its_rows_only(tmp_path):
    path = tmp_path / "x.parquet"
    write(path, map(row, range(8)))
    content = bytearray(path.read_bytes())
    start = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    records = get_task("pope").open(str(path), None)
    assert records.read(0)["question"].endswith("0?")
    with pytest.raises(RecordError, match="x.parquet row 5: cannot be read"):
        records.read(4)
    assert records.read(3)["question"].endswith("3?")


def test_without_pyarrow_it_says_so(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", [row(0)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError) as caught:
        get_task("pope").open(path, None)
    assert "pyarrow" in caught.value.message and "pip install pyarrow" in caught.value.hint


def test_reading_ten_thousand_records_keeps_memory_flat(tmp_path):
    picture = {"bytes": random.Random(0).randbytes(3000), "path": None}
    path = write(tmp_path / "x.parquet", (pope_row(number, image=picture) for number in range(10_000)), 100)
    base = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    try:
        records, most = get_task("pope").open(path, None), 0
        for index in range(len(records)):
            records.read(index)
            most = max(most, pyarrow.total_allocated_bytes() - base)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20, "of Python, of 30 MB"
    assert 0 < most < 2 * 2**20, "of Arrow: one row group of 0.3 MB"
