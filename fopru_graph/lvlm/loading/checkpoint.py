"""The files of a checkpoint, in a folder or on the hub, checked before transformers loads them. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from fopru_graph.errors import UserError, first_line
from fopru_graph.identity import files_digest
from fopru_graph.lvlm.loading.adapters import ADAPTER, refuse_adapter, refuse_adapter_weights
from fopru_graph.paths import local_path

DEMO = Path(__file__).resolve().parents[2] / "demo" / "model"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_READ = {".json", ".safetensors", ".jinja", ".model", ".txt", ".tiktoken"}  # of a folder, by transformers
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class Checkpoint(NamedTuple):
    """Where a checkpoint is: a folder, or a hub name at a ``commit``; ``config`` is its raw config.json."""

    source: str
    config: dict[str, Any]
    commit: str | None = None

    def digest(self) -> str:
        """The commit, or a digest of the folder's files: weights, tokenizer, processor, chat template, generation."""
        if self.commit is not None:
            return f"{self.source}@{self.commit}"
        folder = Path(self.source)
        files = [*folder.iterdir(), *folder.glob("additional_chat_templates/*")]
        return files_digest((file for file in files if file.suffix in _READ and file.is_file()), folder)


def open_checkpoint(name: str, revision: str | None) -> Checkpoint:
    """The checkpoint that ``name`` stands for: ``demo``, a folder or a hub name.

    Raises:
        UserError: there is no such checkpoint, it is damaged or incomplete, has no safetensors, needs remote code, or
            is an adapter.
    """
    folder = DEMO if name == "demo" else Path(local_path(name))
    if name.strip() and folder.is_dir():
        return Checkpoint(str(folder), _folder_config(name, folder))
    if folder.exists() or not _HUB_NAME.fullmatch(name):
        raise UserError(f"model {name!r} is neither a folder nor a hub name", "use demo, a folder, or owner/name")
    return _hub_checkpoint(name, revision)


def _folder_config(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    refuse_adapter(name, folder / ADAPTER, beside_model=path.is_file())
    if not path.is_file():
        raise UserError(f"{name}: the folder has no config.json", "point to a checkpoint in Hugging Face layout")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: config.json cannot be read: {first_line(error)}", "the file is damaged") from error
    _check_config(name, config)
    _check_weights(name, folder)
    return config


def _hub_checkpoint(name: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import hf_hub_download

    def fetched(file: str) -> Path:
        return Path(hf_hub_download(name, file, revision=revision))

    adapter = None
    with contextlib.suppress(Exception):  # there is none, or the hub cannot be reached, which is said below
        adapter = fetched(ADAPTER)
    try:
        path = fetched("config.json")
        config = json.loads(path.read_text(encoding="utf-8"))
    except Exception as error:
        if adapter is not None:
            refuse_adapter(name, adapter, beside_model=False)
        raise UserError(
            f"{name}: cannot be fetched from the hub: {first_line(error)}",
            "check the name, the network and your access, or give a local folder",
        ) from error
    if adapter is not None:
        refuse_adapter(name, adapter, beside_model=True)
    return Checkpoint(name, _check_config(name, config), path.parent.name)  # …/snapshots/COMMIT/config.json


def _check_config(name: str, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise UserError(f"{name}: config.json holds no object", "the file is damaged")
    if config.get("auto_map"):
        raise UserError(
            f"{name}: the checkpoint needs its own code to run (auto_map in config.json)", "remote code is never run"
        )
    return config


def _check_weights(name: str, folder: Path) -> None:
    """Refuse a folder without safetensors, with a shard missing, or with weights of an adapter."""
    index = folder / _INDEX
    if index.is_file():
        try:
            shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            shards = sorted(set(shard_of.values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{name}: {_INDEX} cannot be read", "the file is damaged") from error
        missing = [shard for shard in shards if not (folder / str(shard)).is_file()]
        if missing:
            raise UserError(
                f"{name}: {len(missing)} of {len(shards)} weight shards are missing: {', '.join(missing[:3])}",
                "download them again",
            )
        refuse_adapter_weights(name, shard_of)
    elif (folder / _SINGLE).is_file():
        refuse_adapter_weights(name, _weight_names(folder / _SINGLE))
    else:
        pickled = next((file for file in _PICKLED if (folder / file).exists()), None)
        found = f"only {pickled}" if pickled else "no weights"
        raise UserError(
            f"{name}: no safetensors in the folder ({found})",
            "pickled weights can run code and are never opened; convert them to safetensors"
            if pickled
            else "expected " + _SINGLE,
        )


def _weight_names(file: Path) -> list[str]:
    """The names of a safetensors file's weights, from its header; none if it is damaged, which loading says better."""
    import safetensors

    try:
        with safetensors.safe_open(file, framework="np") as weights:
            return list(weights.keys())
    except Exception:  # its own SafetensorError, OSError …
        return []
