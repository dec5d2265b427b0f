"""A pipeline as data: its nodes, inputs and outputs, exactly as its text has them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Self

import networkx as nx

from fopru_graph.graph.declare.node import NodeSpec
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import PipelineError, Problem, Severity, hint_choices
from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.graph.sockets import Socket
from fopru_graph.graph.values import INPUTS, MISSING, Given, Value, plain, refs_in, tagged

PATH, ENABLED = "path", "enabled"
# The types that a pipeline input can be declared with, beside the types of sockets.
INPUT_TYPES: dict[str, Any] = {
    "str": str, PATH: str, "int": int, "float": float, "bool": bool,
    "list[str]": list[str], "list[int]": list[int], "list[float]": list[float], "json": Any,
}  # fmt: skip


def is_block(type_name: str) -> bool:
    """Whether a node's type names a sub-graph, by its file or as one that ships, rather than a node type."""
    return type_name.endswith((".yaml", ".yml")) or "/" in type_name or type_name in shipped_pipelines()


def inner_input(key: str) -> tuple[str, str] | None:
    """What an input of a sub-graph's node sets inside it: ``prune.ratio`` the ratio of prune, ``a/b.x`` b.x of a."""
    path, dot, name = key.rpartition(".")
    node, slash, rest = path.partition("/")
    return (node, f"{rest}.{name}" if slash else name) if dot else None


@dataclass(frozen=True)
class Origin:
    """The source of a node that comes from a sub-graph: the outer node and its line, the sub-graph's file and line."""

    outer: str
    line: int | None
    file: str
    inner_line: int | None


@dataclass
class GraphNode:
    """One node of a pipeline; one that is not ``enabled`` is led around. Lines are those of the YAML file, if any."""

    name: str
    type: str
    inputs: dict[str, Value] = field(default_factory=dict)
    cache: str | None = None
    comment: str | None = None
    enabled: bool = True
    line: int | None = None
    input_lines: dict[str, int] = field(default_factory=dict)
    origin: Origin | None = None

    def problem(
        self, code: str, message: str, key: str | None = None, hint: str | None = None, severity: Severity = "error"
    ) -> Problem:
        """A problem of this node, or of its input ``key``, with the line.

        For a node of a sub-graph it names the outer node; the message says where in the sub-graph's file it is.
        """
        origin = self.origin
        if origin is None:
            return Problem(code, message, severity, self.name, key, self.input_lines.get(key or "", self.line), hint)
        inner = f"{origin.file}:{origin.inner_line}" if origin.inner_line else origin.file
        return Problem(code, f"{inner}: {message}", severity, origin.outer, None, origin.line, hint)


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


class Model:
    """The content of a pipeline and the registry that its node types come from. Nothing in it is checked.

    Two models are equal when their canonical forms are. ``blocks`` holds the texts of sub-graph files that are not
    read from disk, ``document_problems`` what the reader refused. ``recorded`` is the record, as JSON, that the model
    was read from: a run says what has changed since.
    """

    def __init__(self, name: str = "", description: str = "", registry: Registry | None = None) -> None:
        self.name = name
        self.description = description
        self.nodes: dict[str, GraphNode] = {}
        self.inputs: dict[str, PipelineInput] = {}
        self.outputs: dict[str, PipelineOutput] = {}
        self.ui: Value = None
        self.file: str | None = None
        self.folder: Path | None = None
        self.blocks: dict[str, str] = {}
        self.recorded: dict[str, Any] | None = None
        self.document_problems: list[Problem] = []
        self._registry = registry

    @property
    def registry(self) -> Registry:
        """The node types of this pipeline; the default registry if none was given."""
        if self._registry is None:
            self._registry = Registry.default()
        return self._registry

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def node(self, name: str) -> GraphNode:
        """The node of this name; raises KeyError when there is none."""
        return self.nodes[name]

    def copy(self, registry: Registry | None = None) -> Self:
        """An independent copy with the same registry, or another one."""
        return copy.deepcopy(self, {id(self.registry): registry or self.registry})  # the memo: what stands for what

    def put(self, entry: GraphNode) -> None:
        """Store a node without any check; it replaces a node of the same name."""
        self.nodes[entry.name] = entry

    def links(self) -> nx.MultiDiGraph[str]:
        """The links between nodes, read from their inputs: an edge holds the path of the ``input`` and the ``output``.

        A reference to a node that does not exist is a link too.
        """
        links: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        links.add_nodes_from(self.nodes)
        for name, entry in self.nodes.items():
            for key, value in entry.inputs.items():
                for path, ref in refs_in(value, key):
                    if ref.node != INPUTS:
                        links.add_edge(ref.node, name, input=path, output=ref.output)
        return links

    def set(self, target: str, value: Any) -> None:
        """Set a node's input or replace a pipeline input's default (``"image"``).

        ``"prune.ratio"`` is an input of a node, ``"block/prune.ratio"`` of a node in the sub-graph of ``block``;
        ``"prune.enabled"`` says whether the node takes part, unless it has an input of that name. Raises
        `PipelineError` when there is no such input; validation judges the value, and what is in sub-graphs.
        """
        if "." not in target:
            self._set_pipeline_input(target, value)
            return
        node_name, key = self.place_of(target)
        if node_name not in self.nodes:
            message, hint = f"cannot set {target}: no node {node_name!r}", hint_choices(node_name, self.nodes)
            raise PipelineError([Problem("unknown-node", message, hint=hint)], self.file)
        entry = self.nodes[node_name]
        spec = self.registry.find(entry.type)
        if is_switch(key, spec):
            entry.enabled = read_switch(value, entry)
            return
        if spec is not None and (unknown := spec.unknown_inputs([key])):
            raise PipelineError([replace(unknown[0], node=node_name, line=entry.line)], self.file)
        entry.inputs[key] = plain_input(value, node_name, key, spec.inputs.get(key) if spec else None)

    def written(self, target: str) -> Value:
        """The value that `set` gave to a target, or that the pipeline has there; `MISSING` if there is none."""
        if "." not in target:
            return self.inputs[target].default if target in self.inputs else MISSING
        node_name, key = self.place_of(target)
        if (entry := self.nodes.get(node_name)) is None:
            return MISSING
        return entry.enabled if is_switch(key, self.registry.find(entry.type)) else entry.inputs.get(key, MISSING)

    def place_of(self, target: str) -> tuple[str, str]:
        """The node and its input that hold the value of a target: an outer node sets inputs inside its sub-graph."""
        name, _, key = target.rpartition(".")
        outer, slash, rest = name.partition("/")
        inside = slash and name not in self.nodes and outer in self.nodes and is_block(self.nodes[outer].type)
        return (outer, f"{rest}.{key}") if inside else (name, key)

    def _set_pipeline_input(self, name: str, value: Any) -> None:
        if name not in self.inputs:
            hint = hint_choices(name, self.inputs) or "write NODE.INPUT for a node's input"
            message = f"cannot set {name}: the pipeline has no such input"
            raise PipelineError([Problem("unknown-pipeline-input", message, input=name, hint=hint)], self.file)
        self.inputs[name].default = plain_input(value, INPUTS, name)

    def canonical(self) -> dict[str, Any]:
        """Everything that is written to a file, as JSON in which values of different types differ."""
        return {
            "name": self.name,
            "description": self.description,
            "inputs": {
                name: [entry.type, None if entry.default is MISSING else tagged(entry.default)]
                for name, entry in self.inputs.items()
            },
            "nodes": {
                node.name: [
                    node.type, {k: tagged(v) for k, v in node.inputs.items()}, node.cache, node.comment,
                    *(() if node.enabled else ("disabled",)),
                ]
                for node in self.nodes.values()
            },
            "outputs": {name: tagged(entry.ref) for name, entry in self.outputs.items()},
            "ui": tagged(self.ui),
        }  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and self.canonical() == other.canonical()

    __hash__ = None  # type: ignore[assignment]  # a model can be changed

    def __repr__(self) -> str:
        nodes = ", ".join(f"{node.name} ({node.type})" for node in self.nodes.values())
        return f"<{type(self).__name__} {self.name!r}: {nodes}>"


def is_switch(key: str, spec: NodeSpec | None) -> bool:
    """Whether a key says if a node takes part: no input of its type has that name."""
    return key == ENABLED and (spec is None or key not in spec.inputs)


def read_switch(value: Any, entry: GraphNode) -> bool:
    """What ``enabled`` of a node is set to; raises `PipelineError` for anything but true and false."""
    if isinstance(value, bool):
        return value
    message = f"{entry.name}.{ENABLED} must be true or false, but is {value!r}"
    raise PipelineError([entry.problem("bad-value", message, ENABLED)])


def plain_input(value: Any, node_name: str, key: str, socket: Socket | None = None) -> Value:
    """A copy of the value that a file can hold, or the object, as `Given`, if the socket takes it or is not known yet.

    Raises `PipelineError` naming the node and the input.
    """
    try:
        return plain(value)
    except ValueError as error:
        is_object = not isinstance(value, (str, float, int, list, tuple, dict, PurePath))
        if is_object and (socket is None or socket.takes_object(value)):
            return Given(value)
        raise PipelineError([Problem("bad-value", str(error), node=node_name, input=key)]) from None


def bad_name(what: str, name: str, node: str | None = None, line: int | None = None) -> Problem:
    """The problem of a name that is reserved or that no reference can hold."""
    if name == INPUTS:
        return Problem("bad-name", f"{what} {name!r} is reserved for the pipeline's inputs", node=node, line=line)
    hint = "letters, digits, _ and - are possible, with a letter or _ first"
    return Problem("bad-name", f"{what} {name!r} cannot be referred to", node=node, line=line, hint=hint)
