"""Which files the nodes of a posted prompt may read: uploads, what is bundled, and what the served pipelines name."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from fopru_graph.comfy.plan import Slot, plan_of
from fopru_graph.comfy.prompt import node_id, prompt_of
from fopru_graph.errors import Caution, UserError
from fopru_graph.graph import Graph, PipelineError
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.sockets import InputPath
from fopru_graph.server.folders import inside

MODEL = "demo"  # the bundled one
_BUNDLED = re.compile(r"demo:[a-z0-9-]+")
_SUFFIXES = {"image": (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"), "tokens": (".safetensors",)}


class KnownFiles:
    """Names of files on the canvas, and the paths that they mean.

    Args:
        pipelines: what the server was started with: the models and pictures that these name may be used.
        uploads: the folder of files that were sent.
    """

    def __init__(self, pipelines: Iterable[Graph], uploads: Path) -> None:
        self._uploads = uploads
        self._named: dict[str, dict[str, str]] = {}
        for graph in pipelines:
            for kind, text, path in _named_in(graph):
                self._named.setdefault(kind, {})[text] = path

    def choices(self, slot: Slot) -> list[str]:
        """What an input of the canvas offers now."""
        kind = _kind(slot.socket.path)
        bundled = [MODEL] if kind == "model" else []
        if kind == "image":
            from fopru_graph.lvlm.inputs.images import samples

            bundled = [f"demo:{name}" for name in samples()]
        uploads = [] if kind == "model" else sorted(self._uploaded(kind))
        return list(dict.fromkeys([*bundled, *self._named.get(kind, ()), *uploads]))

    def path(self, place: InputPath | None, name: str) -> str:
        """The path that a name means; what is bundled keeps its name.

        Raises:
            UserError: there is no such file, or it may not be read.
        """
        kind = _kind(place)
        if name in self._named.get(kind, ()):
            return self._named[kind][name]
        if name == MODEL if kind == "model" else kind == "image" and _BUNDLED.fullmatch(name):
            return name
        if kind == "model":
            raise UserError(
                f"the model {name[:80]!r} is not served", "start the server with a pipeline that names it, or use demo"
            )
        if not name.strip():
            raise UserError("no file is chosen", "upload one, or choose one of the list")
        path = inside(self._uploads, name)
        if not path.is_file():
            raise UserError(f"there is no file {name[:80]!r}", "upload it, or choose one of the list")
        return str(path)

    def picture(self, name: str) -> bytes | None:
        """A picture that is bundled or that a served pipeline names, as a PNG; None for any other name.

        Raises:
            UserError: it cannot be read.
        """
        if name not in self._named.get("image", ()) and not _BUNDLED.fullmatch(name):
            return None
        from fopru_graph.lvlm.inputs.images import load_image

        stream = io.BytesIO()
        load_image(self._named.get("image", {}).get(name, name)).picture.save(stream, "PNG", compress_level=3)
        return stream.getvalue()

    def _uploaded(self, kind: str) -> list[str]:
        suffixes = _SUFFIXES.get(kind, ("",))
        return [entry.name for entry in os.scandir(self._uploads) if entry.name.lower().endswith(suffixes)]


def _kind(place: InputPath | None) -> str:
    return "file" if place is None else place.kind


def _named_in(graph: Graph) -> list[tuple[str, str, str]]:
    """Kind, text on the canvas and path of each file that a pipeline reads."""
    try:
        with warnings.catch_warnings(action="ignore", category=Caution):  # a ComfyUI would not open them
            prompt = prompt_of(graph)
    except (PipelineError, UserError):  # told when it is run
        return []
    found: list[tuple[str, str, str]] = []
    for entry in expand(graph)[0].nodes.values():
        widgets = prompt.get(node_id(entry.name), {}).get("inputs", {})
        for slot in plan_of(graph.registry.get(entry.type)).slots:
            place, text = slot.socket.path, widgets.get(slot.name)
            if place is not None and isinstance(text, str) and text:
                found.append((place.kind, text, str(place.place(text, graph.folder))))
    return found
