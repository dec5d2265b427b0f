"""One look at the installed transformers: is everything there that the model layer stands on, and under which name?"""

from __future__ import annotations

import functools
import importlib
import inspect


def missing_capabilities() -> list[str]:
    """What this version of transformers lacks, as one sentence each; empty when all is well."""
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
    """The name under which models take their cache: ``cache`` since transformers 5.24, ``past_key_values`` before."""
    from transformers import LlamaModel

    return "cache" if "cache" in inspect.signature(LlamaModel.forward).parameters else "past_key_values"
