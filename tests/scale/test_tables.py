"""Tables: their ids one at a time, rows found again by their places, and what is wrong with a file in one sentence."""

from __future__ import annotations

import json
import sys

import pytest

from fopru_graph.errors import UserError
from fopru_graph.scale.rows import Place, RowError
from fopru_graph.scale.table import open_table

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def read(table, key="path", wanted=("path",)):
    return [(id_, table.row(id_, place, wanted)) for id_, place in list(table.ids(key, wanted))]


def lines(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return open_table(path)


def test_pictures_of_a_folder_by_their_paths_in_it(tmp_path):
    for name in ("b.png", "a.JPG", "deep/er/c.webp", "notes.txt", ".hidden.png", ".cache/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [row for _, row in read(open_table(tmp_path))] == [
        {"path": name} for name in ("a.JPG", "b.png", "deep/er/c.webp")
    ]
    with pytest.raises(UserError, match="has the column path alone, not question") as caught:
        read(open_table(tmp_path), wanted=("path", "question"))
    assert "--set prompt=TEXT" in caught.value.hint
    (tmp_path / "deep" / "er" / "c.webp").unlink()
    with pytest.raises(UserError, match="holds no pictures"):
        read(open_table(tmp_path / "deep"))


def test_json_lines_by_their_offsets(tmp_path):
    table = lines(tmp_path / "x.jsonl", {"path": "ä.png", "q": 1}, "\n", {"path": "b.png"}, '{"path": "c.png", "q": 3}')
    assert read(table, wanted=("path", "q")) == [
        ("ä.png", {"path": "ä.png", "q": 1}),
        ("b.png", {"path": "b.png", "q": None}),
        ("c.png", {"path": "c.png", "q": 3}),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"path": "b.png"\n', "x.jsonl line 2 is no JSON"),
        ("[1]\n", "x.jsonl line 2 holds a list, not an object"),
        ({"q": 1}, "x.jsonl line 2: the id, column 'path', holds nothing"),
        ({"path": True}, "holds True"),
        ({"path": 1.5}, "holds 1.5"),
        ({"path": "\ud800"}, "holds '\\\\ud800'"),
    ],
)
def test_a_row_without_an_id_is_refused_with_its_line(tmp_path, row, said):
    with pytest.raises(UserError, match=said):
        read(lines(tmp_path / "x.jsonl", {"path": "a.png"}, row))


def test_a_column_that_no_row_has_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no column question") as caught:
        read(lines(tmp_path / "x.jsonl", {"path": "a.png"}), wanted=("question",))
    assert caught.value.hint == "it has path"
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="has no column question"):
        read(open_table(tmp_path / "x.parquet"), wanted=("question",))


def test_rows_of_parquet_files_in_any_order(tmp_path):
    for number in range(2):
        rows = range(500 * number, 500 * number + 500)
        table = pa.table({"id": list(rows), "image": [{"bytes": bytes([row % 256]), "path": None} for row in rows]})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=190)
    table = open_table(tmp_path)
    places = list(table.ids("id", ["image"]))
    assert [id_ for id_, _ in places] == list(range(1000))
    for step in (1, 7, -3):
        for id_, place in places[::step]:
            assert table.row(id_, place, ["id", "image"]) == {
                "id": id_,
                "image": {"bytes": bytes([id_ % 256]), "path": None},
            }


def test_a_torn_parquet_file_is_one_sentence(tmp_path):
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"path": [f"{number}.png" for number in range(100)]}), file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="x.parquet cannot be read as parquet"):
        open_table(file)


def test_rows_in_a_damaged_page_are_errors_and_all_others_are_read(tmp_path):
    """Whatever the order in which they are asked for."""
    file = tmp_path / "x.parquet"
    table = pa.table({"id": list(range(300)), "image": [bytes(range(256)) * 4 for _ in range(300)]})
    options = {"row_group_size": 100, "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(table, file, compression="none", **options)
    chunk = pq.ParquetFile(file).metadata.row_group(1).column(1)
    data = bytearray(file.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle] ^= 255
    file.write_bytes(data)
    found = [damaged_rows(open_table(file), order) for order in (1, -1)]
    assert found[0] == found[1] and found[0] and found[0] <= set(range(100, 200))


def damaged_rows(table, order):
    """The numbers of rows that cannot be read, asked for in an order; all others are right."""
    bad = set()
    for id_, place in list(table.ids("id", ["image"]))[::order]:
        try:
            row = table.row(id_, place, ["image"])
        except RowError as error:
            bad.add(id_)
            said = str(error)
        else:
            assert row == {"image": bytes(range(256)) * 4}
    assert "x.parquet row" in said and ": cannot be read: " in said
    return bad


def test_a_line_that_changed_meanwhile_is_an_error_of_its_row(tmp_path):
    table = lines(tmp_path / "x.jsonl", {"path": "a.png"})
    with pytest.raises(RowError, match="cannot be read any more"):
        table.row("b", Place(3, 4), ["path"])


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "x.csv").touch()
    for name, said in (("x.csv", "neither a folder nor .parquet nor .jsonl"), ("nowhere.parquet", "there is no file")):
        with pytest.raises(UserError, match=said):
            open_table(tmp_path / name)


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="needs the package pyarrow") as caught:
        open_table(tmp_path / "x.parquet")
    assert caught.value.hint == "pip install pyarrow"
