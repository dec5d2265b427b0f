"""The types that a pipeline's own inputs can be declared with."""

from __future__ import annotations

from typing import Any

from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import Problem, did_you_mean
from fopru_graph.graph.sockets import BadLiteral, literal_adapter, read_literal

INPUT_TYPES: dict[str, Any] = {
    "str": str,
    "path": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list[str]": list[str],
    "list[int]": list[int],
    "list[float]": list[float],
    "json": Any,
}


def declared_annotation(name: str, registry: Registry) -> Any | None:
    """The annotation of a declared type: one of `INPUT_TYPES` or the type of some node's socket; None if unknown."""
    return INPUT_TYPES[name] if name in INPUT_TYPES else registry.annotation(name)


def unknown_type_problem(name: str) -> Problem:
    """The problem of a declared type that does not exist."""
    hint = did_you_mean(name, INPUT_TYPES) or "write one of " + ", ".join(INPUT_TYPES)
    return Problem("bad-value", f"is declared with the unknown type {name!r}", hint=hint)


def declared_problem(name: str, value: Any, registry: Registry) -> Problem | None:
    """Why a literal does not fit its declared type, if so; None always fits, as the sockets that it feeds decide."""
    annotation = declared_annotation(name, registry)
    if annotation is None:
        return unknown_type_problem(name)
    if value is None:
        return None
    try:
        read_literal(literal_adapter(annotation), annotation, value)
    except BadLiteral as error:
        return Problem(error.code, error.message, hint=error.hint)
    return None
