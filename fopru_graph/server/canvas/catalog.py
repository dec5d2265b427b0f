"""What the frontend can choose from: node types, pipelines as templates and subgraphs; and our script for it."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from fopru_graph import __version__
from fopru_graph.comfy.object_info import object_info
from fopru_graph.comfy.plan import plans
from fopru_graph.comfy.workflow import workflow_of
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, PipelineError, Registry
from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.server.canvas.known_files import KnownFiles
from fopru_graph.server.guard import refused

SOURCE = "fopru_graph"  # the pack that templates and scripts are of, part of their addresses
_SCRIPT = "fopru.js"
_TABLE = "table.js"
# ComfyUI's own nodes that our workflows have: each holds a value that several widgets show.
_PRIMITIVES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "PrimitiveString": ("String", "STRING", {"default": ""}),
    "PrimitiveStringMultiline": ("String of several lines", "STRING", {"default": "", "multiline": True}),
    "PrimitiveInt": ("Whole number", "INT", {"default": 0, "min": -(2**53) + 1, "max": 2**53 - 1}),
    "PrimitiveFloat": ("Number", "FLOAT", {"default": 0.0, "min": -1e9, "max": 1e9, "step": 0.005, "round": False}),
    "PrimitiveBoolean": ("Yes or no", "BOOLEAN", {"default": False}),
}


class Catalog:
    """Handlers of the routes that say what there is.

    Args:
        pipelines: what is served; they are templates, as are the pipelines that ship.
        registry: the node types.
        files: what file widgets offer.
    """

    def __init__(self, pipelines: Mapping[str, Graph], registry: Registry, files: Callable[[], KnownFiles]) -> None:
        self._pipelines, self._registry, self._files = pipelines, registry, files
        self._templates: dict[str, bytes] = {}

    async def object_info(self, request: web.Request) -> web.Response:
        """``GET /object_info``: the node types; with a name, one of them."""
        found = object_info(plans(self._registry).values(), self._files().choices) | _primitives()
        if (name := request.match_info.get("name")) is not None:
            found = {name: found[name]} if name in found else {}
        return web.json_response(found)

    async def templates(self, _request: web.Request) -> web.Response:
        """``GET /workflow_templates``: the names of pipelines."""
        return web.json_response({SOURCE: sorted({*self._pipelines, *shipped_pipelines()})})

    async def template(self, request: web.Request) -> web.Response:
        """``GET /workflow_templates/fopru_graph/NAME.json``: one as a workflow, laid out."""
        name = request.match_info["name"].removesuffix(".json")
        if request.match_info["source"] != SOURCE or name not in {*self._pipelines, *shipped_pipelines()}:
            return refused(404, "there is no such template", "template")
        if name not in self._templates:
            try:
                graph = self._pipelines.get(name) or Graph.load(name, registry=self._registry)
                self._templates[name] = json.dumps(workflow_of(graph)).encode()
            except (PipelineError, UserError) as error:
                return refused(409, f"{name} cannot be shown: {error}", "template")
        return web.Response(body=self._templates[name], content_type="application/json")

    async def no_templates(self, _request: web.Request) -> web.Response:
        """``GET /templates/index.json``: of ComfyUI's own there are none."""
        return web.json_response([])

    async def subgraphs(self, _request: web.Request) -> web.Response:
        """``GET /global_subgraphs``: pipelines as single nodes, by id."""
        return web.json_response({id: _blueprint(name) for id, (name, _) in self._blueprints().items()})

    async def subgraph(self, request: web.Request) -> web.Response:
        """``GET /global_subgraphs/ID``: one of them, as a workflow."""
        found = self._blueprints().get(request.match_info["id"])
        if found is None:
            return refused(404, "there is no such subgraph", "subgraph")
        name, content = found
        return web.json_response(_blueprint(name) | {"data": json.dumps(content)})

    def _blueprints(self) -> dict[str, tuple[str, Any]]:
        try:
            blueprints = importlib.import_module("fopru_graph.comfy.blueprints").blueprints
        except ModuleNotFoundError:
            return {}
        found = blueprints(self._registry)
        return {hashlib.sha256(name.encode()).hexdigest(): (name, content) for name, content in found.items()}

    async def extensions(self, _request: web.Request) -> web.Response:
        """``GET /extensions``: our script, which colours links and shows answers."""
        return web.json_response([f"/extensions/{SOURCE}/{_SCRIPT}"])

    async def script(self, request: web.Request) -> web.StreamResponse:
        """``GET /extensions/fopru_graph/NAME``: the script, or the table that it reads."""
        from fopru_graph.comfy import pack

        name = request.match_info["name"]
        if name == _TABLE:
            return web.Response(text=pack.canvas_table(plans(self._registry)), content_type="text/javascript")
        if name != _SCRIPT:
            return refused(404, "there is no such script", "script")
        return web.FileResponse(Path(pack.FILES, "web", _SCRIPT))


async def system_stats(_request: web.Request) -> web.Response:
    """``GET /system_stats``: what the frontend shows as its server; nothing of the machine."""
    system = {
        "os": "", "ram_total": 0, "ram_free": 0, "comfyui_version": f"fopru-graph {__version__}",
        "required_frontend_version": "", "python_version": "", "pytorch_version": "", "embedded_python": False,
        "argv": ["fopru-graph", "serve"],
    }  # fmt: skip
    return web.json_response({"system": system, "devices": []})


async def empty_object(_request: web.Request) -> web.Response:
    """A list or table of what there is none of here."""
    return web.json_response({})


async def empty_list(_request: web.Request) -> web.Response:
    """The same, where a list is expected."""
    return web.json_response([])


async def no_style(_request: web.Request) -> web.Response:
    """``GET /user.css``: nobody changes how the page looks."""
    return web.Response(content_type="text/css")


async def users(_request: web.Request) -> web.Response:
    """``GET /users``: the server keeps the settings of its one user."""
    return web.json_response({"storage": "server", "migrated": True})


def _blueprint(name: str) -> dict[str, Any]:
    return {"source": "custom_node", "name": name, "info": {"node_pack": f"custom_nodes.{SOURCE}"}}


def _primitives() -> dict[str, Any]:
    """ComfyUI's nodes that hold a value, described as it describes nodes."""
    return {
        name: {
            "input": {"required": {"value": [kind, options]}},
            "input_order": {"required": ["value"]},
            "is_input_list": False,
            "output": [kind],
            "output_is_list": [False],
            "output_name": [kind],
            "name": name,
            "display_name": title,
            "description": "A value that several widgets show.",
            "python_module": "nodes",
            "category": "utils/primitive",
            "output_node": False,
        }
        for name, (title, kind, options) in _PRIMITIVES.items()
    }
