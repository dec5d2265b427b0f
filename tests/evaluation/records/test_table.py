"""Records out of local files: where they are looked for, limits, identities."""

from __future__ import annotations

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.task import RecordError
from fopru_graph.evaluation.tasks import get_task
from tests.evaluation.datafiles import pope_row, write_lines

POPE = get_task("pope")


@pytest.mark.parametrize(("limit", "length"), [(None, 5), (1, 1), (5, 5), (99, 5)])
def test_a_limit_takes_the_first(tmp_path, limit, length):
    path = write_lines(tmp_path / "x.jsonl", map(pope_row, range(5)))
    records = POPE.open(path, limit)
    assert len(records) == length
    assert [records.read(i)["question"][-2] for i in range(length)] == [str(i) for i in range(length)]
    assert [records.key(i) for i in range(length)] == [f"pope/{i}" for i in range(length)]
    assert records.fingerprint == POPE.open(path, None).fingerprint
    for outside in (length, -1):
        with pytest.raises(IndexError):
            records.read(outside)


def test_a_folder_holds_the_file_of_the_task(tmp_path):
    write_lines(tmp_path / "pope.jsonl", [pope_row()])
    write_lines(
        tmp_path / "textvqa.jsonl", [{"question": "q", "answers": ["a"], "ocr_tokens": [], "image": "x.png"}] * 2
    )
    assert len(POPE.open(str(tmp_path), None)) == 1
    assert (
        len(get_task("textvqa").open(str(tmp_path), None))
        == len(get_task("textvqa_ocr").open(str(tmp_path), None))
        == 2
    )
    with pytest.raises(UserError) as caught:
        get_task("mmmu").open(str(tmp_path), None)
    assert "no data of 'mmmu'" in caught.value.message and "mmmu.jsonl" in caught.value.hint


@pytest.mark.parametrize("suffix", [".json", ".csv", ""])
def test_other_kinds_of_files_are_refused(tmp_path, suffix):
    with pytest.raises(UserError) as caught:
        POPE.open(write_lines(tmp_path / f"x{suffix}", [pope_row()]), None)
    assert ".jsonl" in caught.value.hint


def test_a_missing_file_is_refused_with_the_closest(tmp_path):
    write_lines(tmp_path / "pope.jsonl", [pope_row()])
    for path, hint in ((tmp_path / "pop.jsonl", "did you mean 'pope.jsonl'?"), (tmp_path / "no" / "x.jsonl", "check")):
        with pytest.raises(UserError) as caught:
            POPE.open(str(path), None)
        assert "there is no file or folder" in caught.value.message and hint in caught.value.hint


def test_a_column_missing_in_all_rows_and_in_one(tmp_path):
    lacking = {name: value for name, value in pope_row().items() if name != "answer"}
    with pytest.raises(UserError) as caught:
        POPE.open(write_lines(tmp_path / "x.jsonl", [lacking | {"anwser": "yes"}] * 3), None)
    assert caught.value.message.endswith("x.jsonl' lacks 'answer'")
    assert caught.value.hint == "did you mean 'anwser'? its columns are anwser, category, image, question"
    records = POPE.open(write_lines(tmp_path / "x.jsonl", [lacking, lacking, pope_row()]), None)
    with pytest.raises(RecordError, match="^x.jsonl row 2: column 'answer' is missing$"):
        records.read(1)
    assert records.read(2)["answer"] == "yes"


def test_a_column_of_two_names_is_missing_when_both_are(tmp_path):
    with pytest.raises(UserError, match="lacks 'image' or 'imageId'"):
        get_task("gqa").open(write_lines(tmp_path / "x.jsonl", [{"question": "q", "answer": "a"}]), None)


def test_rows_that_are_all_torn_say_why(tmp_path):
    with pytest.raises(UserError) as caught:
        POPE.open(write_lines(tmp_path / "x.jsonl", ["torn", "{"]), None)
    assert "x.jsonl row 1: the line is no JSON" in caught.value.hint


def test_a_torn_row_and_a_broken_picture_leave_the_others_alone(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    rows = [pope_row(0), "{torn", pope_row(2, image="bad.png"), pope_row(3, image="../x.png"), pope_row(4)]
    records = POPE.open(write_lines(tmp_path / "x.jsonl", rows), None)
    failed = {}
    for index in range(len(records)):
        try:
            records.images(index, records.read(index))
        except RecordError as error:
            failed[index] = str(error)
    assert failed.keys() == {1, 2, 3}
    assert all(message.startswith(f"x.jsonl row {index + 1}: ") for index, message in failed.items())
    assert "picture" in failed[2] and "bad.png" in failed[2]


def test_equal_pictures_have_equal_identities_and_others_not(tmp_path):
    from tests.evaluation.datafiles import inline

    rows = [pope_row(0), pope_row(1), pope_row(2, image=inline("blue"))]
    records = POPE.open(write_lines(tmp_path / "x.jsonl", rows), None)
    first, second, third = (records.images(i, records.read(i))[0][0] for i in range(3))
    assert first == second != third
