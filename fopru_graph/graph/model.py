"""What a graph is made of, as its text has it; nothing here is checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from fopru_graph.graph.errors import Problem
from fopru_graph.graph.sockets import MISSING
from fopru_graph.graph.values import INPUTS, Value


@dataclass(frozen=True)
class Origin:
    """Where a node of an expanded sub-graph comes from: the outer node, and the file and line of its own text."""

    outer: str
    line: int | None
    file: str
    inner_line: int | None


@dataclass
class GraphNode:
    """One node as the pipeline's text has it; nothing here is checked. Lines are those of the YAML file, if any."""

    name: str
    type: str
    inputs: dict[str, Value] = field(default_factory=dict)
    cache: str | None = None
    comment: str | None = None
    line: int | None = None
    input_lines: dict[str, int] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass
class PipelineInput:
    """A value that ``set`` or an outer graph may give; without a default it must be given."""

    type: str
    default: Value = MISSING
    line: int | None = None


@dataclass
class PipelineOutput:
    """A named result of the pipeline."""

    ref: Value
    line: int | None = None


def bad_name(what: str, name: str, node: str | None = None, line: int | None = None) -> Problem:
    """The problem of a name that is reserved or cannot be written in a reference."""
    if name == INPUTS:
        return Problem("bad-name", f"{what} {name!r} is reserved for the pipeline's inputs", node=node, line=line)
    hint = "letters, digits, _ and - are possible, with a letter or _ first"
    return Problem("bad-name", f"{what} {name!r} cannot be referred to", node=node, line=line, hint=hint)
