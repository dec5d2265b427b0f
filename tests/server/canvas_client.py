"""A client that uses only what ComfyUI documents: ``/prompt``, ``/history/ID``, ``/view`` and ``/ws``."""

from __future__ import annotations

import asyncio
import json
import struct
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass
class Run:
    """A job that was watched: its id, its messages, and what it said while it ran."""

    id: str
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    @property
    def order(self) -> list[str]:
        """The kinds of the messages; texts between them are ``text``."""
        return [kind for kind, _ in self.messages]

    def data(self, kind: str) -> list[dict[str, Any]]:
        """What the messages of a kind held."""
        return [data for found, data in self.messages if found == kind]


def run_prompt(
    address: str, prompt: dict[str, Any], on_message: Callable[[str, dict[str, Any]], Any] | None = None, **more: Any
) -> Run:
    """Post a prompt and listen until ComfyUI would say that nothing runs any more."""
    return asyncio.run(asyncio.wait_for(_run(address, prompt, on_message, more), 120))


async def _run(address: str, prompt: dict[str, Any], on_message: Any, more: dict[str, Any]) -> Run:
    client = uuid.uuid4().hex
    async with (
        aiohttp.ClientSession(address) as session,
        session.ws_connect(f"/ws?clientId={client}") as socket,
    ):
        first = await socket.receive_json()
        assert first["type"] == "status" and first["data"]["sid"] == client
        async with session.post("/prompt", json={"prompt": prompt, "client_id": client, **more}) as response:
            assert response.status == 200, await response.text()
            run = Run((await response.json())["prompt_id"])
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                run.texts.append(text_of(message.data))
                run.messages.append(("text", {}))
                continue
            told = json.loads(message.data)
            run.messages.append((told["type"], told["data"]))
            if on_message is not None and (waited := on_message(told["type"], told["data"] | {"job": run.id})):
                async with session.post(*waited[:1], json=waited[1]) as response:
                    assert response.status == 200
            if told["type"] == "executing" and told["data"] == {"node": None, "prompt_id": run.id}:
                return run
    raise AssertionError("the server closed the connection")


def text_of(frame: bytes) -> tuple[str, str]:
    """Node and text of a binary message."""
    kind, length = struct.unpack(">II", frame[:8])
    assert kind == 3
    return frame[8 : 8 + length].decode(), frame[8 + length :].decode()


def wait_for(condition: Callable[[], Any]) -> Any:
    """What a condition gives once it is true."""
    for _ in range(1200):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came true")
