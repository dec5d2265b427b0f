"""Content by hash: equal bytes are equal wherever they lie, and nothing is hashed twice."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fopru_graph.identity import content, digest, file_digest, files_digest, versions


def test_a_file_is_its_content(tmp_path):
    (tmp_path / "a").write_bytes(b"picture")
    (tmp_path / "b").write_bytes(b"picture")
    os.utime(tmp_path / "b", (1, 1))
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "b") == hashlib.sha256(b"picture").hexdigest()


def test_an_edit_of_equal_size_is_seen(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"1234")
    before = file_digest(file)
    file.write_bytes(b"1235")
    assert file_digest(file) != before


def test_a_folder_is_names_and_contents(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            (tmp_path / folder / name).write_text(name)
    one, two = ([*(tmp_path / folder).iterdir()] for folder in ("one", "two"))
    same = files_digest(one, tmp_path / "one")
    assert same == files_digest(reversed(two), tmp_path / "two")
    (tmp_path / "two" / "b").rename(tmp_path / "two" / "c")
    assert files_digest((tmp_path / "two").iterdir(), tmp_path / "two") != same


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_REMEMBERED", 4)
    return tmp_path / "cache"


def read_again(file: Path, monkeypatch) -> str:
    """The digest as another process would find it."""
    monkeypatch.setattr(content, "_digests", {})
    return file_digest(file)


def test_large_files_are_hashed_once_for_all_processes(tmp_path, notes, monkeypatch):
    file = tmp_path / "weights"
    file.write_bytes(b"12345678")
    true = file_digest(file)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was hashed again"))
    assert read_again(file, monkeypatch) == true


def test_a_spoilt_note_is_not_believed(tmp_path, notes, monkeypatch):
    file = tmp_path / "weights"
    file.write_bytes(b"12345678")
    true = file_digest(file)
    (note,) = (path for path in notes.rglob("*") if path.is_file())
    note.write_text("half a dig")
    assert read_again(file, monkeypatch) == true


def test_a_disk_that_takes_no_note_costs_no_answer(tmp_path, notes, monkeypatch):
    notes.write_text("a file where the folder should be")
    file = tmp_path / "weights"
    file.write_bytes(b"12345678")
    assert file_digest(file) == hashlib.sha256(b"12345678").hexdigest()


def test_small_files_leave_no_note(tmp_path, notes):
    (tmp_path / "small").write_bytes(b"123")
    file_digest(tmp_path / "small")
    assert not notes.exists()


def test_json_is_hashed_by_value():
    assert digest({"a": 1, "b": [2.5, None]}) == digest({"b": [2.5, None], "a": 1}) != digest({"a": 1, "b": [2, None]})


def test_versions_name_what_takes_part_in_an_answer():
    assert {"python", "fopru-graph", "torch", "transformers", "pillow"} <= set(versions())
