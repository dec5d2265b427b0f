"""Prompts that come in: what is refused, what waits, in which order, and what is left after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.comfy.prompt import prompt_of
from fopru_graph.errors import Caution
from fopru_graph.graph import Graph
from tests.server.canvas_client import run_prompt, wait_for
from tests.server.conftest import Answer, Client, Serve

Ask = Callable[..., Any]


@pytest.fixture
def prompt() -> dict[str, Any]:
    return prompt_of(Graph.load("fopru_fastv"))


@pytest.fixture
def answering(prompt: dict[str, Any]) -> dict[str, Any]:
    """The same without its picture, so that a run that finds all in the cache costs nothing."""
    del prompt["picture"]
    return prompt


@pytest.fixture
def client(serve: Serve, tmp_path: Path) -> Client:
    """A server of its own."""
    return serve(folder=tmp_path / "state")


def ask(client: Client, method: str, path: str, body: Any = None) -> Any:
    """Send JSON, and read JSON."""
    answer = send(client, method, path, body)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def send(client: Client, method: str, path: str, body: Any = None) -> Answer:
    data = None if body is None else json.dumps(body).encode()
    return client.ask(method, path, data, **({"content_type": "application/json"} if data is not None else {}))


# -- what is refused --------------------------------------------------------------------------------------------------


def refused(server: Client, prompt: dict[str, Any], node: str, input: str | None) -> str:
    """Post a prompt that has one mistake, and give the sentence on its node."""
    answer = send(server, "POST", "/prompt", {"prompt": prompt})
    assert answer.status == 400
    found = json.loads(answer.body)
    assert found["error"]["type"] == "prompt_outputs_failed_validation"
    assert list(found["node_errors"]) == [node]
    assert found["node_errors"][node]["class_type"] == prompt[node]["class_type"]
    (error,) = found["node_errors"][node]["errors"]
    assert error["extra_info"] == ({"input_name": input} if input else {})
    assert error["details"] == error["message"]
    return error["message"]


def test_a_wrong_link_is_told_on_its_input(server: Client, prompt: dict[str, Any]) -> None:
    prompt["prune"]["inputs"]["significance"] = ["encode", 0]
    assert "Significance" in refused(server, prompt, "prune", "significance")


def test_a_missing_link_is_told_on_its_input(server: Client, prompt: dict[str, Any]) -> None:
    del prompt["project"]["inputs"]["features"]
    assert "link it to encode" in refused(server, prompt, "project", "features")


def test_a_value_out_of_range_is_told_on_its_widget(server: Client, prompt: dict[str, Any]) -> None:
    prompt["stage_ratio"]["inputs"]["ratio"] = 1.5
    assert "1.5" in refused(server, prompt, "stage_ratio", "ratio")


def test_a_growing_input_is_told_by_its_link(server: Client, prompt: dict[str, Any]) -> None:
    prompt["generate"]["inputs"]["pruners.pruner0"] = ["encode", 0]
    refused(server, prompt, "generate", "pruners.pruner0")


def test_a_circle_is_told(server: Client, prompt: dict[str, Any]) -> None:
    prompt["reorder"]["inputs"]["selection"] = ["reorder", 0]
    answer = send(server, "POST", "/prompt", {"prompt": prompt})
    assert answer.status == 400 and b"wait for each other" in answer.body


@pytest.mark.parametrize(
    ("node", "input", "value"),
    [("image", "path", "/etc/passwd"), ("image", "path", "../queue.sqlite"), ("image", "path", "~/.ssh/id_rsa"),
     ("image", "path", "demo:../x"), ("image", "path", "none.png"), ("image", "path", "http://127.0.0.1/x.png"),
     ("model", "name", "/etc"), ("model", "name", "org/model"), ("model", "name", "../.."),
     ("picture", "file", "../x.png"), ("picture", "file", "/tmp/x.png")],
)  # fmt: skip
def test_no_prompt_names_files_of_the_machine(
    server: Client, prompt: dict[str, Any], node: str, input: str, value: str
) -> None:
    prompt[node]["inputs"][input] = value
    refused(server, prompt, node, input)


def test_no_text_of_a_model_names_a_file(server: Client, prompt: dict[str, Any]) -> None:
    prompt["second"] = {"class_type": "FopruLoadImage", "inputs": {"path": ["generate", 0]}}
    prompt["encode_second"] = {
        "class_type": "FopruVisionEncode",
        "inputs": {"model": ["model", 0], "image": ["second", 0]},
    }
    prompt["picture"]["inputs"]["features"] = ["encode_second", 0]
    assert "no link" in refused(server, prompt, "second", "path")


@pytest.mark.parametrize("body", [{}, {"prompt": {}}, {"prompt": []}, {"prompt": "x"}, {"prompt": {"a": 1}}])
def test_what_is_no_prompt_is_refused(server: Client, body: dict[str, Any]) -> None:
    answer = send(server, "POST", "/prompt", body)
    assert answer.status == 400 and json.loads(answer.body)["error"]["message"]


def test_a_prompt_of_unknown_nodes_is_refused(server: Client) -> None:
    answer = send(server, "POST", "/prompt", {"prompt": {"1": {"class_type": "KSampler", "inputs": {}}}})
    assert json.loads(answer.body)["error"]["type"] == "prompt_no_outputs"


def test_half_a_pipeline_beside_the_one_that_runs_is_no_mistake(server: Client, answering: dict[str, Any]) -> None:
    answering["beside"] = {"class_type": "FopruRankPrune", "inputs": {}}
    assert run_prompt(server.address, answering).order[-3] == "execution_success"


def test_the_served_pipelines_name_further_files(serve: Serve, tmp_path: Path) -> None:
    import PIL.Image

    PIL.Image.new("RGB", (64, 64), "blue").save(tmp_path / "blue.png")
    (tmp_path / "mine.yaml").write_text(Graph.load("baseline").dumps().replace("demo:street-sign", "blue.png"))
    client = serve(folder=tmp_path / "state", pipelines={"mine": Graph.load(tmp_path / "mine.yaml")})
    assert client.ask("GET", "/view?filename=blue.png&type=input").status == 200
    with pytest.warns(Caution, match="blue.png"):  # in a ComfyUI it could not be opened
        prompt = prompt_of(Graph.load(tmp_path / "mine.yaml"))
    assert prompt["image"]["inputs"]["path"] == "blue.png"
    assert run_prompt(client.address, prompt).order[-3] == "execution_success"
    offered = ask(client, "GET", "/object_info/FopruLoadImage")["FopruLoadImage"]["input"]["required"]["path"][1]
    assert "blue.png" in offered["options"]


# -- what waits -------------------------------------------------------------------------------------------------------


def test_jobs_wait_are_moved_and_taken_out(client: Client, answering: dict[str, Any]) -> None:
    assert ask(client, "POST", "/fopru/queue", {"paused": True}) == {"paused": True, "waiting": 0}
    ids = [ask(client, "POST", "/prompt", {"prompt": answering})["prompt_id"] for _ in range(5)]
    front = ask(client, "POST", "/prompt", {"prompt": answering, "front": True, "prompt_id": "my-own"})["prompt_id"]
    assert front == "my-own"
    assert [entry[1] for entry in ask(client, "GET", "/queue")["queue_pending"]] == [front, *ids]
    ask(client, "POST", "/fopru/queue", {"move": ids[4], "to": 1})
    ask(client, "POST", "/queue", {"delete": [ids[0], "unknown"]})
    ask(client, "POST", "/jobs/cancel", {"job_ids": [ids[1]]})
    ask(client, "POST", f"/jobs/{ids[2]}/cancel", {})
    jobs = ask(client, "GET", "/api/jobs?status=in_progress,pending&limit=200&offset=0")
    assert [job["id"] for job in jobs["jobs"]] == [front, ids[4], ids[3]]
    assert {job["status"] for job in jobs["jobs"]} == {"pending"}
    assert jobs["pagination"] == {"offset": 0, "limit": 200, "total": 3, "has_more": False}
    assert ask(client, "GET", f"/history/{front}") == {}
    ask(client, "POST", "/fopru/queue", {"paused": False})
    wait_for(lambda: len(ask(client, "GET", "/history")) == 3)
    ended = ask(client, "GET", "/jobs?status=completed,failed,cancelled&limit=2")
    assert [job["id"] for job in ended["jobs"]] == [front, ids[4]] and ended["pagination"]["has_more"]
    assert ask(client, "GET", f"/jobs/{front}")["outputs"] == {"generate": {"text": ["stop"]}}
    ask(client, "POST", "/history", {"delete": [front]})
    assert ask(client, "GET", f"/history/{front}") == {}
    ask(client, "POST", "/history", {"clear": True})
    assert ask(client, "GET", "/history") == {}


def test_clearing_the_queue_leaves_nothing_waiting(client: Client, answering: dict[str, Any]) -> None:
    ask(client, "POST", "/fopru/queue", {"paused": True})
    for _ in range(3):
        ask(client, "POST", "/prompt", {"prompt": answering})
    ask(client, "POST", "/queue", {"clear": True})
    assert ask(client, "GET", "/prompt") == {"exec_info": {"queue_remaining": 0}}


def test_keys_of_other_services_are_not_kept(client: Client, answering: dict[str, Any]) -> None:
    extra = {
        "extra_pnginfo": {"workflow": {"id": "w"}},
        "api_key_comfy_org": "s3cret",
        "auth_token_comfy_org": "s3cret",
    }
    ask(client, "POST", "/fopru/queue", {"paused": True})
    id = ask(client, "POST", "/prompt", {"prompt": answering, "extra_data": extra})["prompt_id"]
    detail = ask(client, "GET", f"/jobs/{id}")
    assert detail["workflow"]["extra_data"] == {"extra_pnginfo": {"workflow": {"id": "w"}}}
    assert "s3cret" not in json.dumps(detail)


def test_memory_is_given_back_when_asked(client: Client, answering: dict[str, Any]) -> None:
    run_prompt(client.address, answering)
    ask(client, "POST", "/free", {"unload_models": True, "free_memory": True})
    assert run_prompt(client.address, answering).data("execution_cached")[0]["nodes"] == []


def test_a_file_that_a_node_writes_lies_in_a_folder_of_its_job(client: Client, answering: dict[str, Any]) -> None:
    answering["save"] = {"class_type": "FopruSaveText", "inputs": {"text": ["generate", 0], "file": "answer.txt"}}
    run = run_prompt(client.address, answering)
    shown = {data["node"]: data["output"] for data in run.data("executed")}
    assert shown["save"] == {"text": [f"saved as output/{run.id}/answer.txt"]}
    answer = client.ask("GET", f"/view?filename=answer.txt&subfolder={run.id}&type=output")
    assert answer.headers["Content-Type"].startswith("text/plain") and answer.body.strip() == b"stop"


def test_what_nobody_foresaw_fails_one_job_alone(
    client: Client, answering: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fopru_graph.server.canvas.messages.Messages.result", lambda _self: 1 / 0)
        failed = ask(client, "POST", "/prompt", {"prompt": answering})["prompt_id"]
        wait_for(lambda: ask(client, "GET", f"/history/{failed}"))
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert ask(client, "GET", f"/jobs/{failed}")["status"] == "failed"
    assert run_prompt(client.address, answering).order[-3] == "execution_success"


def test_chat_and_canvas_share_a_model(client: Client, answering: dict[str, Any]) -> None:
    question = {"model": "fopru_fastv", "messages": [{"role": "user", "content": "what is it ?"}], "max_tokens": 1}
    ask(client, "POST", "/v1/chat/completions", question)
    assert "model" in run_prompt(client.address, answering).data("execution_cached")[0]["nodes"]


def test_500_jobs_are_each_run_once(client: Client, answering: dict[str, Any]) -> None:
    ask(client, "POST", "/fopru/queue", {"paused": True})
    ids = [ask(client, "POST", "/prompt", {"prompt": answering})["prompt_id"] for _ in range(500)]
    assert ask(client, "GET", "/prompt")["exec_info"]["queue_remaining"] == 500
    ask(client, "POST", "/fopru/queue", {"paused": False})
    wait_for(lambda: ask(client, "GET", "/prompt")["exec_info"]["queue_remaining"] == 0)
    found = [ask(client, "GET", f"/jobs?status=completed&limit=200&offset={at}")["jobs"] for at in (0, 200, 400)]
    assert [job["id"] for page in found for job in page] == ids[::-1]


# -- what is left -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def command(folder: Path) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """The real command, which is killed at the end."""
    arguments = ["serve", "fopru_fastv", "--port", "0", "--data", str(folder), "--json", "--no-canvas"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fopru_graph", *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield process, Client(json.loads(process.stdout.readline())["address"])
    finally:
        process.kill()
        process.wait()


def test_after_a_kill_what_waited_runs_once_and_what_ran_is_lost(tmp_path: Path, answering: dict[str, Any]) -> None:
    long = json.loads(json.dumps(answering))
    long["generate"]["inputs"] |= {"max_new_tokens": 800, "min_new_tokens": 800}
    with command(tmp_path) as (process, client):
        done = ask(client, "POST", "/prompt", {"prompt": answering})["prompt_id"]
        wait_for(lambda: ask(client, "GET", f"/history/{done}"))
        lost = ask(client, "POST", "/prompt", {"prompt": long})["prompt_id"]
        waiting = [ask(client, "POST", "/prompt", {"prompt": answering})["prompt_id"] for _ in range(5)]
        wait_for(lambda: ask(client, "GET", "/jobs?status=in_progress")["jobs"])
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with command(tmp_path) as (_, client):
        wait_for(lambda: ask(client, "GET", "/prompt")["exec_info"]["queue_remaining"] == 0)
        history = ask(client, "GET", "/history")
        assert list(history) == [done, lost, *waiting]
        assert {id for id, job in history.items() if job["status"]["completed"]} == {done, *waiting}
        (entry,) = ask(client, "GET", "/jobs?status=failed")["jobs"]
        assert entry["id"] == lost and "lost" in entry["execution_error"]["exception_message"]
        starts = [kind for id in waiting for kind, _ in history[id]["status"]["messages"] if kind == "execution_start"]
        assert len(starts) == len(waiting)
