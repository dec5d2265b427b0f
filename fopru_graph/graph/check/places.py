"""Paths in the texts of sub-graphs: made absolute before the texts of several folders meet in one pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.model import PATH, Model
from fopru_graph.graph.sockets import InputPath
from fopru_graph.graph.values import INPUTS, Ref, Value


def placed_inputs(registry: Registry, type_name: str, inputs: Mapping[str, Value], folder: Path) -> dict[str, Value]:
    """Inputs of a node of this type, whose text lies in ``folder``, with absolute paths."""
    paths = _paths(registry, type_name)
    return {name: paths[name].place(value, folder) if name in paths else value for name, value in inputs.items()}


def path_of_input(registry: Registry, block: Model, name: str) -> InputPath | None:
    """How a sub-graph's input is read as a path, by its nodes or else by its declared type; None if it is none."""
    for entry in block.nodes.values():
        paths = _paths(registry, entry.type)
        for key, value in entry.inputs.items():
            if value == Ref(INPUTS, name) and key in paths:
                return paths[key]
    return InputPath() if block.inputs[name].type == PATH else None


def _paths(registry: Registry, type_name: str) -> dict[str, InputPath]:
    spec = registry.find(type_name)
    return {} if spec is None else {name: socket.path for name, socket in spec.inputs.items() if socket.path}
