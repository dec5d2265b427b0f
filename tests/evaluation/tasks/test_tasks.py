"""What every benchmark promises: records from a file, a kind, figures, errors that say where, no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.task import RecordError, Shown
from fopru_graph.evaluation.tasks import TASKS, get_task
from fopru_graph.evaluation.tasks.shared import MARKER
from tests.evaluation.datafiles import inline, png, pope_row, write_lines

OPTIONS = ["one", "two"]
ROWS = {
    "pope": pope_row(),
    "gqa": {"question": "q", "answer": "red", "types": {"structural": "query"}, "image": inline()},
    "scienceqa": {"question": "q", "choices": OPTIONS, "answer": 1, "subject": "language science", "image": inline()},
    "ai2d": {"question": "q", "options": OPTIONS, "answer": "1", "image": inline()},
    "textvqa": {"question": "q", "answers": ["red"] * 10, "image": inline()},
    "textvqa_ocr": {"question": "q", "answers": ["red"] * 10, "ocr_tokens": ["r"], "image": inline()},
    "ocrbench": {
        **{"question": "q", "answer": ["red"], "dataset": "IC13", "question_type": "Doc-oriented VQA"},
        **{"image": inline()},
    },
    "mmmu": {
        **{"id": "validation_Art_Theory_3", "question": "q <image 1>", "options": str(OPTIONS), "answer": "B"},
        **{"question_type": "multiple-choice", "image_1": inline()},
    },
    "mme": {"question": "q", "question_id": "a.png", "answer": "Yes", "category": "OCR", "image": inline()},
    "mmbench": {
        **{"question": "q", "index": 7, "answer": "B", "A": "one", "B": "two", "C": "nan", "D": "nan"},
        **{"hint": "h", "category": "random", "image": inline()},
    },
    "vqav2": {"question": "q", "answers": [{"answer": "red"}] * 10, "answer_type": "other", "image": inline()},
    "vizwiz": {"question": "q", "answers": ["red"] * 10, "category": "other", "image": inline()},
    "seedbench": {
        **{"question": "q", "choice_a": "one", "choice_b": "two", "choice_c": "3", "choice_d": "4", "answer": "B"},
        **{"data_type": "image", "image": [inline()]},
    },
    "chartqa": {"question": "q", "answer": "red", "type": "human_test", "image": inline()},
    "docvqa": {"question": "q", "answers": ["red"], "image": inline()},
    "refcoco": {"answer": ["the red one"], "bbox": [0, 0, 4, 2], "image": inline()},
}  # fmt: skip
ROWS |= {name: ROWS["refcoco"] for name in TASKS if name.startswith("refcoco")}
ROWS["ocrbench_2024"] = ROWS["ocrbench"]
RIGHT = {"pope": "yes", "scienceqa": "B", "ai2d": "B", "mmmu": "B", "mme": "yes", "mmbench": "B", "seedbench": "B"}
RIGHT |= {name: "[0, 0, 1, 0.5]" for name in ROWS if name.startswith("refcoco")}
KINDS = {"pope": "random", "gqa": "query", "scienceqa": "language science", "mmmu": "Art_Theory", "mme": "OCR"}
KINDS |= {"ocrbench": "Doc-oriented VQA", "ocrbench_2024": "Doc-oriented VQA", "vqav2": "other", "vizwiz": "other"}
KINDS |= {"mmbench": "random", "chartqa": "human_test"}
NEEDED = ("mmmu", "ocrbench", "ocrbench_2024", "mme")  # their column of the kind is no optional one
OPTIONAL = ("category", "types", "subject", "hint", "answer_type", "type", "B", "C", "D", "choice_d")
FROM_DATA = [name for name in TASKS if name != "scenes"]


def optional_of(name):
    return [column for column in OPTIONAL if not (name == "mme" and column == "category")]


def seen(*sizes):
    return [Shown(size, lambda: pytest.fail("asked for what the model saw")) for size in sizes]


def records_of(name, folder, *rows):
    return get_task(name).open(write_lines(folder / "data.jsonl", rows), None)


def without(row, *columns):
    return {name: value for name, value in row.items() if name not in columns}


@pytest.mark.parametrize("name", FROM_DATA)
def test_a_record_of_each_is_read_asked_and_scored(name, tmp_path):
    task, records = get_task(name), records_of(name, tmp_path, ROWS[name])
    record = records.read(0)
    assert (len(records), records.key(0), task.name) == (1, f"{name}/0", name)
    record = {**record, "shown": seen((4, 4))}
    assert task.score(RIGHT.get(name, "red"), record).value == 1
    assert task.score("certainly not", record).value in (0, float(name == "mmmu"))  # MMMU guesses
    assert task.kind(record) == KINDS.get(name, "all")
    [(identity, picture)] = records.images(0, record)
    assert len(identity) == 64 and picture.mode == "RGB" and picture.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("name", FROM_DATA)
def test_optional_columns_may_be_absent(name, tmp_path):
    records = records_of(name, tmp_path, without(ROWS[name], *optional_of(name)))
    kind = get_task(name).kind(records.read(0))
    assert kind == (KINDS[name] if name in NEEDED else "all")


@pytest.mark.parametrize("name", FROM_DATA)
def test_a_missing_required_column_is_named_when_the_data_is_opened(name, tmp_path):
    first = next(iter(ROWS[name]))
    with pytest.raises(UserError) as caught:
        records_of(name, tmp_path, without(ROWS[name], first))
    assert f"'{first}'" in caught.value.message and "data.jsonl" in caught.value.message
    assert all(column in caught.value.hint for column in without(ROWS[name], first))


@pytest.mark.parametrize("name", FROM_DATA)
@pytest.mark.parametrize("damage", ["absent", "null", "number", "object"])
def test_a_bad_cell_is_an_error_of_its_row_and_of_no_other(name, damage, tmp_path):
    value = {"null": None, "number": 3.5, "object": {}}.get(damage)
    for column in without(ROWS[name], "image", "image_1", "data_type", *optional_of(name)):
        bad = without(ROWS[name], column) | ({} if damage == "absent" else {column: value})
        records = records_of(name, tmp_path, ROWS[name], bad, ROWS[name])
        with pytest.raises(RecordError, match=f"data.jsonl row 2: columns? '?{column}"):
            records.read(1)
        assert records.read(0) == records.read(2)


@pytest.mark.parametrize("name", FROM_DATA)
def test_words_of_the_data_are_no_marker_of_a_picture(name, tmp_path):
    row = ROWS[name] | {"question": f"what is {MARKER} and {MARKER}?", "answer": ROWS[name].get("answer")}
    if name.startswith("refcoco"):
        row["answer"] = [f"{MARKER}, {MARKER}"]
    if name == "textvqa_ocr":
        row |= {"ocr_tokens": [MARKER]}
    records = records_of(name, tmp_path, ROWS[name], row)
    prompt = get_task(name).prompt(records.read(1))
    assert MARKER not in prompt.lower() and "image" in prompt


def test_the_marker_is_that_of_the_prompts():
    from fopru_graph.lvlm.inputs import chat

    assert chat.MARKER == MARKER


def test_options_of_every_letter_and_wrong_numbers(tmp_path):
    records = records_of(
        "ai2d", tmp_path, *(ROWS["ai2d"] | {"answer": answer} for answer in ("0", 1, "2", -1, True, "x"))
    )
    assert [records.read(i)["answer"] for i in range(2)] == ["A", "B"]
    for index in range(2, 6):
        with pytest.raises(RecordError, match="not the number of an option from 0 to 1"):
            records.read(index)


@pytest.mark.parametrize("options", ["[1", "{}", "open('x')", "(" * 500, "[" * 200_000, "[]", [], None, 3])
def test_options_of_mmmu_that_are_no_list(options, tmp_path):
    records = records_of("mmmu", tmp_path, ROWS["mmmu"], ROWS["mmmu"] | {"options": options})
    with pytest.raises(RecordError, match="row 2: column 'options'"):
        records.read(1)


def test_options_of_mmmu_may_be_a_list_and_hold_numbers(tmp_path):
    records = records_of(
        "mmmu", tmp_path, *(ROWS["mmmu"] | {"options": one} for one in (OPTIONS, "['one', 'two']", "[1, 2]"))
    )
    assert records.read(0)["options"] == records.read(1)["options"] == OPTIONS
    assert "\nA. 1\nB. 2\n" in get_task("mmmu").prompt(records.read(2))


def test_several_pictures_of_mmmu_come_once_each_in_order(tmp_path):
    row = ROWS["mmmu"] | {
        "question": "<image 2>, <image 1> and <image 2>",
        "image_1": inline("red"),
        "image_2": inline("blue"),
    }
    records = records_of("mmmu", tmp_path, row, row | {"question": "<image 3>"}, row | {"question": "<image 12>"})
    shown = [picture.getpixel((0, 0)) for _, picture in records.images(0, records.read(0))]
    assert shown == [(255, 0, 0), (0, 0, 255)]
    with pytest.raises(RecordError, match="row 2: picture 'image_3' is missing"):
        records.images(1, records.read(1))
    with pytest.raises(RecordError, match="row 3: .*image_12"):
        records.read(2)


def test_pictures_of_gqa_may_lie_in_a_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "n1.jpg").write_bytes(png("blue"))
    row = without(ROWS["gqa"], "image")
    records = records_of(
        "gqa", tmp_path, row | {"imageId": "n1"}, row | {"imageId": "n2"}, row | {"imageId": "../n"}, row
    )
    assert records.images(0, records.read(0))[0][1].getpixel((0, 0)) == (0, 0, 255)
    for index, reason in ((1, "there is no file"), (2, "there is no file"), (3, "so is 'imageId'")):
        with pytest.raises(RecordError, match=f"data.jsonl row {index + 1}: picture.*{reason}"):
            records.images(index, records.read(index))


def test_an_unknown_task_is_refused_with_the_closest():
    with pytest.raises(UserError) as caught:
        get_task("textvqua")
    assert "textvqua" in caught.value.message and "textvqa" in caught.value.hint


def test_scorers_are_named_with_their_version():
    named = {name: get_task(name).scorer for name in TASKS}
    assert all("@" in scorer for scorer in named.values())
    assert (named["ocrbench"], named["ocrbench_2024"]) == ("ocrbench@2026", "ocrbench@2024")


def test_tasks_need_neither_torch_nor_the_packages_of_data_sets(tmp_path):
    path = write_lines(tmp_path / "pope.jsonl", [pope_row()])
    code = (
        "import sys; from fopru_graph.evaluation.tasks import get_task\n"
        f"records = get_task('pope').open({path!r}, None); records.images(0, records.read(0))\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'datasets'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
