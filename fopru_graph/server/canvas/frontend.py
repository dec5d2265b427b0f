"""ComfyUI's frontend, as its user has installed it: its files are served as they are, and none of them is ours."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from urllib.parse import urlencode

from aiohttp import hdrs, web

from fopru_graph.server.canvas.catalog import SOURCE

PACKAGE = "comfyui_frontend_package"
_DISTRIBUTION = "comfyui-frontend-package"


def frontend_folder() -> Path | None:
    """The folder of the frontend's files; None if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec is not None else None
    folder = Path(next(iter(places)), "static") if places else None
    return folder if folder is not None and (folder / "index.html").is_file() else None


def frontend_version() -> str:
    """Its version, for messages."""
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def add_frontend(app: web.Application, folder: Path, pipeline: str | None) -> None:
    """Serve the frontend; ``/`` opens a pipeline, if one is named."""

    async def index(request: web.Request) -> web.StreamResponse:
        if pipeline is not None and "template" not in request.query:
            query = urlencode([*request.query.items(), ("template", pipeline), ("source", SOURCE)])
            return web.Response(status=302, headers={hdrs.LOCATION: f"/?{query}"})
        return web.FileResponse(folder / "index.html", headers={hdrs.CACHE_CONTROL: "no-cache"})

    app.router.add_get("/", index)
    app.router.add_static("/", folder)  # last: it takes every path that is left
