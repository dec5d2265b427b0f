"""What a browser sees without ComfyUI's frontend: the pipelines, drawn, and the last runs. Nothing on it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from fopru_graph import __version__
from fopru_graph.drawing import draw
from fopru_graph.graph import Graph
from fopru_graph.server.canvas.history import history_of
from fopru_graph.server.guard import refused
from fopru_graph.server.queue import ENDED, Job, JobQueue

_RUNS = 20  # that are shown
_CSP = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
_HEADERS = {"Content-Security-Policy": _CSP + "frame-ancestors 'none'", "Cache-Control": "no-cache"}
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100%; height: auto }
summary { cursor: pointer }
article { border-top: 1px solid #8886; padding: .5rem 0 }
small, .state { opacity: .75 }
code { font-size: .9em }
"""


class Status:
    """Handlers of the page.

    Args:
        pipelines: what is served.
        queue: the jobs, once the server has started.
    """

    def __init__(self, pipelines: Mapping[str, Graph], queue: Callable[[], JobQueue]) -> None:
        self._pipelines, self._queue = pipelines, queue

    def add_to(self, app: web.Application) -> None:
        """Add ``/`` and the drawings."""
        app.router.add_get("/", self.page)
        app.router.add_get("/pipelines/{name}.svg", self.drawing)

    async def page(self, _request: web.Request) -> web.Response:
        """``GET /``."""
        jobs = await asyncio.to_thread(self._jobs)
        return web.Response(text=page_of(self._pipelines, jobs), content_type="text/html", headers=_HEADERS)

    async def drawing(self, request: web.Request) -> web.Response:
        """``GET /pipelines/NAME.svg``."""
        graph = self._pipelines.get(request.match_info["name"])
        if graph is None:
            return refused(404, "there is no such pipeline", "pipeline")
        text = await asyncio.to_thread(draw, graph, "svg")
        return web.Response(text=text, content_type="image/svg+xml", headers=_HEADERS)

    def _jobs(self) -> list[Job]:
        queue = self._queue()
        return [*queue.jobs("running"), *queue.jobs("queued", most=_RUNS), *queue.jobs(*ENDED, newest=True, most=_RUNS)]


def page_of(pipelines: Mapping[str, Graph], jobs: Iterable[Job]) -> str:
    """The page as HTML."""
    drawn = "\n".join(_pipeline(name, graph) for name, graph in pipelines.items())
    ran = "\n".join(map(_run, jobs)) or "<p>none yet</p>"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>fopru-graph</title><style>{_STYLE}</style></head><body>
<h1>fopru-graph <small>{escape(__version__)}</small></h1>
<p>Programs ask at <code>/v1/chat/completions</code> and <code>/prompt</code>. For a canvas in the browser, install
ComfyUI's frontend: <code>pip install comfyui-frontend-package</code>.<br>
It is GPL-3.0-only and no part of this program.</p>
<h2>Pipelines</h2>
{drawn}
<h2>Runs</h2>
{ran}
</body></html>
"""


def _pipeline(name: str, graph: Graph) -> str:
    picture = f'<img loading="lazy" src="/pipelines/{quote(name, safe="")}.svg" alt="{escape(name)}, drawn">'
    return f"<details><summary><b>{escape(name)}</b> {escape(graph.description or '')}</summary>\n{picture}</details>"


def _run(job: Job) -> str:
    history = history_of(job)
    shown = "\n".join(_shown(output) for output in history["outputs"].values())
    failure = next((data for kind, data in history["status"]["messages"] if kind == "execution_error"), None)
    told = f"<p>{escape(failure['node_id'])} {escape(failure['exception_message'])}</p>" if failure else ""
    return (
        f'<article id="{escape(job.id)}"><span class="state">{job.number}: {job.state}</span>\n{shown}{told}</article>'
    )


def _shown(output: Mapping[str, Any]) -> str:
    texts = "".join(f"<p>{escape(text)}</p>" for text in output.get("text", ()))
    files = (escape(f"/view?{urlencode(image)}") for image in output.get("images", ()))
    return texts + "".join(f'<img loading="lazy" src="{file}" alt="what was kept">' for file in files)
