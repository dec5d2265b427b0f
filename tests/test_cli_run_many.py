"""``run FILE IMAGE…``: a row a picture from one load; what is broken is a row too. And batches of equal work."""

from __future__ import annotations

import json

import pytest

from fopru_graph.batches import answered, equal_batches, work_of
from fopru_graph.graph import Cancelled, NodeError
from fopru_graph.pipeline_model import PipelineModel
from tests.test_cli import invoke

TEXT = "what does the text say ?"
SAMPLES = ("street-sign", "taxi-rank", "night-cafe")


@pytest.fixture
def questions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"image": f"demo:{name}", "prompt": TEXT, "id": name} for name in SAMPLES]
    rows += [{"image": "torn.png", "id": "broken"}, {"image": "demo:taxi-rank", "prompt": "is there a star ?", "id": 5}]
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "asked.jsonl"


def rows_of(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_row_a_picture_in_their_order_whatever_the_batch_and_a_broken_one_is_a_row(questions, tmp_path, monkeypatch):
    loads = []
    monkeypatch.setattr(PipelineModel, "__init__", counted(PipelineModel.__init__, loads))
    by_size = {}
    for size in (1, 2, 8):
        result = invoke("run", "fopru_fastv", questions, "--prompt", TEXT, "--json", "--batch-size", str(size))
        assert result.exit_code == 3 and "4 answers, 1 error in" in result.stderr
        by_size[size] = rows_of(result)
    keys = ["id", "image", "prompt", "text", "visual_tokens", "new_tokens", "times", "error"]
    for rows in by_size.values():
        assert [list(row) for row in rows] == [keys] * 5
        assert [row["id"] for row in rows] == [*SAMPLES, "broken", "5"]
        assert [row["text"] for row in rows] == ["stop", "taxi", "cafe", None, "no"]
        assert [row["error"] is None for row in rows] == [True, True, True, False, True]
        assert "torn.png" in rows[3]["error"] and rows[3]["times"] is None and rows[3]["prompt"] == TEXT
        assert rows[0]["visual_tokens"] == {"encoded": 256, "kept": 128, "final": 64, "layer_average": 96.0}
    for row in (*by_size[1], *by_size[2], *by_size[8]):
        times = row.pop("times")
        if times is not None:
            assert times["batch"] == 1 or times["ttft_ms"] is None, "no picture of a batch has a first token of its own"
            assert times["total_ms"] > 0
    assert by_size[1] == by_size[2] == by_size[8]
    assert len(loads) == 3 and not (tmp_path / "fopru-out").exists()


def counted(function, calls):
    def counting(*arguments, **options):
        calls.append(1)
        return function(*arguments, **options)

    return counting


def test_people_read_a_line_a_picture(questions):
    result = invoke("run", "fopru_rank", "demo:street-sign", "demo:taxi-rank", "torn.png")
    assert result.exit_code == 3 and result.stdout == "demo:street-sign: stop\ndemo:taxi-rank: taxi\n"
    assert "error: torn.png: 'torn.png' starts like a PNG" in result.stderr
    assert "2 answers, 1 error in" in result.stderr and "256 encoded → 64 into the LLM → 64 in" in result.stderr


def test_a_single_picture_is_a_run_like_any_other(questions, tmp_path):
    result = invoke("run", "fopru_rank", "demo:taxi-rank", "--prompt", TEXT)
    assert (result.exit_code, result.stdout) == (0, "taxi\n") and "TTFT" in result.stderr
    assert (tmp_path / "fopru-out" / "kept.png").is_file()
    asked = invoke("run", "fopru_rank", "--prompt", "is there a star ?", "--json")
    assert json.loads(asked.stdout)["outputs"]["text"] == "no"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gone.png",), "there is no file 'gone.png'"),
        (("asked.jsonl", "torn.jsonl"), "torn.jsonl:1: this is no JSON"),
        (("demo:taxi-rank", "--explain"), "--explain does not go with pictures"),
        (("demo:taxi-rank", "--batch-size", "0"), "batch-size"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_loaded(questions, tmp_path, monkeypatch, arguments, says):
    (tmp_path / "torn.jsonl").write_text("{")
    monkeypatch.setattr(PipelineModel, "__init__", None)
    result = invoke("run", "fopru_rank", *arguments)
    assert result.exit_code == 2 and says in result.stderr and result.stdout == ""


def test_ctrl_c_keeps_what_is_done_of_the_batches_at_hand(questions, monkeypatch):
    whole, calls = PipelineModel.answers, []

    def cancelled(model, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise Cancelled
        return whole(model, *arguments, **options)

    monkeypatch.setattr(PipelineModel, "answers", cancelled)
    result = invoke("run", "fopru_rank", *(f"demo:{name}" for name in SAMPLES), "--json", "--batch-size", "2")
    assert result.exit_code == 130 and "interrupted after 2 of 3" in result.stderr
    assert [row["text"] for row in rows_of(result)] == ["stop", "taxi"]


class Toy:
    """Answers in capitals; fails where it is told to, or if there are too many."""

    def __init__(self, bad=(), room=99):
        self.bad, self.room, self.runs = set(bad), room, []

    def answers(self, questions, max_new_tokens=None, sets=None):
        self.runs.append(len(questions))
        if len(questions) > self.room or self.bad.intersection(prompt for prompt, _ in questions):
            raise NodeError("generate", "LLMGenerate", None, MemoryError("full"), {}, [])
        return [prompt.upper() for prompt, _ in questions]


def outcomes(model, prompts):
    return ["error" if isinstance(each, Exception) else each for each in answered(model, [(p, "") for p in prompts])]


def test_one_that_fails_spoils_no_other_of_its_batch():
    assert outcomes(Toy(), "abcdefgh") == list("ABCDEFGH")
    assert outcomes(Toy(bad="c"), "abcdefgh") == ["A", "B", "error", *"DEFGH"]
    assert outcomes(Toy(bad="ah"), "abcdefgh") == ["error", *"BCDEFG", "error"]
    small = Toy(room=2)
    assert outcomes(small, "abcdefgh") == list("ABCDEFGH") and small.runs == [8, 4, 2, 2, 4, 2, 2]


class Squares:
    """Every pixel is a token."""

    def picture_tokens(self, size):
        if 0 in size:
            raise ValueError("nothing to see")
        return size[0] * size[1]


def test_batches_are_of_about_equal_work_and_keep_those_of_one_picture_together():
    assert equal_batches([100] * 5, 2) == [[0, 1], [2, 3], [4]]
    assert equal_batches([1000, 100, 980, 104, 96, 1010], 3) == [[1, 3, 4], [0, 2, 5]]
    assert equal_batches([100, 1000, 10], 8) == [[2], [0], [1]], "rather alone than mostly padding"
    assert equal_batches([260, 256, 259, 257], 2) == [[0, 1], [2, 3]], "a few tokens of text change no order"
    assert equal_batches([], 4) == []
    assert [work_of(Squares(), "?" * length, size) for length, size in ((40, (3, 4)), (4000, (3, 4)))] == [22, 1012]
    assert [work_of(Squares(), "", size) for size in (None, (0, 9))] == [256, 256], "it is told when it is asked"
