"""``fopru-graph serve``: pipelines for programs and on a canvas, until Ctrl-C."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fopru_graph.commands.arguments import fail, open_graphs
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import ServeOptions
from fopru_graph.commands.run import quieten
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph
from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.terminal.console import say, show_warning
from fopru_graph.terminal.stdout import stdout

if TYPE_CHECKING:
    from fopru_graph.server.settings import Settings

_FRONTEND, _TESTED = "comfyui-frontend-package", "1.58.1"
_FIRST = "fopru_fastv"
_SHOWN = 4  # names of models that are written out at the start


def serve(options: ServeOptions, model: ModelOptions) -> int:
    """Serve until Ctrl-C, which is how a server ends; returns the exit code."""
    try:
        from fopru_graph.server import app
    except ImportError:
        fail(2, "serve needs the package aiohttp", "pip install aiohttp")
    quieten()
    files = options.files or _image_pipelines()
    graphs = open_graphs(files, options.nodes, options.changes, model)
    try:
        settings = _settings(options, _named(graphs, files))
    except UserError as error:
        fail(2, error.message, error.hint)
    try:
        app.serve(settings, lambda address: _tell(address, settings, options.as_json))
    except UserError as error:
        fail(1, error.message, error.hint)
    return 0


def _image_pipelines() -> list[Path]:
    """The pipelines that ship for pictures; the canvas opens the first."""
    files = [file for file in shipped_pipelines().values() if file.parent.name != "video"]
    return sorted(files, key=lambda file: file.stem != _FIRST)


def _settings(options: ServeOptions, pipelines: dict[str, Graph]) -> Settings:
    """What the options ask for.

    Raises:
        UserError: see `Settings`.
    """
    from fopru_graph.server.settings import Settings, state_folder

    return Settings(
        pipelines,
        folder=options.data or state_folder(),
        host=options.host,
        port=options.port,
        token=options.token,
        names=tuple(options.allow_host or ()),
        batch_size=options.batch_size,
        batch_seconds=options.batch_window / 1000,
        fetch_pictures=options.allow_http_images,
        canvas=not options.no_canvas,
    )


def _named(graphs: Sequence[Graph], files: Sequence[Path]) -> dict[str, Graph]:
    """The pipelines by the names that clients call them by.

    Raises:
        UserError: two have the same.
    """
    named: dict[str, Graph] = {}
    for graph, file in zip(graphs, files, strict=True):
        name = graph.name or file.stem
        if name in named:
            raise UserError(f"two pipelines are called {name!r}", "write another name: in one of the files")
        named[name] = graph
    return named


def _tell(address: str, settings: Settings, as_json: bool) -> None:
    """Say where the server is and what it serves."""
    names = list(settings.pipelines)
    if as_json:
        stdout.json({"address": address, "models": names})
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    say(("serving", "bold"), f" at {address}", ("  Ctrl-C ends", "dim"))
    say(("programs", "dim"), f" {address}/v1 for any OpenAI client; models: {shown}")
    if settings.canvas:
        say(("canvas", "dim"), f"   {_frontend()}")
    if not settings.is_local:
        show_warning("other machines can reach this server, and what they send is not encrypted; TLS is a proxy's work")


def _frontend() -> str:
    """Whose canvas it is that a browser shows."""
    try:
        version = importlib.metadata.version(_FRONTEND)
    except importlib.metadata.PackageNotFoundError:
        return f"none: pip install {_FRONTEND}=={_TESTED} adds ComfyUI's, which is GPL-3.0-only"
    return f"ComfyUI's frontend {version} from your own installation; it is GPL-3.0-only and no part of fopru-graph"
