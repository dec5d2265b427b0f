"""The server: its routes, its start and its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from fopru_graph import __version__
from fopru_graph.errors import UserError
from fopru_graph.server import guard
from fopru_graph.server.canvas.frontend import add_frontend, frontend_folder
from fopru_graph.server.canvas.routes import Canvas
from fopru_graph.server.chat import routes as chat
from fopru_graph.server.settings import Settings
from fopru_graph.server.status import Status
from fopru_graph.server.work import Work

_GRACE = 5.0  # seconds that requests have to end in when the server does


def make_app(settings: Settings) -> web.Application:
    """The application with all its routes; it loads no model before one is asked."""
    app = web.Application(client_max_size=settings.limits.body_bytes)
    work = Work(settings)
    guard.install(app, settings)
    app.router.add_get("/health", _health)
    chat.add_routes(app, settings, work)
    canvas = Canvas(app, settings, work)
    if settings.canvas and (folder := frontend_folder()) is not None:
        add_frontend(app, folder, next(iter(settings.pipelines), None))
    else:
        Status(settings.pipelines, lambda: canvas.jobs.queue).add_to(app)

    async def end(_app: web.Application) -> None:
        await work.close()

    app.on_shutdown.append(end)
    return app


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "version": __version__})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[str]:
    """A block during which the server listens; it is given the address.

    Raises:
        UserError: the address cannot be listened on.
    """
    # A client that goes away cancels the handler of its request, and that the work.
    runner = web.AppRunner(make_app(settings), access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise UserError(
                f"nothing can listen on {settings.host}, port {settings.port}: {reason}", "choose another --port"
            ) from error
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def serve(settings: Settings, on_start: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; ``on_start`` is called with the address once the server listens.

    Raises:
        UserError: see `running`.
    """
    asyncio.run(_serve(settings, on_start))


async def _serve(settings: Settings, on_start: Callable[[str], None]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with running(settings) as address:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        on_start(address)
        await ended.wait()
