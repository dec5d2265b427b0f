"""Which files a workflow may open: what lies in ComfyUI's own folders, and what the package ships.

A workflow may come from anywhere, so its names are read strictly. They are refused before anything is opened or listed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fopru_graph.comfy import host
from fopru_graph.errors import UserError
from fopru_graph.graph import InputPath

MODELS = ("LLM", "VLM")  # folders below `models` that other packs use for language models too
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEOS = (".gif", ".webp", ".png", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
TOKENS = (".safetensors",)

_DEMO = re.compile(r"demo:[a-z0-9-]+")
_ANNOTATED = re.compile(r"(?P<name>.*\S) ?\[(?P<folder>input|output|temp)\]", re.DOTALL)
_DEVICE = re.compile(r"(con|nul|aux|prn|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?", re.IGNORECASE)
_INDEX = "model.safetensors.index.json"


def choices(path: InputPath) -> list[str]:
    """The names that an input offers now, bundled ones first."""
    if path.kind == "model":
        return ["demo", *sorted(_models())]
    bundled: list[str] = []
    if path.kind == "image":
        from fopru_graph.lvlm.inputs.images import samples

        bundled = [f"demo:{name}" for name in samples()]
    names = sorted(_names(host.folder("input"), path.kind))
    if path.kind == "tokens":
        names += [f"{name} [output]" for name in sorted(_names(host.folder("output"), path.kind))]
    return bundled + names


def confined(path: InputPath, name: object) -> str:
    """The absolute path that a name of a workflow means; what the package ships keeps its name, ``demo:NAME``.

    Raises:
        UserError: it is no name of a file or folder in a folder that may be read, or there is none of this name.
    """
    if not isinstance(name, str) or not name.strip():
        raise UserError("no file is chosen", "upload one, or choose one of the list")
    if name == "demo" if path.kind == "model" else path.kind == "image" and _DEMO.fullmatch(name):
        return name
    where, plain = ("input", name)
    if path.kind != "model" and (match := _ANNOTATED.fullmatch(name)):
        where, plain = match["folder"], match["name"]
    if why := _refusal(plain):
        raise UserError(f"{_shown(name)} is refused: {why}", f"choose one of the list: {_PLACES[path.kind]}")
    roots = host.model_folders(MODELS) if path.kind == "model" else [host.folder(where)]  # type: ignore[arg-type]
    for root in roots:
        if (found := _inside(root, plain, name)) is not None:
            return found
    what = "folder" if path.kind == "model" else "file"
    raise UserError(f"there is no {what} {_shown(name)}", f"choose one of the list: {_PLACES[path.kind]}")


_PLACES = dict.fromkeys(("file", "image", "video", "tokens"), "files of ComfyUI's input folder") | {
    "model": "demo, and checkpoints in the folders models/LLM and models/VLM"
}


def _refusal(name: str) -> str | None:
    """Why a text is no plain name below a folder, on whatever system; None if it is one."""
    parts = re.split(r"[/\\]", name)
    reasons = {
        "it holds control characters": any(ord(character) < 32 for character in name),
        "it leaves its folder": ".." in (part.strip() for part in parts),
        "it begins in a home folder": name.startswith("~"),
        "it is an absolute path": not parts[0],
        "it holds a colon, as drives and addresses do": ":" in name,
        "it holds percent-encoded characters": bool(re.search(r"%[0-9a-fA-F]{2}", name)),
        "it is the name of a device": any(map(_DEVICE.fullmatch, parts)),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _inside(root: Path, plain: str, name: str) -> str | None:
    """The real path of what lies below ``root``, links followed; None if there is nothing of this name."""
    real_root = os.path.realpath(root)
    found = os.path.realpath(os.path.join(real_root, *re.split(r"[/\\]", plain)))
    _check_below(real_root, found, name)
    if not os.path.lexists(found):
        return None
    if os.path.isdir(found):
        for entry in _walk(found):
            _check_below(real_root, os.path.realpath(entry), name)
        _check_shards(found, name)
    elif not os.path.isfile(found):
        raise UserError(f"{_shown(name)} is no regular file", "choose a file or folder")
    return found


def _check_below(root: str, path: str, name: str) -> None:
    if path == root or not path.startswith(os.path.join(root, "")):
        raise UserError(f"{_shown(name)} is refused: it leads out of its folder", "copy the file into the folder")


def _walk(folder: str) -> Iterator[str]:
    """All files and folders below; links to folders are not followed, as each is checked by itself."""
    for here, folders, files in os.walk(folder):
        yield from (os.path.join(here, entry) for entry in (*folders, *files))


def _check_shards(folder: str, name: str) -> None:
    """Weights that the index of a checkpoint names must lie beside it: loading opens what it names."""
    index = os.path.join(folder, _INDEX)
    if not os.path.isfile(index):
        return
    with contextlib.suppress(OSError, ValueError, AttributeError, KeyError, TypeError):  # loading says this better
        shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
        if any(_refusal(str(shard)) or str(shard) != os.path.basename(str(shard)) for shard in shards):
            raise UserError(f"{_shown(name)} is refused: {_INDEX} names weights elsewhere", "download it again")


def _models() -> set[str]:
    found = set()
    for root in host.model_folders(MODELS):
        with contextlib.suppress(OSError):
            found |= {entry.name for entry in os.scandir(root) if (Path(entry) / "config.json").is_file()}
    return found


def _names(folder: Path, kind: str) -> list[str]:
    """Files of a kind in the folder; for videos its folders too, which may hold pictures."""
    suffixes = {"image": PICTURES, "video": VIDEOS, "tokens": TOKENS}.get(kind, ("",))
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:
        return []
    return [
        entry.name
        for entry in entries
        if (entry.is_file() and entry.name.lower().endswith(suffixes)) or (kind == "video" and entry.is_dir())
    ]


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:57] + "…")
