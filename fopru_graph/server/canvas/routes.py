"""All routes of the canvas, each at its own address and below ``/api``, as ComfyUI has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from fopru_graph.graph import Registry
from fopru_graph.server.canvas import catalog
from fopru_graph.server.canvas.catalog import Catalog
from fopru_graph.server.canvas.files import FileRoutes
from fopru_graph.server.canvas.jobs import Jobs
from fopru_graph.server.canvas.queue_routes import QueueRoutes
from fopru_graph.server.canvas.sessions import Sessions
from fopru_graph.server.canvas.userdata import UserRoutes
from fopru_graph.server.folders import Folders
from fopru_graph.server.settings import Settings
from fopru_graph.server.work import Work

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Canvas:
    """The server's side of the canvas: it is started with the application, and ends with it.

    Attributes:
        jobs: what runs prompts, once the application has started.
    """

    jobs: Jobs
    folders: Folders

    def __init__(self, app: web.Application, settings: Settings, work: Work) -> None:
        self._app, self._settings, self._work = app, settings, work
        features: dict[str, object] = {
            "supports_preview_metadata": True, "max_upload_size": settings.limits.body_bytes,
            "node_replacements": False,
        }  # fmt: skip
        self._sessions = Sessions(lambda: self.jobs.remaining, self._running, features)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._stop)
        self._add_routes(features)

    async def _start(self, _app: web.Application) -> None:
        self.folders = Folders(self._settings.folder)
        try:
            self.jobs = Jobs(self._settings, self._work, self.folders, self._sessions.tell)
        except BaseException:
            self.folders.close()
            raise

    async def _stop(self, _app: web.Application) -> None:
        await self._sessions.close()
        await self.jobs.close()
        self.folders.close()

    def _running(self, client: str) -> tuple[str, str] | None:
        """The client's job that runs, and its node."""
        running = self.jobs.running
        if running is None or running[0].client != client or not self.jobs.node:
            return None
        return running[0].id, self.jobs.node

    def _add_routes(self, features: dict[str, object]) -> None:
        graphs = self._settings.pipelines
        registry = next(iter(graphs.values())).registry if graphs else Registry.default()
        known = Catalog(graphs, registry, lambda: self.jobs.files)
        files = FileRoutes(lambda: self.folders, lambda: self.jobs.files, self._settings.limits)
        user = UserRoutes(lambda: self.folders, registry)

        async def told(_request: web.Request) -> web.Response:
            return web.json_response(features)

        add = self._add
        QueueRoutes(lambda: self.jobs, self._work).add_to(add)
        add("GET", "/ws", self._sessions.connect)
        add("GET", "/view", files.view)
        add("POST", "/upload/image", files.upload)
        add("GET", "/object_info", known.object_info)
        add("GET", "/object_info/{name}", known.object_info)
        add("GET", "/workflow_templates", known.templates)
        add("GET", "/workflow_templates/{source}/{name}", known.template)
        add("GET", "/templates/{name:index.*}", known.no_templates)
        add("GET", "/global_subgraphs", known.subgraphs)
        add("GET", "/global_subgraphs/{id}", known.subgraph)
        add("GET", "/extensions", known.extensions)
        add("GET", "/extensions/fopru_graph/{name}", known.script)
        add("GET", "/settings", user.settings)
        add("POST", "/settings", user.set_all)
        add("GET", "/settings/{name}", user.setting)
        add("POST", "/settings/{name}", user.set_setting)
        add("GET", "/userdata", user.listed)
        add("GET", "/user.css", catalog.no_style)
        add("GET", "/userdata/user.css", catalog.no_style)
        add("GET", "/userdata/{file}", user.get)
        add("POST", "/userdata/{file}", user.put)
        add("DELETE", "/userdata/{file}", user.delete)
        add("POST", "/userdata/{file}/move/{target}", user.move)
        add("GET", "/features", told)
        add("GET", "/users", catalog.users)
        add("GET", "/system_stats", catalog.system_stats)
        for path in ("/i18n", "/node_replacements", "/internal/folder_paths"):
            add("GET", path, catalog.empty_object)
        for path in ("/embeddings", "/experiment/models"):
            add("GET", path, catalog.empty_list)

    def _add(self, method: str, path: str, handler: Handler) -> None:
        for prefix in ("", "/api"):
            self._app.router.add_route(method, prefix + path, handler)
