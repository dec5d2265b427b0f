"""One look at the installed transformers: is everything there that the model layer stands on?"""

from __future__ import annotations

import importlib


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
