"""Open a model from a folder or a hub name: safetensors only, no remote code, one clear sentence when it cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families import family_for
from fopru_graph.values import ModelHandle

DTYPES = ("auto", "float32", "bfloat16", "float16")
DEMO = Path(__file__).resolve().parent.parent / "demo" / "model"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def load_model(
    name: str,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    attention: str = "sdpa",
    device_map: str | None = None,
    revision: str | None = None,
) -> ModelHandle:
    """Load a checkpoint and its processor.

    Args:
        name: ``demo`` for the bundled model, a folder in Hugging Face layout, or a hub name such as
            ``llava-hf/llava-1.5-7b-hf``.
        device: ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: of the weights; ``auto`` is the checkpoint's own on a GPU and float32 on the CPU.
        attention: kernel of every layer: sdpa, eager or flash_attention_2.
        device_map: ``auto``, ``balanced`` or ``sequential`` spreads the layers over all devices (accelerate); it replaces
            ``device``.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: the checkpoint is missing, incomplete, without safetensors, of an unsupported architecture, or needs
            remote code; or the device does not exist.
    """
    place = _device(device)
    source, config = _open_config(name, revision)
    family = family_for(config.get("model_type"), name)
    chosen: Any = dtype if dtype != "auto" else ("float32" if place.type == "cpu" and device_map is None else "auto")
    options = {"revision": revision} if revision else {}
    try:
        processor = transformers.AutoProcessor.from_pretrained(source, trust_remote_code=False, backend="pil", **options)
        model = getattr(transformers, family.auto_class).from_pretrained(
            source,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=chosen,
            attn_implementation=attention,
            device_map=device_map,
            **options,
        )
    except UserError:
        raise
    except Exception as error:  # transformers raises many kinds here; each must end as one sentence
        raise UserError(f"{name}: the checkpoint does not load: {_first_line(error)}", _load_hint(error)) from error
    if device_map is None:
        model = model.to(place)
    return ModelHandle(name, family(model.eval().requires_grad_(False), processor))


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r} is unknown", "use auto, cpu, cuda, cuda:N or mps") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {device!r} is not here: {torch.cuda.device_count()} CUDA device(s)", "use device: auto")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not here", "use device: auto")
    return place


def _open_config(name: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """Where to load from, and the raw config.json, checked before any of its classes is touched."""
    if name == "demo":
        return str(DEMO), _folder_config(name, DEMO)
    folder = Path(name).expanduser()
    if folder.is_dir():
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
        raise UserError(f"{name}: config.json cannot be read: {_first_line(error)}", "the file is damaged") from error
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
            f"{name}: cannot be fetched from the hub: {_first_line(error)}",
            "check the name, the network and your access, or give a local folder",
        ) from error


def _check_config(name: str, config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise UserError(f"{name}: config.json holds no object", "the file is damaged")
    if config.get("auto_map"):
        raise UserError(f"{name}: the checkpoint needs its own code to run (auto_map in config.json)", "remote code is never run")
    family_for(config.get("model_type"), name)
    return config


def _check_weights(name: str, folder: Path) -> None:
    """Safetensors must be there, and every shard of them."""
    index = folder / _INDEX
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{name}: {_INDEX} cannot be read", "the file is damaged") from error
        missing = [shard for shard in shards if not (folder / str(shard)).is_file()]
        if missing:
            raise UserError(f"{name}: {len(missing)} of {len(shards)} weight shards are missing: {', '.join(missing[:3])}", "download them again")
    elif not (folder / _SINGLE).is_file():
        pickled = next((one for one in _PICKLED if (folder / one).exists()), None)
        found = f"only {pickled}" if pickled else "no weights"
        raise UserError(
            f"{name}: no safetensors in the folder ({found})",
            "pickled weights can run code and are never opened; convert them to safetensors" if pickled else "expected " + _SINGLE,
        )


def _first_line(error: BaseException) -> str:
    """The first sentence-like line of an exception, or its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _load_hint(error: BaseException) -> str:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "use a smaller dtype or device_map: auto"
    if isinstance(error, ImportError):
        return "install what the message names, or choose attention: sdpa"
    return "the files may be damaged or of another model; download them again"
