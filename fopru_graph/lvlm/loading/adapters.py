"""Adapters (LoRA and its kin) are not applied here: a checkpoint that has one is refused, not run without it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from fopru_graph.errors import UserError

ADAPTER = "adapter_config.json"
_WEIGHT = re.compile(r"(^|\.)((lora|vera|ia3|hada|lokr|oft)_\w+|base_layer|modules_to_save|base_model)(\.|$)")


def refuse_adapter(name: str, config: Path, beside_model: bool) -> None:
    """Refuse a checkpoint with peft's file ``config``, which may lie beside a model's weights.

    Raises:
        UserError: the file exists; the message names the adapter's base model.
    """
    if not config.is_file():
        return
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        kind, base = content.get("peft_type") or "unknown", content.get("base_model_name_or_path") or "an unnamed model"
    except (OSError, ValueError, AttributeError):
        kind, base = "unknown", "an unnamed model"
    if beside_model:
        raise UserError(
            f"{name}: an adapter ({kind}, of {base}) lies beside the weights and would not be applied",
            f"{_merge(base)}; to use the weights without it, take {ADAPTER} away",
        )
    raise UserError(f"{name}: this is an adapter ({kind}) of {base}, not a model", _merge(base))


def refuse_adapter_weights(name: str, weights: Iterable[str]) -> None:
    """Refuse a checkpoint whose ``weights``, by their names, belong to an adapter.

    Raises:
        UserError: at least one does.
    """
    found = sorted(weight for weight in weights if _WEIGHT.search(weight))
    if found:
        raise UserError(
            f"{name}: {len(found)} weights belong to an adapter that was not merged, e.g. {found[0]}",
            _merge("the base model"),
        )


def _merge(base: str) -> str:
    return f"merge it with peft first: PeftModel.from_pretrained({base}, …).merge_and_unload().save_pretrained(…)"
