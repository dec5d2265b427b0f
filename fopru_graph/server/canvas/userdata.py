"""What the frontend keeps for its user: settings, and workflows, each beside the pipeline that it is, as YAML."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from fopru_graph.comfy.reading import MAX_BYTES, read_json
from fopru_graph.comfy.workflow import workflow_of
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, PipelineError, Registry
from fopru_graph.graph.files import write_atomically
from fopru_graph.server.folders import Folders, Refused, inside
from fopru_graph.server.guard import of_own_page, refused

MOST_FILES = 1000
_MOST_SETTINGS = 256 * 2**10  # bytes
# With this setting a page would open the frontend's own example, and ask for models of other machines.
_NOT_KEPT = ("Comfy.TutorialCompleted",)
_BOOKMARKS = "workflows/.index.json"  # the one file of the frontend's own that is kept


class UserRoutes:
    """Handlers of the routes of settings and workflows."""

    def __init__(self, folders: Callable[[], Folders], registry: Registry) -> None:
        self._folders, self._registry = folders, registry

    # -- settings -----------------------------------------------------------------------------------------------------

    async def settings(self, _request: web.Request) -> web.Response:
        """``GET /settings``: all that were set."""
        return web.json_response(self._settings())

    async def setting(self, request: web.Request) -> web.Response:
        """``GET /settings/NAME``: one of them."""
        return web.json_response(self._settings().get(request.match_info["name"]))

    @of_own_page
    async def set_all(self, request: web.Request) -> web.Response:
        """``POST /settings``: set several."""
        return self._set(await _json_in(request))

    @of_own_page
    async def set_setting(self, request: web.Request) -> web.Response:
        """``POST /settings/NAME``: set one."""
        return self._set({request.match_info["name"]: await _json_in(request)})

    def _settings(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._folders().settings.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def _set(self, changed: Any) -> web.Response:
        if not isinstance(changed, dict):
            return refused(400, "settings are a JSON object", "settings")
        kept = {name: value for name, value in (self._settings() | changed).items() if name not in _NOT_KEPT}
        text = json.dumps(kept, ensure_ascii=False)
        if len(text.encode(errors="replace")) > _MOST_SETTINGS:
            return refused(413, f"settings may have {_MOST_SETTINGS} bytes", "settings")
        write_atomically(self._folders().settings, text)
        return web.json_response({})

    # -- workflows ----------------------------------------------------------------------------------------------------

    async def listed(self, request: web.Request) -> web.Response:
        """``GET /userdata?dir=workflows``: the files of a folder, with their folders in it."""
        folder, *below = request.query.get("dir", "").strip("/").split("/")
        if folder != "workflows":
            return web.json_response([])
        root = self._path(*below) if below else self._folders().workflows
        found = await asyncio.to_thread(_files_in, root)
        full = request.query.get("full_info") == "true"
        return web.json_response([_info(root, path) if full else _name(root, path) for path in found])

    async def get(self, request: web.Request) -> web.Response:
        """``GET /userdata/workflows%2FNAME.json``: a workflow."""
        if not request.match_info["file"].startswith("workflows/"):
            return refused(404, "only workflows are kept here", "file")
        path = self._asked(request)
        content = await asyncio.to_thread(self._read, path)
        if content is None:
            return refused(404, "there is no such workflow", "file")
        return web.Response(body=content, content_type="application/json")

    @of_own_page
    async def put(self, request: web.Request) -> web.Response:
        """``POST /userdata/workflows%2FNAME.json``: keep a workflow, and the pipeline that it is, as YAML beside it."""
        path, body = self._asked(request), await request.read()
        if len(body) > MAX_BYTES:
            return refused(413, f"a workflow may have {MAX_BYTES} bytes", "body_size")
        if request.query.get("overwrite") == "false" and _there(path):
            return refused(409, "there is a workflow of this name", "file")
        if not _there(path) and len(_files_in(self._folders().workflows)) >= MOST_FILES:
            return refused(507, f"there are {MOST_FILES} workflows already", "file")
        await _json_in(request)
        await asyncio.to_thread(self._write, path, body)
        return web.json_response(self._told(request, path))

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /userdata/workflows%2FNAME.json``."""
        path = self._asked(request)
        if not _there(path):
            return refused(404, "there is no such workflow", "file")
        for each in (path, path.with_suffix(".yaml")):
            each.unlink(missing_ok=True)
        return web.Response(status=204)

    @of_own_page
    async def move(self, request: web.Request) -> web.Response:
        """``POST /userdata/OLD/move/NEW``: rename a workflow."""
        path, target = self._asked(request), self._workflow(request.match_info["target"])
        if not _there(path):
            return refused(404, "there is no such workflow", "file")
        if request.query.get("overwrite") != "true" and _there(target):
            return refused(409, "there is a workflow of this name", "file")
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".yaml", ".json"):
            target.with_suffix(suffix).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.replace(path.with_suffix(suffix), target.with_suffix(suffix))
        return web.json_response(self._told(request, target))

    def _told(self, request: web.Request, path: Path) -> Any:
        root = self._folders().root
        return _info(root, path) if request.query.get("full_info") == "true" else _name(root, path)

    def _read(self, path: Path) -> bytes | None:
        """A workflow as it was saved, unless its YAML was edited since: then as that says."""
        saved = path.read_bytes() if path.is_file() else None
        try:
            text = path.with_suffix(".yaml").read_bytes()
        except OSError:
            return saved
        if saved is not None and self._as_yaml(saved) == text:
            return saved
        try:
            return json.dumps(workflow_of(Graph.loads(text, self._registry))).encode()
        except (PipelineError, UserError):
            return saved

    def _write(self, path: Path, body: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        yaml = path.with_suffix(".yaml")
        if path.name != Path(_BOOKMARKS).name:
            if (text := self._as_yaml(body)) is not None:
                write_atomically(yaml, text)
            else:
                yaml.unlink(missing_ok=True)
        write_atomically(path, body)

    def _as_yaml(self, body: bytes) -> bytes | None:
        """The pipeline of a workflow; None if it is none of ours."""
        try:
            return read_json(body, registry=self._registry).dumps().encode()
        except (PipelineError, UserError):
            return None

    # -- paths --------------------------------------------------------------------------------------------------------

    def _asked(self, request: web.Request) -> Path:
        return self._workflow(request.match_info["file"])

    def _workflow(self, name: str) -> Path:
        """The path of a workflow.

        Raises:
            HTTPForbidden: the name is that of something else.
        """
        if name == _BOOKMARKS:
            return self._folders().root / _BOOKMARKS
        folder, *below = name.split("/")
        if folder != "workflows" or not below or not below[-1].endswith(".json"):
            raise web.HTTPForbidden(reason="only workflows are kept here")
        return self._path(*below)

    def _path(self, *names: str) -> Path:
        try:
            return inside(self._folders().workflows, *names)
        except Refused as error:
            raise web.HTTPForbidden(reason=error.message) from None


async def _json_in(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(reason="the body is no JSON") from None


def _there(path: Path) -> bool:
    return path.is_file() or path.with_suffix(".yaml").is_file()


def _files_in(root: Path) -> list[Path]:
    """Workflows below a folder under the names that the frontend has for them, those that are only YAML included."""
    found = {
        Path(folder, name).with_suffix(".json")
        for folder, _, names in os.walk(root)
        for name in names
        if name.endswith((".json", ".yaml")) and not name.startswith(".")
    }
    return sorted(found)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _info(root: Path, path: Path) -> dict[str, Any]:
    """What the frontend is told of a file; times are milliseconds since 1970."""
    stats = [each.stat() for each in (path, path.with_suffix(".yaml")) if each.is_file()]
    times = [round(stat.st_mtime * 1000) for stat in stats]
    return {
        "path": _name(root, path), "size": stats[0].st_size if stats else 0, "modified": max(times, default=0),
        "created": min(times, default=0),
    }  # fmt: skip
