"""Values on disk: tensors in one safetensors file, everything else as JSON beside it. No pickle, no code."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph import values

if TYPE_CHECKING:
    import torch

_JSON, _TENSORS = "value.json", "tensors.safetensors"


class TensorCodec:
    """Stores plain values, tensors and the data classes of `fopru_graph.values` for the engine's disk cache."""

    def dump(self, value: Any, folder: Path) -> None:
        """Write ``value`` into ``folder``.

        Raises:
            TypeError: it holds something that is no plain value, tensor or data class of `fopru_graph.values`.
        """
        from safetensors.torch import save_file

        tensors: dict[str, Any] = {}
        (folder / _JSON).write_text(json.dumps(_encode(value, tensors)), encoding="utf-8")
        save_file(tensors, folder / _TENSORS)

    def load(self, folder: Path) -> Any:
        """Read what `dump` wrote; tensors are where they were, or on the CPU if that device is not there now."""
        from safetensors.torch import load_file

        data = json.loads((folder / _JSON).read_text(encoding="utf-8"))
        return _decode(data, load_file(folder / _TENSORS))


def _encode(value: Any, tensors: dict[str, Any]) -> Any:
    import torch

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()  # views of one storage must not share it in the file
        return {"tensor": name, "device": str(value.device)}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_encode(item, tensors) for item in value]}
    if dataclasses.is_dataclass(value) and getattr(values, type(value).__name__, None) is type(value):
        fields = {f.name: _encode(getattr(value, f.name), tensors) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, "fields": fields}
    raise TypeError(f"a {type(value).__name__} cannot be stored in the disk cache")


def _placed(tensor: torch.Tensor, device: str) -> torch.Tensor:
    try:
        return tensor.to(device)
    except (RuntimeError, AssertionError):  # fewer GPUs than then; what reads the value moves it
        return tensor


def _decode(data: Any, tensors: dict[str, Any]) -> Any:
    if not isinstance(data, dict):
        return data
    if "tensor" in data:
        return _placed(tensors[data["tensor"]], data["device"])
    if "tuple" in data:
        return tuple(_decode(item, tensors) for item in data["tuple"])
    if "list" in data:
        return [_decode(item, tensors) for item in data["list"]]
    kind = getattr(values, data["class"])
    return kind(**{name: _decode(item, tensors) for name, item in data["fields"].items()})
