"""Writes the node pack: the folder that a user puts into ComfyUI's ``custom_nodes``."""

from __future__ import annotations

import colorsys
import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fopru_graph import __version__
from fopru_graph.comfy.blueprints import blueprints
from fopru_graph.comfy.plan import NodePlan, plans
from fopru_graph.comfy.requirements import NAME, license_text
from fopru_graph.comfy.workflow import workflow_of
from fopru_graph.errors import UserError
from fopru_graph.graph import MISSING, Graph, Registry
from fopru_graph.graph.shipped import shipped_pipelines

FOLDER = "fopru_graph"  # the pack's name in ComfyUI: part of the addresses of its examples
FILES = Path(__file__).parent / "pack_files"
PACK = f"{NAME}-nodes"  # its name in the registry: a name of its own, as it needs the package by that name
TEMPLATE = ".template"  # these files are filled in, all others are copied
LEFTOVERS = ("__pycache__",)  # what ComfyUI itself leaves in the folder


def write_pack(folder: Path, registry: Registry) -> list[Path]:
    """Write the pack as a folder ``fopru_graph`` into ``folder`` in place of an earlier one; returns its files.

    It is written aside and renamed, so that a failure leaves the earlier pack.

    Raises:
        UserError: a folder of that name holds something else, or it cannot be written.
    """
    target = folder / FOLDER
    _refuse_others(target)
    contents = _contents(registry)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # ComfyUI does not load folders of this ending: one may be left by a crash.
        with tempfile.TemporaryDirectory(prefix=f".{FOLDER}-", suffix=".disabled", dir=folder) as aside:
            new = Path(aside) / "new"
            for name, content in contents.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_bytes(content)
            _put(new, target, Path(aside) / "earlier")
    except OSError as error:
        raise UserError(f"{target}: cannot be written: {error.strerror or error}", "name another folder") from None
    return [target / name for name in contents]


def _put(new: Path, target: Path, earlier: Path) -> None:
    """Rename ``new`` to ``target``; what stands there goes to ``earlier``, and comes back if that fails."""
    if not target.exists():
        os.rename(new, target)
        return
    os.rename(target, earlier)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(earlier, target)
        raise


def _refuse_others(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UserError(f"{target}: is no folder", "remove it, or name another folder")
    if not target.is_dir():
        return
    held = {path.name for path in target.iterdir()} - set(LEFTOVERS)
    if not held:
        return
    if not _is_ours(target):
        raise UserError(f"{target}: holds files that are no pack of {NAME}", "remove it, or name another folder")
    foreign = sorted(held - _names())
    if foreign:
        what = f"{target}: holds {', '.join(foreign[:3])} beside an earlier pack, which would be lost"
        raise UserError(what, "write the pack to an empty folder and copy it over")


def _is_ours(target: Path) -> bool:
    try:
        config = tomllib.loads((target / "pyproject.toml").read_text(encoding="utf-8"))
        return bool(config["project"]["name"] == PACK and "comfy" in config["tool"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _names() -> set[str]:
    """What stands at the pack's top."""
    return {
        "LICENSE",
        "example_workflows",
        "subgraphs",
        *(path.name.removesuffix(TEMPLATE) for path in FILES.iterdir()),
    }


def _contents(registry: Registry) -> dict[str, bytes]:
    """The bytes of every file by its path in the pack, always the same for the same nodes and pipelines."""
    found = {"LICENSE": license_text().encode()}
    for file in sorted(path for path in FILES.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        name = file.relative_to(FILES).as_posix()
        if name.endswith(TEMPLATE):
            text = file.read_text(encoding="utf-8").replace("@VERSION@", __version__)
            found[name.removesuffix(TEMPLATE)] = text.encode()
        else:
            found[name] = file.read_bytes()
    found["web/table.js"] = canvas_table(plans(registry)).encode()
    for name, file in shipped_pipelines().items():
        found[f"example_workflows/{name}.json"] = _json(example(file, registry))
    for title, blueprint in blueprints(registry).items():
        found[f"subgraphs/{title}.json"] = _json(blueprint)
    return found


def example(file: Path, registry: Registry) -> dict[str, Any]:
    """A shipped pipeline as a workflow; its user chooses what has no default, e.g. a video, in an empty widget."""
    graph = Graph.load(file, registry)
    for key, needed in graph.inputs.items():
        if needed.default is MISSING:
            graph.set(key, "")
    return workflow_of(graph)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def canvas_table(found: Mapping[str, NodePlan]) -> str:
    """The JavaScript of what the canvas must know: the colours of our links, the nodes that show an answer."""
    colours = json.dumps(link_colours(found), indent=2)
    answering = json.dumps([plan.type for plan in found.values() if plan.answers], indent=2)
    return (
        "// Written with the pack, from the declarations of the nodes.\n"
        f"export const COLOURS = {colours};\n\nexport const ANSWERING = {answering};\n"
    )


def link_colours(found: Mapping[str, NodePlan]) -> dict[str, str]:
    """A colour for each link type that is ours, as far apart in hue as they are many."""
    inputs = {name for plan in found.values() for slot in plan.slots for name in slot.types}
    types = sorted({*inputs, *(out.type for plan in found.values() for out in plan.outputs)})
    ours = [name for name in types if name.startswith("FOPRU_")]
    return {name: _colour(place / len(ours), bright=place % 2 == 0) for place, name in enumerate(ours)}


def _colour(hue: float, *, bright: bool) -> str:
    """A colour that shows on the dark and on the light canvas; neighbours in hue differ in lightness, too."""
    parts = colorsys.hls_to_rgb(hue, 0.68 if bright else 0.55, 0.75)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
