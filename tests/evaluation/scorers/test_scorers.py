"""The rules one by one, by hand-made cases; tests/evaluation/tasks/test_golden.py compares thousands with lmms-eval."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fopru_graph.evaluation.scorers import SCORERS, boxes, documents, get_scorer, matching, mmmu, ocrbench, pope, vqa
from fopru_graph.evaluation.task import Shown

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize(
    ("answer", "right", "same"),
    [("Yes.", "yes", True), ("t-shirt", "T shirt", False), ("tshirt", "T-shirt", True), (" yes\n", "yes", True),
     (". yes", "yes", False), ("yes", " yes", False), ("", "yes", False), ("…", "", False)],
)  # fmt: skip
def test_exact_match(answer, right, same):
    assert matching.exact_match(answer, right) is same


@pytest.mark.parametrize(
    ("answer", "right"),
    [("B", True), ("b", True), (" B\n", True), ("B. wood", True), ("b. wood", False), ("B.", True), ("B)", False),
     ("A. B", False), ("", False), ("The answer is B", False), ("BB.", False)],
)  # fmt: skip
def test_scienceqa(answer, right):
    assert matching.scienceqa(answer, "B") is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [("B", True), ("b", True), ("(B)", True), ("\tB. wood", True), ("b. wood", False), ("B wood", False), ("", False)],
)
def test_ai2d(answer, right):
    assert matching.ai2d(answer, "B") is right


def test_vqa_accuracy_leaves_each_person_out():
    people = ["two", "2", "2", *["many"] * 7]
    # Two people say 2 besides each of three, three besides each of seven: (3 · 2/3 + 7 · 1) / 10.
    assert vqa.vqa_accuracy("2", people) == pytest.approx(0.9)
    assert vqa.vqa_accuracy("Many", people) == 1
    assert vqa.vqa_accuracy("one", people) == 0
    assert vqa.vqa_accuracy("x", ["x"]) == 0, "nobody else to agree"


def test_every_text_is_normalised_as_the_server_does():
    normalised = json.loads((GOLDEN / "textvqa.json").read_text())["normalised"]
    assert len(normalised) > 400
    assert {text: vqa.normalise(text) for text in normalised} == normalised


@given(st.text(), st.lists(st.text(), min_size=1, max_size=10))
def test_vqa_accuracy_changes_nothing_and_stays_a_share(answer, people):
    before = list(people)
    first = vqa.vqa_accuracy(answer, people)
    assert 0 <= first <= 1 and first == vqa.vqa_accuracy(answer, people) and people == before


def test_ocrbench_formulas_keep_their_case_since_2026():
    for answer in ("so \\frac { A }\n{b} .", "\\frac{A}{b}"):
        assert ocrbench.ocrbench(answer, ["\\frac {A} {b}"], "HME100k")
        assert not ocrbench.ocrbench_2024(answer, ["\\frac {A} {b}"], "HME100k"), "lower case before all else"
    assert not ocrbench.ocrbench("\\frac{a}{b}", ["\\frac{A}{b}"], "HME100k")


def test_ocrbench_full_width_characters_are_ascii_since_2026():
    assert ocrbench.ocrbench("abc 12", ["ＡＢＣ　１２"], "ReCTS")
    assert not ocrbench.ocrbench_2024("abc 12", ["ＡＢＣ　１２"], "ReCTS")
    assert ocrbench.ocrbench_2024("It says\nSTOP.", ["no", "says stop"], "IIIT5K")


def test_pope_counts_words_alone():
    assert [pope.yes_or_no(answer) for answer in ("Yes", " no\n", "Yes.", "", "yes no")] == [
        "yes",
        "no",
        *["neither"] * 3,
    ]


def test_pope_metrics_by_hand():
    pairs = [("yes", "yes")] * 3 + [("no", "yes")] + [("yes", "no")] * 2 + [("no", "no")] * 2 + [("neither", "yes")] * 2
    rows = [{"score": 0, "facts": {"said": said, "truth": truth}} for said, truth in pairs]
    metrics = pope.pope_metrics(rows)
    assert metrics["precision"] == pytest.approx(3 / 5)
    assert metrics["recall"] == pytest.approx(3 / 4), "neither yes nor no is no false negative"
    assert metrics["f1"] == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    assert (metrics["yes_ratio"], metrics["neither_ratio"]) == (0.5, 0.2)
    assert pope.pope_metrics([]) == {} and ocrbench.ocrbench_metrics([]) == {}
    assert set(pope.pope_metrics(rows[-1:]).values()) == {0.0, 1.0}, "nothing said: no division by zero"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [("(A) or (C)", "C"), ("(C) not (A) B", "A"), ("A or B it is", "B"), ("A.", "A"), ("x A.x", "A"), ("x A.B", "B"),
     ("DNA", "A"), ("DNA strand", "A"), ("DNAs", None), ("I would say it was the old oak", "B"), ("the old oak", None),
     ("", None), ("D", None), ("C C B", "B")],
)  # fmt: skip
def test_letters_of_mmmu(answer, letter):
    assert mmmu.choice(answer, ["x", "old oak", "z"]) == letter


def test_guesses_are_the_same_in_every_run_and_spread_over_the_options():
    before = random.getstate()
    drawn = Counter(mmmu.guess(f"validation_Art_{number}", 4) for number in range(2000))
    assert random.getstate() == before
    assert mmmu.guess("validation_Art_1", 4) == mmmu.guess("validation_Art_1", 4) == "C"
    assert set(drawn) == set("ABCD") and min(drawn.values()) > 400


@pytest.mark.parametrize(
    ("answer", "right", "same"),
    [("The answer is 23", "23", True), ("23.001", "23", True), ("23.01", "23", False), ("1,234 m", "1234", True),
     ("is 2.3e1", "23", True), ("it is 24, or 23 perhaps", "23", True), ("It is a minor third.", "Minor third", True),
     ("an axe", "x", False), ("x", "x", True), ("a x b", "x", True), ("", "23", False), ("y = 5\nx = 23", "23", True),
     ("y = 23\nx = 5", "23", False), ("y is 23\nx is 5", "23", True)],
)  # fmt: skip
def test_open_answers_of_mmmu(answer, right, same):
    assert mmmu.open_answer(answer, [right]) is same


def test_open_answers_that_were_always_wrong_in_some_versions_of_the_harness():
    # From 0.3.5 to 0.7.2 lmms-eval compared the characters of one candidate.
    assert mmmu.open_answer("The answer is 23", ["23"]) and mmmu.open_answer("so it is 0.5", ["minus half", "0.50"])


def test_mmmu_counts_its_guesses():
    rows = [{"facts": facts} for facts in ({"guessed": True}, {"guessed": False}, {})]
    assert mmmu.mmmu_metrics(rows) == {"guessed": 1.0}


def picture(*size, seen=None):
    return [Shown(size, lambda: seen)]


@pytest.mark.parametrize(
    ("coordinates", "said"),
    [("fractions", "It is [0.25, 0.5, 0.75, 1.0]."), ("fractions", "[0.250,0.5,0.75,1]"),
     ("padded", "[0.25, 0.5, 0.75, 0.75]"), ("cropped", "[0.0, 0.5, 1.0, 1.0]"),
     ("thousandths", "<ref>the dog</ref><box>[[250, 500, 750, 1000]]</box>"),
     ("thousandths", "<|box_start|>(250,500),(750,1000)<|box_end|>"), ("thousandths", "(250,500),(750,1000)"),
     ("thousandths", "[[250, 500, 750, 1000]] and [[0, 0, 1, 1]]"),
     ("thousandths", '```json\\n[{"bbox_2d": [250, 500, 750, 1000], "label": "dog 12"}]\\n```'),
     ("pixels", '{"bbox_2d": [14, 14, 42, 28], "label": "the dog"}'), ("pixels", "(14, 14), (42, 28)"),
     ("loc", "<loc0512><loc0256><loc1024><loc0768> the dog"), ("loc", "<loc0512><loc0256><loc1024><loc0768>")],
)  # fmt: skip
def test_one_box_in_the_notations_of_all_models(coordinates, said):
    shown = picture(200, 100, seen=(56, 28))
    score = boxes.box(said, [50, 50, 150, 100], shown, coordinates=coordinates)
    assert (score.value, score.facts["centre"]) == (1, True) and score.facts["iou"] == pytest.approx(1)


def test_a_box_in_another_notation_is_wrong():
    answers = {"fractions": "<box>[[250, 500, 750, 1000]]</box>", "thousandths": "[0.25, 0.5, 0.75, 1.0]"}
    answers |= {"loc": "[0.25, 0.5, 0.75, 1.0]", "pixels": "<loc0512><loc0256><loc1024><loc0768>"}
    for coordinates, said in answers.items():
        score = boxes.box(said, [50, 50, 150, 100], picture(200, 100, seen=(56, 28)), coordinates=coordinates)
        assert score.value == 0, coordinates


def test_a_square_picture_is_its_own_square():
    for coordinates in ("fractions", "padded", "cropped"):
        assert (
            boxes.box("[0.1, 0.2, 0.3, 0.4]", [10, 20, 30, 40], picture(100, 100), coordinates=coordinates).value == 1
        )


def test_the_threshold_of_a_box_is_an_option():
    half = boxes.box("[0, 0, 1.0, 0.5]", [0, 0, 10, 10], picture(10, 10))
    assert (half.value, half.facts["iou"]) == (1, 0.5)
    assert boxes.box("[0, 0, 1.0, 0.5]", [0, 0, 10, 10], picture(10, 10), threshold=0.51).value == 0
    assert boxes.box_metrics([]) == {}


@pytest.mark.parametrize(
    ("said", "right", "same"),
    [("105", "100", True), ("105.1", "100", False), ("95", "100", True), ("-0.5", "0.5", False),
     ("12.5%", "12.5", False), ("0.125", "12.5%", True), ("0", "0", True), ("0.0", "0", False), ("nan", "5", False),
     ("north", "North", True), ("2,000", "2000", False), ("", "5", False)],
)  # fmt: skip
def test_relaxed(said, right, same):
    assert documents.relaxed(said, right) is same


def test_relaxed_and_anls_take_their_limits_as_options():
    assert documents.relaxed("120", "100", tolerance=0.2) and not documents.relaxed("105", "100", tolerance=0.0)
    assert documents.anls("abcd", ["abcx", "no"]) == pytest.approx(0.75)
    assert documents.anls("abcd", ["abcx"], threshold=0.8) == 0 and documents.anls("ab", ["xy"], threshold=0.0) == 0


@given(st.text(max_size=12), st.text(max_size=12))
def test_anls_is_a_similarity(first, second):
    assert 0 <= documents.anls(first, [second]) <= 1
    assert documents.anls(first, [first.strip()]) == 1


def test_every_scorer_says_what_it_needs():
    for name in SCORERS:
        scorer = get_scorer(name)
        assert scorer.doc and scorer.columns, name
    assert get_scorer("box").given == ("shown",) and set(get_scorer("box").options) == {"coordinates", "threshold"}
