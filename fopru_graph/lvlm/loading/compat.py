"""What the installed transformers offers: whether it has all that the model layer needs, and under which names."""

from __future__ import annotations

import functools
import importlib
import inspect


def missing_capabilities() -> list[str]:
    """What this version of transformers lacks, one phrase each; empty if nothing is missing."""
    missing = []
    for module, name, use in (
        ("transformers.modeling_utils", "AttentionInterface", "tapping one layer's attention"),
        ("transformers.modeling_utils", "ALL_ATTENTION_FUNCTIONS", "calling a layer's own attention kernel"),
        ("transformers", "CLIPImageProcessorPil", "preparing pictures without torchvision"),
        ("transformers", "DynamicCache", "caches whose layers differ in length"),
    ):
        if not hasattr(importlib.import_module(module), name):
            missing.append(f"{module}.{name}, needed for {use}")
    return missing


@functools.cache
def cache_argument() -> str:
    """The name of the argument that models take their KV cache by: ``cache`` since transformers 5.24."""
    from transformers import LlamaModel

    return "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"
