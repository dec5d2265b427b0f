"""Prompts, pictures and scores of every benchmark agree with lmms-eval 0.7.3 (vectors: golden/make_golden.py)."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.evaluation.task import Record, Records, Shown
from fopru_graph.evaluation.tasks import get_task
from tests.evaluation.datafiles import inline, write_lines
from tests.evaluation.golden.documents import ANYTHING

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = ("ai2d", "scienceqa", "mmmu", "pope", "gqa", "ocrbench", "textvqa", "textvqa_ocr", "mme", "mmbench", "vqav2")
NAMES += ("vizwiz", "seedbench", "chartqa", "docvqa")
OPEN_END = ("textvqa", "textvqa_ocr", "vizwiz", "seedbench", "refcoco")  # theirs leaves the length to the model's class
COLOURS = {"image": (9, 9, 9)} | {f"image_{i}": (i, 0, 0) for i in range(1, 8)}


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def opened(name: str, vectors: list[dict[str, Any]], folder: Path) -> Records:
    pictures = {column: inline(colour) for column, colour in COLOURS.items()}
    return get_task(name).open(write_lines(folder / f"{name}.jsonl", [v["doc"] | pictures for v in vectors]), None)


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_and_choice_of_pictures_agrees(name, tmp_path):
    vectors = golden(name)["vectors"]
    records = opened(name, vectors, tmp_path)
    assert len(records) == len(vectors) >= 3
    for index, vector in enumerate(vectors):
        record = records.read(index)
        assert get_task(name).prompt(record) == vector["prompt"]
        shown = [picture.getpixel((0, 0)) for _, picture in records.images(index, record)]
        assert shown == [COLOURS[column] for column in vector["pictures"]]


@pytest.mark.parametrize("name", NAMES)
def test_every_score_agrees(name, tmp_path):
    vectors, task = golden(name)["vectors"], get_task(name)
    records = opened(name, vectors, tmp_path)
    counted = 0
    for index, vector in enumerate(vectors):
        record = records.read(index)
        before = copy.deepcopy(record)
        for answer, theirs in vector["answers"].items():
            if theirs is None:
                continue  # a letter drawn at random, see test_mmmu.py
            first, second = task.score(answer, record), task.score(answer, record)
            assert first.value == pytest.approx(theirs, abs=1e-12), (answer, vector["doc"])
            assert first == second, "scoring twice gives the same"
            counted += theirs > 0
        assert record == before, "a record is never changed"
    assert counted > 20, "the vectors hold right answers too"


def test_answers_without_a_letter_are_guessed_where_the_harness_draws_one(tmp_path):
    vectors, task = golden("mmmu")["vectors"], get_task("mmmu")
    records = opened("mmmu", vectors, tmp_path)
    seen = Counter[bool]()
    for index, vector in enumerate(vectors):
        record = records.read(index)
        for answer, theirs in vector["answers"].items():
            facts = task.score(answer, record).facts
            assert facts.get("guessed", False) == (theirs is None), answer
            seen[theirs is None] += 1
    assert min(seen[True], seen[False]) > 300


def test_the_rule_of_2024_agrees_with_lmms_eval_0_3_0(tmp_path):
    vectors = golden("ocrbench")["vectors"]
    records = opened("ocrbench", vectors, tmp_path)
    differing = 0
    for index, vector in enumerate(vectors):
        record = records.read(index)
        for answer, theirs in vector["answers_2024"].items():
            assert get_task("ocrbench_2024").score(answer, record).value == theirs, (answer, vector["doc"])
            differing += theirs != vector["answers"][answer]
    assert differing > 10, "the two rules differ somewhere"


def test_pope_metrics_agree_but_for_the_yes_ratio(tmp_path):
    content, task = golden("pope"), get_task("pope")
    records = opened("pope", content["vectors"], tmp_path)
    rows, yes_truths, yes_answers = [], 0, 0
    for index, vector in enumerate(content["vectors"]):
        record: Record = records.read(index)
        for answer in vector["answers"]:
            score = task.score(answer, record)
            rows.append({"score": score.value, "facts": score.facts, "type": task.kind(record)})
            yes_truths += vector["doc"]["answer"].strip().lower() == "yes"
            yes_answers += answer.strip().lower() == "yes"
    ours, theirs = task.metrics(rows), content["aggregates"]
    assert sum(row["score"] for row in rows) / len(rows) == pytest.approx(theirs["pope_accuracy"])
    for name, entry in {"precision": "precision", "recall": "recall", "f1": "f1_score"}.items():
        assert ours[name] == pytest.approx(theirs[f"pope_{entry}"])
    # Theirs counts the right answers, whatever the model said; ours what it said.
    assert theirs["pope_yes_ratio"] == pytest.approx(yes_truths / len(rows))
    assert ours["yes_ratio"] == pytest.approx(yes_answers / len(rows))
    assert ours["yes_ratio"] != pytest.approx(theirs["pope_yes_ratio"], abs=0.1)


def test_ocrbench_counts_the_same_rows_the_same_twice_and_divides_by_their_number():
    # Theirs adds into a dictionary of the module that nothing ever empties, and divides by 1000 whatever was scored.
    assert golden("ocrbench")["aggregate_of_three_right"] == [0.003, 0.006]
    rows = [{"score": 1.0, "facts": {}, "type": "Doc-oriented VQA"}] * 3
    metrics = get_task("ocrbench").metrics
    assert metrics(rows) == metrics(rows) == {"ocrbench": 1000.0}
    assert metrics([*rows, {"score": 0.0, "facts": {}, "type": "x"}]) == {"ocrbench": 750.0}


def test_textvqa_scores_one_record_the_same_twice(tmp_path):
    twice = golden("textvqa")["twice"]
    assert twice["scores"] == [1.0, 0.0], "theirs normalises the record in place, so that it differs the second time"
    records = opened("textvqa", [{"doc": twice["doc"]}], tmp_path)
    record = records.read(0)
    assert [get_task("textvqa").score(twice["answer"], record).value for _ in range(2)] == [1.0, 1.0]


def test_mme_adds_accuracy_and_accuracy_of_pairs_as_theirs_does(tmp_path):
    content, task = golden("mme"), get_task("mme")
    records = opened("mme", content["vectors"], tmp_path)
    rows = []
    for index in range(len(content["vectors"])):
        record = records.read(index)
        for answer in ANYTHING:
            score = task.score(answer, {**record, "pair": f"{record['pair']} {answer}"})
            rows.append({"score": score.value, "facts": score.facts, "type": task.kind(record)})
    ours, theirs = task.metrics(rows), content["aggregates"]
    assert ours["perception"] == pytest.approx(theirs["mme_perception_score"])
    assert ours["cognition"] == pytest.approx(theirs["mme_cognition_score"])
    assert 0 < ours["cognition"] < ours["perception"]
    # Theirs ends with an error where a pair lacks a question, as with --limit or after a broken picture.
    fewer = task.metrics(rows[1:])
    assert (ours["incomplete_pairs"], fewer["incomplete_pairs"]) == (0, 1)


def test_mmbench_counts_a_question_only_if_every_order_of_its_options_is_right(tmp_path):
    content, task = golden("mmbench"), get_task("mmbench")
    records = opened("mmbench", content["vectors"], tmp_path)
    for run in content["circular"]:
        scores = [task.score(answer, records.read(index)) for index, answer in enumerate(run["answers"])]
        rows = [{"score": score.value, "facts": score.facts, "type": "all"} for score in scores]
        assert task.metrics(rows)["circular"] == pytest.approx(run["accuracy"])
        assert task.metrics(rows[1:])["circular"] <= 1, "a question without its first order is left out"
    assert len({run["accuracy"] for run in content["circular"]}) > 2


def test_an_empty_option_of_mmbench_is_no_option(tmp_path):
    empty = golden("mmbench")["empty_options"]
    assert empty["score"] == 0, "theirs finds the placeholder 'nan' of missing options in 'banana'"
    record = opened("mmbench", [{"doc": empty["doc"]}], tmp_path).read(0)
    assert record["options"] == ["banana", "apple"]
    assert get_task("mmbench").score(empty["answer"], record).value == 1


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog"])
def test_boxes_agree_in_every_figure(name, tmp_path):
    content, task = golden("refcoco"), get_task(name)
    rows = [row | {"image": inline("red", *row["size"])} for row in content["rows"]]
    records = task.open(write_lines(tmp_path / "rows.jsonl", rows), None)
    assert len(records) == len(content["vectors"]) == 5, "one record for every expression"
    counted = [0, 0]
    for index, vector in enumerate(content["vectors"]):
        record = records.read(index)
        assert task.prompt(record) == vector["prompt"]
        shown = [Shown(picture.size, lambda: pytest.fail("not asked")) for _, picture in records.images(index, record)]
        for answer, theirs in vector["answers"].items():
            score = task.score(answer, {**record, "shown": shown})
            figures = task.metrics([{"score": score.value, "facts": score.facts, "type": "all"}])
            if not score.facts["box"]:  # theirs takes the picture's corner for a box, whose centre may be right
                theirs = [*theirs[:-1], 0.0]
            assert list(figures.values())[:-1] == pytest.approx(theirs), (answer, vector["doc"])
            assert score.value == theirs[content["metrics"].index("refcoco_ACC@0.5")]
            counted[int(score.value)] += 1
    assert min(counted) > 100


@pytest.mark.parametrize("name", [*NAMES, "refcoco"])
def test_number_of_new_tokens_is_theirs(name):
    theirs = golden(name)["header"]["max_new_tokens"]
    assert (theirs is None) == (name in OPEN_END)
    assert get_task(name).max_new_tokens == (theirs or 128)
