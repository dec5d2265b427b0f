"""Plug-ins of other tools, which find them by entry point. Nothing is imported before such a tool asks for it."""

from __future__ import annotations

from typing import Any


def lmms_eval_model() -> Any:
    """The entry point ``fopru_graph`` of the group ``lmms_eval.models``: tells lmms-eval the class of the model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("fopru_graph", simple_class_path="fopru_graph.plugins.lmms_eval.FopruGraph")
