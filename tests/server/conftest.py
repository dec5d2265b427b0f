"""Servers of the tests: each listens on a free port, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fopru_graph.graph import Graph
from fopru_graph.server.app import running
from fopru_graph.server.settings import Settings

SERVED = ("fopru_fastv", "fopru_rank", "baseline")


@dataclass
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Client:
    """What programs send to a server, header by header."""

    address: str

    @property
    def port(self) -> int:
        """The server's port."""
        return urlsplit(self.address).port or 80

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send one request; a header ``sec_fetch_site="none"`` is ``sec-fetch-site: none``."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())


Serve = Callable[..., Client]


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[Client]:
    """A block during which a server runs in another thread."""
    started, ended, address = threading.Event(), threading.Event(), ""

    async def work() -> None:
        nonlocal address
        async with running(settings) as address:
            started.set()
            await asyncio.to_thread(ended.wait)

    def run() -> None:
        try:
            asyncio.run(work())
        finally:
            started.set()  # also where it cannot start

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(60) and address
        yield Client(address)
    finally:
        ended.set()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of the servers of tests, which change a field or two."""
    folder: Path = tmp_path_factory.mktemp("state")
    return Settings({name: Graph.load(name) for name in SERVED}, folder, port=0)


@pytest.fixture
def serve(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts a server with other settings than those of `server`: ``serve(token="…")``; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(**changes: Any) -> Client:
            folder = changes.pop("folder", None) or tmp_path_factory.mktemp("state")
            return stack.enter_context(served(replace(settings, folder=folder, **changes)))

        yield start


@pytest.fixture(scope="package")
def server(settings: Settings) -> Iterator[Client]:
    """The server that tests share."""
    with served(settings) as client:
        yield client


@pytest.fixture
def post(server: Client) -> Callable[..., Answer]:
    """Sends JSON text to a path of the shared server."""

    def send(path: str, text: str, **headers: Any) -> Answer:
        return server.ask("POST", path, text.encode(), **{"content_type": "application/json"} | headers)

    return send
