"""One cell: every sample has one row, whatever happens; figures are those of the rows."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fopru_graph.errors import UserError
from fopru_graph.evaluation.pictures import draw_gallery
from fopru_graph.evaluation.task import Score
from fopru_graph.graph import Cancelled, NodeError
from tests.evaluation.toys import BASELINE, TASK, ToyModel, ToyRecords, cell_run


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """The toys have no pictures to draw; tests/test_cli_eval.py looks at those of the demo model."""
    monkeypatch.setattr("fopru_graph.evaluation.runner.draw_gallery", lambda _run, _folder: None)


def rows_of(folder, timing=False):
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return rows if timing else [{key: value for key, value in row.items() if key != "timing"} for row in rows]


def test_rows_and_summary(tmp_path):
    summary = cell_run(tmp_path / "a").run()
    rows = rows_of(tmp_path / "a", timing=True)
    assert [row["id"] for row in rows] == [f"toy/{index}" for index in range(12)]
    assert rows[3] == {
        "index": 3, "id": "toy/3", "type": "odd", "picture": "picture 1", "picture_files": [],
        "status": "ok", "answer": "3", "score": 0.0,
        "facts": {"length": 1}, "error": None, "encoded": 8, "kept": 4, "final": 2, "layer_average": 3.0,
        "text_tokens": 5, "new_tokens": 2, "kv_bytes": 103, "positions": None,
        "timing": {"ttft_ms": 2.0, "prefill_ms": 1.0, "total_ms": rows[3]["timing"]["total_ms"], "rank": 0},
    }  # fmt: skip
    assert summary == json.loads((tmp_path / "a" / "summary.json").read_text())
    assert (summary["pipeline"], summary["task"], summary["ratio"]) == ("fopru_rank", "toy", 0.5)
    assert summary["accuracy"] == 0.5 and summary["n"] == 12 and summary["errors"] == 0
    assert summary["ci"][0] < 0.5 < summary["ci"][1]
    assert summary["per_type"] == {"even": {"accuracy": 1.0, "n": 6}, "odd": {"accuracy": 0.0, "n": 6}}
    assert summary["retention"] == {"kept": 0.5, "final": 0.25, "layer_average": 0.375, "p10": 0.25, "p90": 0.25}
    assert summary["tokens"]["text"] == 5 and summary["metrics"] == {"seen": 12.0}
    assert summary["prunes"] and not cell_run(tmp_path / "b", file=BASELINE, ratio=1.0).run()["prunes"]


def test_what_fails_is_a_row_with_its_reason_and_no_answer(tmp_path):
    summary = cell_run(tmp_path / "a", ToyRecords(12, broken=[4]), ToyModel(fails=[7])).run()
    rows = rows_of(tmp_path / "a")
    assert summary["errors"] == 2 and summary["n"] == 10 and summary["accuracy"] == 0.5
    assert summary["common_error"] == {"message": rows[4]["error"], "count": 1}
    assert rows[4]["error"] == "toy.jsonl row 5: broken"
    assert rows[7]["error"] == "generate: no memory for 7"
    for row in (rows[4], rows[7]):
        assert row["status"] == "error" and row["answer"] is None and row["score"] is None
    assert [sorted(row) for row in rows] == [sorted(rows[0])] * 12


def test_a_row_names_the_line_of_a_node_of_ones_own(tmp_path, monkeypatch):
    def fail(*_):
        try:
            raise ZeroDivisionError("by zero")
        except ZeroDivisionError as error:
            raise NodeError("score", "Mine", None, error, {}, [], __file__) from error

    model = ToyModel()
    monkeypatch.setattr(model, "answer", fail)
    cell_run(tmp_path / "a", ToyRecords(1), model).run()
    (row,) = rows_of(tmp_path / "a")
    assert row["error"].startswith("score: by zero (raised at ") and "test_runner.py:" in row["error"]


def raises(*_):
    raise KeyError("number")


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("prompt", raises, "KeyError: 'number'"),
        ("score", raises, "KeyError: 'number'"),
        ("kind", raises, "KeyError: 'number'"),
        ("kind", lambda _record: 7, "type"),
        ("score", lambda _answer, _record: Score(float("nan")), "score"),
        ("score", lambda _answer, _record: Score(1.5), "score"),
        ("score", lambda _answer, _record: Score(1.0, {"seen": object()}), "not JSON serializable"),
        ("score", lambda _answer, _record: Score(1.0, {"seen": float("inf")}), "not JSON compliant"),
    ],
)
def test_whatever_fails_on_a_row_is_the_error_of_that_row(tmp_path, part, value, says):
    usual = getattr(TASK, part)

    def spoilt(*arguments):
        return (value if arguments[-1]["number"] == 2 else usual)(*arguments)

    for _ in range(2):  # and again on resuming
        summary = replace(cell_run(tmp_path, ToyRecords(4)), task=replace(TASK, **{part: spoilt})).run()
        row = rows_of(tmp_path)[2]
        assert (summary["n"], summary["errors"], row["status"], row["answer"]) == (3, 1, "error", None)
        assert says in row["error"] and summary["common_error"]["message"] == row["error"]


def test_a_cancelled_sample_is_no_error_row(tmp_path):
    def cancelled(_record):
        raise Cancelled

    with pytest.raises(Cancelled):
        replace(cell_run(tmp_path, ToyRecords(2)), task=replace(TASK, prompt=cancelled)).run()
    assert (tmp_path / "shards" / "rank0.jsonl").read_bytes() == b""


def test_half_a_surrogate_pair_in_a_row_is_written_as_its_escape(tmp_path):
    half = "\ud800"
    spoilt = {
        "kind": lambda record: half,
        "score": lambda _answer, _record: Score(1.0, {half: [half]}),
        "prompt": lambda record: str(record["number"]),
    }
    cell = replace(cell_run(tmp_path, ToyRecords(2), ToyModel(answers=half)), task=replace(TASK, **spoilt))
    broken = replace(cell, records=ToyRecords(2, broken=[1], why=half))
    for run in (broken, broken, replace(cell, retry=True)):
        summary = run.run()
    assert summary["n"] == 2 and list(summary["per_type"]) == ["\\ud800"]
    (row, _) = rows_of(tmp_path)
    assert (row["answer"], row["facts"]) == ("\\ud800", {"\\ud800": ["\\ud800"]})


def test_a_cell_is_finished_even_if_its_pictures_fail_for_whatever_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("fopru_graph.evaluation.runner.draw_gallery", draw_gallery)
    summary = replace(cell_run(tmp_path, ToyRecords(2)), task=replace(TASK, prompt=raises)).run()
    assert summary["errors"] == 2 and summary["not_drawn"] == "'number'"


def test_a_method_that_always_fails_has_no_accuracy(tmp_path):
    summary = cell_run(tmp_path / "a", ToyRecords(3), ToyModel(fails=range(3))).run()
    assert (
        summary["accuracy"] is None and summary["n"] == 0 and summary["errors"] == 3 and summary["ci"] == [None, None]
    )


def test_a_stopped_cell_goes_on_where_it_was(tmp_path):
    first, second = ToyModel(stop=5), ToyModel()
    with pytest.raises(KeyboardInterrupt):
        cell_run(tmp_path / "a", model=first).run()
    assert not (tmp_path / "a" / "results.jsonl").exists()
    cell_run(tmp_path / "a", model=second).run()
    assert first.asked + second.asked == list(range(12))
    cell_run(tmp_path / "whole").run()
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "whole")


def test_a_finished_cell_asks_nothing_again_but_failed_samples_on_demand(tmp_path):
    cell_run(tmp_path / "a", model=ToyModel(fails=[2])).run()
    model = ToyModel()
    assert cell_run(tmp_path / "a", model=model).run()["errors"] == 1
    assert model.asked == []
    assert cell_run(tmp_path / "a", model=model, retry=True).run()["errors"] == 0
    assert model.asked == [2]


def test_more_samples_can_be_asked_for_later_and_fewer_again(tmp_path):
    cell_run(tmp_path / "a", ToyRecords(6)).run()
    model = ToyModel()
    assert cell_run(tmp_path / "a", ToyRecords(12), model).run()["n"] == 12
    assert model.asked == list(range(6, 12))
    assert cell_run(tmp_path / "a", ToyRecords(4), model).run()["n"] == 4
    assert len(rows_of(tmp_path / "a")) == 4


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("ratio", lambda folder: cell_run(folder, ratio=0.25)),
        ("pipeline", lambda folder: cell_run(folder, file=BASELINE, ratio=1.0)),
        ("data", lambda folder: cell_run(folder, ToyRecords(fingerprint="other"))),
    ],
)
def test_another_configuration_is_refused(tmp_path, what, change):
    cell_run(tmp_path / "a").run()
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="another configuration") as caught:
        change(tmp_path / "a").run()
    assert what in caught.value.message and "--out" in caught.value.hint
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()} == before


def test_progress_counts_what_is_done_already(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cell_run(tmp_path / "a", model=ToyModel(stop=5)).run()
    seen = []
    cell_run(tmp_path / "a", ToyRecords(12, broken=[9])).run(
        lambda p: seen.append((p.done, p.total, p.errors, p.scored))
    )
    assert seen[0] == (6, 12, 0, 1) and seen[-1] == (12, 12, 1, 6)


def test_memory_stays_flat_over_many_samples(tmp_path):
    """4,000 samples: what is kept of each are a few numbers, not its answer and not its row."""

    class Talker(ToyModel):
        def answer(self, prompt, images, max_new_tokens=None):
            answered = super().answer(prompt, images, max_new_tokens)
            self.asked.clear()
            return replace(answered, text=prompt + "x" * 4000)

    run = cell_run(tmp_path / "warm", ToyRecords(100), Talker())
    run.run()
    tracemalloc.start()
    try:
        assert cell_run(tmp_path / "a", ToyRecords(4_000), Talker()).run()["n"] == 4_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a" / "results.jsonl").stat().st_size > 16_000_000
    assert peak < 5_000_000


def test_a_score_may_ask_for_the_picture_as_the_model_saw_it(tmp_path):
    def score(answer, record):
        (shown,) = record["shown"]
        return Score(1.0, {"size": shown.size, "seen": shown.seen()})

    class Seeing(ToyModel):
        def seen_size(self, answer):
            assert answer.text == "0"
            return (2, 1)

    run = replace(cell_run(tmp_path, model=Seeing()), task=replace(TASK, score=score))
    assert run.samples.row(0).facts == {"size": [4, 4], "seen": [2, 1]}


def test_a_model_is_asked_by_its_variant_and_the_identity_is_that_of_the_task(tmp_path):
    variant = {"prompt": lambda record: "1", "scorer": "other@1", "score": lambda answer, record: Score(0.5)}
    task, model = replace(TASK, variants={"toys": variant}), ToyModel()
    model.handle.family = SimpleNamespace(model_type="toys")
    run = replace(cell_run(tmp_path, model=model), task=task)
    assert (run.samples.row(2).answer, run.samples.row(2).score, run.asked.scorer) == ("1", 0.5, "other@1")
    assert run.task.facts == TASK.facts
    model.handle.family.model_type = "others"
    assert replace(run).samples.row(2).answer == "2"


def test_rows_do_not_follow_from_the_size_of_the_batches_but_for_their_times(tmp_path):
    spoilt = {
        "prompt": lambda record: raises() if record["number"] == 1 else str(record["number"]),
        "score": lambda answer, record: raises() if record["number"] == 2 else TASK.score(answer, record),
    }
    for size in (1, 4, 20):
        model = ToyModel(fails=[7])
        cell = cell_run(tmp_path / str(size), ToyRecords(12, broken=[4]), model, batch_size=size)
        summary = replace(cell, task=replace(TASK, **spoilt)).run()
        assert (summary["n"], summary["errors"]) == (8, 4)
        assert summary["samples_per_s"] > 0
        if size == 1:
            assert (model.batches, summary["batch_size"]) == ([], 1)
        if size == 4:
            assert model.batches == [4, 4, 2, 1, 1, 2, 2] and summary["batch_size"] == 4
    rows = {size: rows_of(tmp_path / str(size)) for size in (1, 4, 20)}
    assert rows[1] == rows[4] == rows[20] and rows[1][7]["error"] == "generate: no memory for 7"
    timings = [row["timing"] for row in rows_of(tmp_path / "4", timing=True) if row["status"] == "ok"]
    assert [timing.get("batch", 1) for timing in timings] == [4, 4, 4, 1, 2, 2, 2, 2]
    for timing in timings:
        assert (timing["ttft_ms"] is timing["prefill_ms"] is None) == ("batch" in timing) and timing["total_ms"] > 0


def test_a_cell_goes_on_with_another_size_of_batches(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cell_run(tmp_path, model=ToyModel(stop=5), batch_size=2).run()
    model = ToyModel()
    assert cell_run(tmp_path, model=model, batch_size=4).run()["n"] == 12
    assert model.asked[:8] == [4, 5, 6, 7, 8, 9, 10, 11] and model.batches == [4, 4]


def test_samples_of_several_pictures_are_asked_alone_and_those_of_one_picture_stay_together(tmp_path):
    class Several(ToyRecords):
        def images(self, index, record):
            return super().images(index, record) * (2 if index % 3 == 0 else 1)

    model = ToyModel()
    cell_run(tmp_path, Several(9), model, batch_size=4).run()
    assert model.asked == [0, 3, 6, 1, 2, 4, 5, 7, 8] and model.batches == [4, 2]
