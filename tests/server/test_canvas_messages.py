"""The messages of a run, in the four orders that were recorded on ComfyUI."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
from typing import Any

import aiohttp
import PIL.Image
import pytest

from fopru_graph.comfy.prompt import prompt_of
from fopru_graph.graph import Graph
from tests.server.canvas_client import Run, run_prompt
from tests.server.conftest import Client, Serve

NAMES = ("model", "image", "encode", "significance", "stage_ratio", "prune", "reorder", "project", "fastv", "generate",
         "picture")  # fmt: skip


@pytest.fixture
def prompt() -> dict[str, Any]:
    return prompt_of(Graph.load("fopru_fastv"))


@pytest.fixture
def client(serve: Serve, tmp_path: Any) -> Client:
    """A server that has run nothing yet."""
    return serve(folder=tmp_path / "state")


def without_repeats(order: list[str]) -> list[str]:
    return [kind for kind, _ in itertools.groupby(order)]


def of_node(run: Run, node: str) -> list[str]:
    """The kinds of the messages while a node ran."""
    begin = next(i for i, (kind, data) in enumerate(run.messages) if kind == "executing" and data["node"] == node)
    end = next(i for i in range(begin + 1, len(run.messages)) if run.messages[i][0] == "executing")
    return run.order[begin - 1 : end - (run.messages[end][1]["node"] is not None)]


def history(client: Client, run: Run) -> dict[str, Any]:
    return json.loads(client.ask("GET", f"/history/{run.id}").body)[run.id]


def test_a_run_says_what_comfyui_says_and_shows_answer_and_picture(client: Client, prompt: dict[str, Any]) -> None:
    run = run_prompt(client.address, prompt, extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    assert run.order[:3] == ["status", "execution_start", "execution_cached"]
    assert run.order[-3:] == ["execution_success", "status", "executing"]
    assert run.data("execution_cached")[0]["nodes"] == []
    ran = [data["node"] for data in run.data("executing")][:-1]
    assert sorted(ran) == sorted(NAMES)
    for node in set(NAMES) - {"generate", "picture"}:
        assert without_repeats(of_node(run, node)) == ["progress_state", "executing", "progress_state"], node
    assert of_node(run, "picture")[:4] == ["progress_state", "executing", "executed", "progress_state"]
    answered = [kind for kind in of_node(run, "generate")[2:-1] if kind != "progress_state"]  # steps are told, too
    assert without_repeats(answered) == ["text", "executed"]
    assert run.texts[-1] == ("generate", "stop")
    assert [data["status"]["exec_info"]["queue_remaining"] for data in run.data("status")] == [1, 0]
    shown = {data["node"]: data["output"] for data in run.data("executed")}
    assert shown["generate"] == {"text": ["stop"]}
    assert history(client, run)["outputs"] == shown
    assert history(client, run)["status"]["status_str"] == "success"
    (image,) = shown["picture"]["images"]
    found = client.ask("GET", f"/view?filename={image['filename']}&type=temp&subfolder=")
    assert found.status == 200 and found.headers["Content-Type"] == "image/png"
    with PIL.Image.open(io.BytesIO(found.body)) as picture:  # dropped on the canvas, it brings the workflow back
        assert json.loads(picture.info["prompt"]) == prompt
        assert json.loads(picture.info["workflow"]) == {"id": "w"}


def test_a_run_with_nothing_new_shows_its_outputs_again(client: Client, prompt: dict[str, Any]) -> None:
    first = run_prompt(client.address, prompt)
    again = run_prompt(client.address, prompt)
    assert sorted(again.data("execution_cached")[0]["nodes"]) == sorted(NAMES)
    assert again.order == [
        "status", "execution_start", "execution_cached", "executed", "progress_state", "executed", "progress_state",
        "execution_success", "status", "executing",
    ]  # fmt: skip
    texts = [[each["output"].get("text") for each in run.data("executed")] for run in (first, again)]
    assert sorted(texts[0], key=str) == sorted(texts[1], key=str)


def test_a_changed_ratio_runs_only_what_depends_on_it(client: Client, prompt: dict[str, Any]) -> None:
    run_prompt(client.address, prompt)
    prompt["stage_ratio"]["inputs"]["ratio"] = 0.5
    run = run_prompt(client.address, prompt)
    assert sorted(run.data("execution_cached")[0]["nodes"]) == ["encode", "image", "model", "significance"]
    ran = {data["node"] for data in run.data("executing")} - {None}
    assert ran == {"stage_ratio", "prune", "reorder", "project", "fastv", "generate", "picture"}


def test_a_node_that_fails_is_named_with_sentence_and_hint(client: Client, prompt: dict[str, Any]) -> None:
    prompt["generate"]["inputs"]["prompt"] = "<image> <image> what is this?"
    run = run_prompt(client.address, prompt)
    assert run.order[-3:] == ["execution_error", "status", "executing"]
    (error,) = run.data("execution_error")
    assert error["node_id"] == "generate" and error["node_type"] == "FopruLLMGenerate"
    assert "project" in error["executed"] and error["traceback"] == []
    assert "(" in error["exception_message"] and "Traceback" not in error["exception_message"]
    kept = history(client, run)
    assert kept["status"]["status_str"] == "error" and not kept["status"]["completed"]
    assert kept["status"]["messages"][-1][0] == "execution_error"


def test_an_interruption_ends_the_node_that_runs(client: Client, prompt: dict[str, Any]) -> None:
    def stop(kind: str, data: dict[str, Any]) -> Any:
        if kind == "executing" and data["node"] == "encode":
            return "/interrupt", {"prompt_id": data["job"]}
        return None

    run = run_prompt(client.address, prompt, stop)
    assert run.order[-3:] == ["execution_interrupted", "status", "executing"]
    assert "model" in run.data("execution_interrupted")[0]["executed"]
    assert history(client, run)["status"] | {"messages": []} == {
        "status_str": "error", "completed": False, "messages": [],
    }  # fmt: skip
    (entry,) = json.loads(client.ask("GET", "/jobs?status=cancelled").body)["jobs"]
    assert entry["id"] == run.id


def test_a_page_that_comes_back_is_told_what_runs(client: Client, prompt: dict[str, Any]) -> None:
    prompt["generate"]["inputs"] |= {"max_new_tokens": 800, "min_new_tokens": 800}

    async def come_back() -> list[dict[str, Any]]:
        async with aiohttp.ClientSession(client.address) as session:
            async with session.ws_connect("/ws?clientId=page") as socket:
                await session.post("/prompt", json={"prompt": prompt, "client_id": "page"})
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        break
            async with session.ws_connect("/ws?clientId=page") as socket:
                await socket.send_json({"type": "feature_flags", "data": {}})
                told = [await socket.receive_json() for _ in range(2)]
                await session.post("/interrupt", json={})
                return told

    first, second = asyncio.run(asyncio.wait_for(come_back(), 60))
    assert first["data"] == {"status": {"exec_info": {"queue_remaining": 1}}, "sid": "page"}
    assert second["type"] == "executing" and second["data"]["node"] == "generate"


def test_clients_are_told_of_their_own_jobs_alone(client: Client, prompt: dict[str, Any]) -> None:
    async def listen() -> list[str]:
        async with (
            aiohttp.ClientSession(client.address) as session,
            session.ws_connect("/ws?clientId=other") as socket,
        ):
            body = {"prompt": prompt, "client_id": "somebody"}
            id = (await (await session.post("/prompt", json=body)).json())["prompt_id"]
            while not await (await session.get(f"/history/{id}")).json():
                await asyncio.sleep(0.05)
            await socket.send_json({"type": "feature_flags", "data": {}})
            kinds = []
            while "feature_flags" not in kinds:
                kinds.append((await socket.receive_json())["type"])
            return kinds

    assert set(asyncio.run(asyncio.wait_for(listen(), 60))) == {"status", "feature_flags"}
