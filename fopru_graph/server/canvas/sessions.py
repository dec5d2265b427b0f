"""The pages that are open, each with a WebSocket over which it is told of what runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import Callable

from aiohttp import WSCloseCode, WSMsgType, web

from fopru_graph.server.canvas.messages import Message, status_message

MOST_SESSIONS = 64
_MOST_WAITING = 5000  # messages that a page may be behind; it is cut off then, and asks anew
_NAME = re.compile(r"[\w-]{1,80}")
_MOST_RECEIVED = 64 * 2**10  # bytes of a message from a page, which has little to say


class Sessions:
    """The open pages by their names.

    Args:
        remaining: how many jobs there are.
        running: the job that runs for a client, and its node; None if none does.
        features: what the server can, by the names that the frontend has for it.
    """

    def __init__(
        self,
        remaining: Callable[[], int],
        running: Callable[[str], tuple[str, str] | None],
        features: dict[str, object],
    ) -> None:
        self._remaining, self._running, self._features = remaining, running, features
        self._open: dict[str, _Session] = {}

    def tell(self, client: str | None, message: Message) -> None:
        """Send a message to a page, or to all for None. A page that is gone misses it."""
        for session in list(self._open.values()) if client is None else filter(None, [self._open.get(client)]):
            session.put(message)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """``GET /ws?clientId=``: a page opens its WebSocket; a name that it had before is its name again."""
        if len(self._open) >= MOST_SESSIONS:
            raise web.HTTPServiceUnavailable(reason=f"{MOST_SESSIONS} pages are open")
        socket = web.WebSocketResponse(max_msg_size=_MOST_RECEIVED, heartbeat=30)
        await socket.prepare(request)
        asked = request.query.get("clientId", "")
        name = asked if _NAME.fullmatch(asked) else uuid.uuid4().hex
        earlier, session = self._open.get(name), _Session(socket)
        if earlier is not None:
            await earlier.close()
        self._open[name] = session
        session.put(status_message(self._remaining(), name))
        if (running := self._running(name)) is not None:
            job, node = running
            session.put(("executing", {"node": node, "display_node": node, "prompt_id": job}))
        try:
            await self._listen(socket, session)
        finally:
            if self._open.get(name) is session:
                del self._open[name]
            await session.close()
        return socket

    async def _listen(self, socket: web.WebSocketResponse, session: _Session) -> None:
        """The first thing a page says is what it can, and it is told what the server can."""
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                with contextlib.suppress(ValueError, AttributeError):
                    if json.loads(message.data).get("type") == "feature_flags":
                        session.put(("feature_flags", self._features))

    async def close(self) -> None:
        """Tell all pages that the server ends."""
        await asyncio.gather(*(session.close() for session in list(self._open.values())))


class _Session:
    """One page: what it is sent waits here, so that a slow one holds nobody up."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(_MOST_WAITING)
        self._task = asyncio.create_task(self._send())

    def put(self, message: Message) -> None:
        """Send a message when its turn comes."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self._task.cancel()

    async def _send(self) -> None:
        try:
            while True:
                message = await self._waiting.get()
                if isinstance(message, bytes):
                    await self._socket.send_bytes(message)
                else:
                    kind, data = message
                    await self._socket.send_json({"type": kind, "data": data})
        except (ConnectionError, RuntimeError):  # the page is gone
            pass
        finally:
            with contextlib.suppress(Exception):
                await self._socket.close(code=WSCloseCode.GOING_AWAY)

    async def close(self) -> None:
        """End the connection."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
