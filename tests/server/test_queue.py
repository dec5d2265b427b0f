"""The durable queue: nothing is lost, nothing runs twice, whatever is killed when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fopru_graph.errors import UserError
from fopru_graph.server.queue import JobQueue, QueueFull

WORKER = """
import sys, time
from pathlib import Path
from fopru_graph.server.queue import JobQueue
queue, log = JobQueue(Path(sys.argv[1])), open(sys.argv[2], "a", buffering=1)
while (job := queue.take(0)) is not None:
    log.write(job.id + "\\n")
    time.sleep(0.002)
    queue.end(job.id, "done", {"n": job.prompt["n"]})
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


@pytest.fixture
def queue(path: Path):
    queue = JobQueue(path)
    yield queue
    queue.close()


def ids(queue: JobQueue, *states) -> list[int]:
    return [job.prompt["n"] for job in queue.jobs(*states)]


def test_jobs_run_in_their_order_and_the_front_comes_first(queue: JobQueue):
    for n in range(3):
        queue.add({"n": n})
    queue.add({"n": 3}, front=True)
    assert ids(queue, "queued") == [3, 0, 1, 2]
    assert [queue.take(0).prompt["n"] for _ in range(4)] == [3, 0, 1, 2]
    assert queue.take(0) is None


def test_a_job_comes_back_as_it_was_given(queue: JobQueue):
    added = queue.add({"n": 1, "text": "é\n"}, {"workflow": {"nodes": []}}, "client", id="mine")
    assert queue.find("mine") == added
    assert (added.state, added.extra, added.client, added.result) == (
        "queued",
        {"workflow": {"nodes": []}},
        "client",
        None,
    )
    taken = queue.take(0)
    assert taken.state == "running" and taken.started >= taken.created
    queue.end("mine", "failed", {"error": "why"})
    ended = queue.find("mine")
    assert (ended.state, ended.result) == ("failed", {"error": "why"}) and ended.ended >= ended.started


def test_deleting_and_moving_touch_waiting_jobs_only(queue: JobQueue):
    jobs = [queue.add({"n": n}) for n in range(5)]
    running = queue.take(0)
    assert queue.delete([running.id, jobs[1].id, "unknown"]) == [jobs[1].id]
    assert queue.move(jobs[4].id, 0) and not queue.move(running.id, 0) and not queue.move("unknown", 0)
    assert ids(queue, "queued") == [4, 2, 3]
    assert queue.move(jobs[4].id, 99) and ids(queue, "queued") == [2, 3, 4]
    assert queue.clear() == 3 and ids(queue) == [0]


def test_only_a_running_job_ends_and_only_once(queue: JobQueue):
    job = queue.add({"n": 0})
    queue.end(job.id, "done")
    assert queue.find(job.id).state == "queued"
    queue.take(0)
    queue.end(job.id, "interrupted")
    queue.end(job.id, "done")
    assert queue.find(job.id).state == "interrupted"
    with pytest.raises(ValueError, match="does not end as running"):
        queue.end(job.id, "running")


def test_a_full_queue_says_so(path: Path):
    queue = JobQueue(path, most_queued=2)
    queue.add({"n": 0})
    queue.add({"n": 1})
    with pytest.raises(QueueFull, match="2 jobs are waiting already"):
        queue.add({"n": 2})
    queue.take(0)
    queue.add({"n": 2})
    with pytest.raises(UserError, match="there is a job x already"):
        queue.take(0), queue.add({}, id="x"), queue.take(0), queue.add({}, id="x")


def test_a_job_that_ran_when_the_server_died_is_lost_and_never_runs_again(path: Path):
    first = JobQueue(path)
    lost, waiting = first.add({"n": 0}), first.add({"n": 1})
    first.take(0)
    first.close()
    again = JobQueue(path)
    assert [job.id for job in again.lost] == [lost.id]
    assert again.find(lost.id).state == "lost"
    assert again.take(0).id == waiting.id and again.take(0) is None
    assert JobQueue(path).lost[0].id == waiting.id


def test_a_pause_outlives_the_server(path: Path):
    queue = JobQueue(path)
    queue.add({"n": 0})
    queue.pause()
    assert queue.take(0) is None
    queue.close()
    again = JobQueue(path)
    assert again.paused and again.take(0) is None
    again.resume()
    assert again.take(0).prompt == {"n": 0}


def test_whoever_waits_is_woken_by_a_job_by_resuming_and_by_the_end(queue: JobQueue):
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.extend([queue.take(60), queue.take(60), queue.take(60)]))
    thread.start()
    queue.add({"n": 0})
    while len(queue.jobs("running")) < 1:
        time.sleep(0.001)
    queue.pause()
    queue.add({"n": 1})
    queue.resume()
    while len(queue.jobs("running")) < 2:
        time.sleep(0.001)
    queue.close()
    thread.join(60)
    assert [job and job.prompt["n"] for job in taken] == [0, 1, None]


def test_the_history_keeps_the_newest(queue: JobQueue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fopru_graph.server.queue.MOST_ENDED", 3)
    for n in range(6):
        queue.add({"n": n})
        queue.end(queue.take(0).id, "done")
    assert ids(queue, "done") == [3, 4, 5]
    assert [job.prompt["n"] for job in queue.jobs("done", newest=True, most=2, offset=1)] == [4, 3]
    assert queue.forget([queue.jobs("done")[0].id, "unknown"]) == 1 and queue.forget() == 2


def test_threads_share_the_jobs_without_taking_one_twice(queue: JobQueue):
    for n in range(100):
        queue.add({"n": n})
    taken: list[int] = []

    def work() -> None:
        while (job := queue.take(0)) is not None:
            taken.append(job.prompt["n"])
            queue.end(job.id, "done")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(100))


def test_kill_minus_nine_at_random_moments(path: Path, tmp_path: Path):
    """500 jobs and workers that are killed: each job ran once, but for those that ran at a kill, which are lost."""
    queue, log, chance = JobQueue(path), tmp_path / "log", random.Random(0)
    wanted = {queue.add({"n": n}).id for n in range(500)}
    queue.close()
    log.touch()
    kills = 5
    for kill in range(kills):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, path, log])
        while log.read_text().count("\n") < 60 * kill + chance.randrange(1, 60):
            time.sleep(0.001)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    subprocess.run([sys.executable, "-c", WORKER, path, log], check=True)
    ran = log.read_text().split()
    after = JobQueue(path)
    states = {job.id: job.state for job in after.jobs()}
    lost = {id for id, state in states.items() if state == "lost"}
    assert set(states) == wanted and set(states.values()) <= {"done", "lost"} and len(lost) <= kills
    assert len(ran) == len(set(ran)) and set(ran) >= wanted - lost
