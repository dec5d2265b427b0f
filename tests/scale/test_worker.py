"""What a worker makes of a plan: every row once, in whole parts, whatever died before it."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from fopru_graph.errors import UserError
from fopru_graph.processes.process import StopSignals
from fopru_graph.scale import worker as workers
from fopru_graph.scale.folder import MapFolder
from fopru_graph.scale.plan import Plan
from fopru_graph.scale.watch import Watch
from fopru_graph.scale.worker import Stopped, Worker, claim_parts, failures_told
from tests.scale import toy
from tests.test_full_disk import full_disk

pytest.importorskip("pyarrow")
PATHS = ["a", "b", "broken", "d", "e", "f"]
ROWS = [(path, f"seen {path}", None) for path in PATHS if path != "broken"]
ROWS.insert(2, ("broken", None, "it is broken"))


@pytest.fixture(autouse=True)
def toys(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a worker goes to the folder of its driver
    monkeypatch.setattr(workers, "PipelineMap", toy.ToyMap)
    monkeypatch.setattr(workers, "identity_of", lambda mapped, job: toy.IDENTITY)


def make(run):
    claim_parts(Worker(run.path, StopSignals()))
    return run


def test_parts_hold_every_row_once_in_its_order(tmp_path):
    run = make(toy.toy_run(tmp_path, PATHS))
    assert toy.results(run.folder) == ROWS
    assert [path.name for path in run.folder.parts().values()] == ["part-00000.parquet", "part-00001.parquet"]
    assert run.made() == 6 and list(run.folder.path.glob(".*")) == []
    watch = Watch(run)
    watch.look()
    assert (watch.rows, watch.left()) == (6, [])


def test_what_is_there_is_not_made_again_and_what_is_not_gets_the_same_files(tmp_path):
    run = make(toy.toy_run(tmp_path, PATHS, part_rows=2))
    run.folder.part(1).unlink()
    again = make(toy.toy_run(tmp_path, [*PATHS, "new"], "second", part_rows=2))
    assert again.plan.todo == 3 and toy.begun(again) == [*PATHS, "broken", "d", "new"]
    assert toy.results(again.folder) == [*ROWS, ("new", "seen new", None)]
    nothing = toy.toy_run(tmp_path, PATHS, "third")
    assert nothing.plan.parts == () and nothing.plan.total == 6


def test_retry_answers_failed_rows_again_in_their_places(tmp_path, monkeypatch):
    make(toy.toy_run(tmp_path, PATHS))
    assert toy.toy_run(tmp_path, PATHS, "second").plan.parts == ()
    call = toy.ToyMap.__call__

    def repaired(self, batch):
        return call(self, batch) | {"text": ["repaired"], "error": [None]}

    monkeypatch.setattr(toy.ToyMap, "__call__", repaired)
    run = make(toy.toy_run(tmp_path, PATHS, "third", retry=True))
    assert toy.begun(run) == [*PATHS, "broken"]
    assert toy.results(run.folder) == [*ROWS[:2], ("broken", "repaired", None), *ROWS[3:]]


@pytest.mark.parametrize(
    ("paths", "said"), [(["a", "b", "a"], "has the id 'a' twice"), (["a", 1], "has texts and numbers as ids, e.g. 1")]
)
def test_ids_must_tell_rows_apart(tmp_path, paths, said):
    with pytest.raises(UserError, match=said):
        toy.toy_run(tmp_path, paths)


def test_numbers_are_ids_too(tmp_path):
    assert [path for path, *_ in toy.results(make(toy.toy_run(tmp_path, [3, 1, 2])).folder)] == [3, 1, 2]
    assert toy.toy_run(tmp_path, [1, 2, 3], "second").plan.parts == ()


def trail(run, text):
    (run.path / "state" / "0.rows").write_text(text)


def test_a_batch_at_which_workers_died_goes_row_by_row(tmp_path):
    run = toy.toy_run(tmp_path, PATHS[:4], batch_size=2)
    trail(run, "begin\n0 2\n2 2\nbegin\n0 2\n2 2\n")
    make(run)
    trace = (tmp_path / "trace").read_text().splitlines()
    assert trace == ["a 2", "b 2", "broken 1", "d 1"] and toy.results(run.folder) == ROWS[:4]


@pytest.mark.parametrize("deaths", ["begin\n0 1\n1 1\n" * 2, "begin\n0 2\n" * 2 + "begin\n0 1\n1 1\n" * 2])
def test_a_row_at_which_workers_died_alone_is_given_up(tmp_path, deaths):
    run = toy.toy_run(tmp_path, PATHS[:4], batch_size=2 if "0 2" in deaths else 1)
    trail(run, deaths)
    make(run)
    assert "b" not in toy.begun(run)
    assert toy.results(run.folder) == [ROWS[0], ("b", None, "2 workers died at this row"), *ROWS[2:4]]


def test_workers_that_were_stopped_did_not_die(tmp_path):
    run = toy.toy_run(tmp_path, PATHS[:4])
    stop = StopSignals()
    worker = Worker(run.path, stop)
    look = worker.go_on

    def stopped_at_the_second_row():
        stop.count = len(toy.begun(run))
        look()

    worker.go_on = stopped_at_the_second_row
    for _ in range(3):
        with pytest.raises(Stopped):
            worker.make(run.plan.parts[0])
    assert run.folder.parts() == {}
    assert toy.results(make(run).folder) == ROWS[:4]


def test_a_worker_of_an_earlier_run_writes_nothing(tmp_path):
    first = toy.toy_run(tmp_path, PATHS)
    worker = Worker(first.path, StopSignals())
    (tmp_path / "out" / "_map" / "current").write_text("another")
    with pytest.raises(Stopped):
        worker.make(first.plan.parts[0])
    assert first.folder.parts() == {} and toy.begun(first) == []
    with pytest.raises(UserError, match="another run has taken over"):
        Watch(first).look()


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(tmp_path):
    run = toy.toy_run(tmp_path, PATHS)
    worker = Worker(run.path, StopSignals())
    worker.make(run.plan.parts[0])
    before = run.folder.part(0).read_bytes()
    refused = pytest.raises(UserError, match="out cannot be written: File too large")
    with full_disk(), refused as caught, failures_told(run.path):
        worker.make(run.plan.parts[1])
    assert "finished parts are kept" in caught.value.hint
    assert run.folder.part(0).read_bytes() == before and list(run.folder.path.glob("*part-*")) == [run.folder.part(0)]
    assert toy.results(make(toy.toy_run(tmp_path, PATHS, "second")).folder) == ROWS


def test_why_a_worker_fails_reaches_the_driver(tmp_path):
    run = toy.toy_run(tmp_path, PATHS)
    with pytest.raises(UserError), failures_told(run.path):
        raise UserError("the model is not there", "look for it")
    with pytest.raises(UserError, match="the model is not there") as caught:
        Watch(run).look()
    assert caught.value.hint == "look for it"


def test_rows_of_something_else_are_refused(tmp_path, monkeypatch):
    run = make(toy.toy_run(tmp_path, PATHS))
    other = {"key": "of another toy", "data": "other toys"}
    monkeypatch.setattr(workers, "identity_of", lambda mapped, job: other)
    with pytest.raises(UserError, match='data differ; data was "toys", now it is "other toys"'):
        Worker(run.path, StopSignals())


def test_parts_of_others_or_damaged_ones_are_named(tmp_path):
    run = make(toy.toy_run(tmp_path, PATHS))
    file = tmp_path / "out" / "_map" / "identity.json"
    file.write_text(json.dumps({"identity": {"key": "other"}}))
    with pytest.raises(UserError, match="part-00000.parquet is no part of these results"):
        list(run.folder.rows("path"))
    file.write_text(json.dumps({"identity": toy.IDENTITY}))
    run.folder.part(1).write_bytes(b"PAR1")
    with pytest.raises(UserError, match="part-00001.parquet cannot be read as parquet") as caught:
        list(run.folder.rows("path"))
    assert "its rows are made again" in caught.value.hint
    file.unlink()
    with pytest.raises(UserError, match="holds parts but no identity.json"):
        run.folder.claim(toy.IDENTITY)


def test_one_driver_at_a_time_and_not_before_workers_of_the_last_are_gone(tmp_path, monkeypatch):
    folder, told = MapFolder(tmp_path / "out"), []
    with folder.driven("first", told.append) as run, pytest.raises(UserError, match="another process maps into"):
        MapFolder(tmp_path / "out").driven("second", told.append).__enter__()
    far = run / "workers" / "far-1"
    far.write_text(json.dumps({"host": "far", "pid": 1, "created": 0}))
    (run / "workers" / "here-1").write_text("{}")  # torn: its process cannot have begun anything
    monkeypatch.setattr("fopru_graph.scale.folder.LEASE", 1.3)
    with folder.driven("third", told.append) as third:
        assert not run.exists() and third.is_dir()
    assert told == ["waiting for workers of an earlier run to end: far-1"]


def test_plans_can_be_read_again(tmp_path):
    run = toy.toy_run(tmp_path, PATHS)
    assert Plan.load(run.path) == run.plan
    assert Counter(part.rows for part in run.plan.parts) == {4: 1, 2: 1}
