"""The files of a checkpoint, in a folder or on the hub, checked before transformers loads them. Imports no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError

DEMO = Path(__file__).resolve().parents[2] / "demo" / "model"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def open_config(name: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """The folder or hub name that ``name`` stands for, and its raw config.json.

    Raises:
        UserError: there is no such checkpoint, it is damaged or incomplete, has no safetensors, or needs remote code.
    """
    if name == "demo":
        return str(DEMO), _folder_config(name, DEMO)
    folder = Path(name).expanduser()
    if name.strip() and folder.is_dir():
        return str(folder), _folder_config(name, folder)
    if folder.exists() or not _HUB_NAME.fullmatch(name):
        raise UserError(f"model {name!r} is neither a folder nor a hub name", "use demo, a folder, or owner/name")
    return name, _check_config(name, _hub_config(name, revision))


def _folder_config(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{name}: the folder has no config.json", "point to a checkpoint in Hugging Face layout")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: config.json cannot be read: {first_line(error)}", "the file is damaged") from error
    _check_config(name, config)
    _check_weights(name, folder)
    return config


def _hub_config(name: str, revision: str | None) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(name, "config.json", revision=revision)
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except Exception as error:
        raise UserError(
            f"{name}: cannot be fetched from the hub: {first_line(error)}",
            "check the name, the network and your access, or give a local folder",
        ) from error


def _check_config(name: str, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise UserError(f"{name}: config.json holds no object", "the file is damaged")
    if config.get("auto_map"):
        raise UserError(
            f"{name}: the checkpoint needs its own code to run (auto_map in config.json)", "remote code is never run"
        )
    return config


def _check_weights(name: str, folder: Path) -> None:
    """Refuse a folder without safetensors, or with a shard missing."""
    index = folder / _INDEX
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{name}: {_INDEX} cannot be read", "the file is damaged") from error
        missing = [shard for shard in shards if not (folder / str(shard)).is_file()]
        if missing:
            raise UserError(
                f"{name}: {len(missing)} of {len(shards)} weight shards are missing: {', '.join(missing[:3])}",
                "download them again",
            )
    elif not (folder / _SINGLE).is_file():
        pickled = next((file for file in _PICKLED if (folder / file).exists()), None)
        found = f"only {pickled}" if pickled else "no weights"
        raise UserError(
            f"{name}: no safetensors in the folder ({found})",
            "pickled weights can run code and are never opened; convert them to safetensors"
            if pickled
            else "expected " + _SINGLE,
        )


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def fingerprint(name: str) -> list[str]:
    """Names, sizes and times of a local checkpoint's files, which change when it does; [] for a hub name."""
    folder = DEMO if name == "demo" else Path(name).expanduser()
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    return [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
