"""The page of a server without the frontend."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fopru_graph.comfy.prompt import prompt_of
from fopru_graph.graph import Graph
from fopru_graph.server.queue import JobQueue
from fopru_graph.server.status import page_of
from tests.server.canvas_client import run_prompt
from tests.server.conftest import Client, Serve


@pytest.fixture
def client(serve: Serve, tmp_path: Path) -> Client:
    return serve(folder=tmp_path / "state", canvas=False)


def test_the_page_draws_pipelines_and_shows_answers_and_overlays(client: Client) -> None:
    run_prompt(client.address, prompt_of(Graph.load("fopru_fastv")))
    answer = client.ask("GET", "/")
    page = answer.body.decode()
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
    assert "<p>stop</p>" in page and "1: done" in page
    sources = re.findall(r'src="([^"]+)"', page)
    kinds = {source: client.ask("GET", source.replace("&amp;", "&")).headers["Content-Type"] for source in sources}
    assert set(kinds.values()) == {"image/svg+xml; charset=utf-8", "image/png"}
    assert "/pipelines/fopru_fastv.svg" in kinds
    assert client.ask("GET", "/pipelines/unknown.svg").status == 404


def test_nothing_on_the_page_runs(client: Client, tmp_path: Path) -> None:
    headers = client.ask("GET", "/").headers
    assert headers["Content-Security-Policy"].startswith(
        "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
    )
    graph = Graph.load("baseline")
    graph.description = "<script>alert(1)</script>"
    queue = JobQueue(tmp_path / "queue.sqlite")
    job = queue.add({})
    queue.take(0)
    queue.end(job.id, "done", {"outputs": {"a": {"text": ['<img src=x onerror="alert(1)">']}}, "messages": []})
    page = page_of({'a"><script>': graph}, queue.jobs())
    queue.close()
    assert "<script" not in page and "<img src=x" not in page and "&lt;img src=x" in page


def test_a_failure_is_told_on_the_page(client: Client) -> None:
    prompt = prompt_of(Graph.load("fopru_fastv"))
    prompt["generate"]["inputs"]["prompt"] = "<image> <image> what is it ?"
    run = run_prompt(client.address, prompt)
    sentence = run.data("execution_error")[0]["exception_message"].partition("(")[0]
    assert sentence in client.ask("GET", "/").body.decode()
    assert json.loads(client.ask("GET", f"/history/{run.id}").body)[run.id]["status"]["status_str"] == "error"
