"""The pipeline itself: named nodes, their inputs and links, the pipeline's own inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

import networkx as nx

from fopru_graph.graph.declare.node import snake_case
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import PipelineError, Problem, UnknownAttribute, errors_of, hint_choices
from fopru_graph.graph.handle import Handle
from fopru_graph.graph.model import GraphNode, PipelineInput, PipelineOutput, bad_name
from fopru_graph.graph.sockets import MISSING
from fopru_graph.graph.values import INPUTS, NAME, Link, Ref, Value, plain, refs_in, tagged

if TYPE_CHECKING:
    from fopru_graph.graph.cache import DiskCache, MemoryCache
    from fopru_graph.graph.context import CancelToken
    from fopru_graph.graph.events import Event
    from fopru_graph.graph.run.record import RunResult


class Graph:
    """A pipeline, built in Python or read from YAML. Two graphs are equal when their canonical forms are.

    Nodes and links are kept in a `networkx.MultiDiGraph`: a node holds its `GraphNode`, an edge the path of the input
    and the name of the output it connects. A link to a node that does not exist is kept and reported by `problems`.
    """

    def __init__(self, name: str = "", description: str = "", registry: Registry | None = None) -> None:
        self.name = name
        self.description = description
        self.inputs: dict[str, PipelineInput] = {}
        self.outputs: dict[str, PipelineOutput] = {}
        self.ui: Value = None
        self.file: str | None = None
        self.folder: Path | None = None
        self.blocks: dict[str, str] = {}  # texts of sub-graph files, which then are not read from disk
        self.document_problems: list[Problem] = []
        self._registry = registry
        self._cache: MemoryCache | None = None
        self._store: nx.MultiDiGraph[str] = nx.MultiDiGraph()

    # -- reading and writing ------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, registry: Registry | None = None) -> Graph:
        """Read a YAML file; raises `PipelineError` when it is no YAML mapping, other problems are kept in the graph."""
        from fopru_graph.graph.yaml.read import load_file

        return load_file(Path(path), registry)

    @classmethod
    def loads(cls, text: str | bytes, registry: Registry | None = None, file: str | None = None) -> Graph:
        """Read YAML text, as `load` does; ``file`` names it in messages."""
        from fopru_graph.graph.yaml.read import load_text

        return load_text(text, registry, file)

    def dumps(self) -> str:
        """The pipeline as YAML, byte-stable. Raises `PipelineError` for a graph that was loaded with problems."""
        from fopru_graph.graph.yaml.write import dump

        if broken := errors_of(self.document_problems):
            raise PipelineError(broken, self.file)
        return dump(self)

    def save(self, path: str | Path) -> None:
        """Write the pipeline as a YAML file, replacing it at once or not at all."""
        from fopru_graph.graph.files import write_atomically

        write_atomically(Path(path), self.dumps().encode())

    # -- looking ------------------------------------------------------------------------------------------------------

    @property
    def registry(self) -> Registry:
        """The node types of this graph: those given, or else the default ones."""
        if self._registry is None:
            self._registry = Registry.default()
        return self._registry

    @property
    def nodes(self) -> dict[str, GraphNode]:
        """The nodes by name, in order."""
        return {name: entry for name, entry in self._store.nodes(data="entry") if entry is not None}

    def __contains__(self, name: object) -> bool:
        return name in self._store and self._store.nodes[name].get("entry") is not None

    def node(self, name: str) -> GraphNode:
        """One node; raises KeyError when there is none of this name."""
        if name not in self:
            raise KeyError(name)
        return cast(GraphNode, self._store.nodes[name]["entry"])

    @property
    def store(self) -> nx.MultiDiGraph[str]:
        """A read-only view of the networkx graph; a node without the attribute ``entry`` is missing."""
        return self._store.copy(as_view=True)

    def canonical(self) -> dict[str, Any]:
        """The graph without its layout on lines: equal for equal graphs, with 1, 1.0, "1" and True told apart."""
        return {
            "name": self.name,
            "description": self.description,
            "inputs": {
                name: [entry.type, None if entry.default is MISSING else tagged(entry.default)]
                for name, entry in self.inputs.items()
            },
            "nodes": {
                name: [
                    entry.type,
                    {key: tagged(value) for key, value in entry.inputs.items()},
                    entry.cache,
                    entry.comment,
                ]
                for name, entry in self.nodes.items()
            },
            "outputs": {name: tagged(entry.ref) for name, entry in self.outputs.items()},
            "ui": tagged(self.ui),
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.canonical() == other.canonical()

    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {', '.join(f'{node.name} ({node.type})' for node in self.nodes.values())}>"

    __hash__ = None  # type: ignore[assignment]  # a graph can be changed

    def copy(self, registry: Registry | None = None) -> Graph:
        """An independent copy with the same registry, or another one."""
        other = Graph(self.name, self.description, registry or self._registry)
        other.file, other.folder, other.blocks = self.file, self.folder, dict(self.blocks)
        other.document_problems = list(self.document_problems)
        other.ui = plain(self.ui)
        other.inputs = {name: replace(entry) for name, entry in self.inputs.items()}
        other.outputs = {name: replace(entry) for name, entry in self.outputs.items()}
        for entry in self.nodes.values():
            other.put(replace(entry, inputs=dict(entry.inputs), input_lines=dict(entry.input_lines)))
        return other

    def problems(self) -> list[Problem]:
        """Everything that is wrong with the pipeline, in the order of lines."""
        from fopru_graph.graph.check.validate import validate

        return validate(self, self.registry)

    # -- building -----------------------------------------------------------------------------------------------------

    def input(self, name: str, type: str = "str", default: Value = MISSING) -> Ref:
        """Declare a pipeline input and return the reference to it; raises `PipelineError` for a bad or used name."""
        self._check_name(name, INPUTS, self.inputs)
        value = default if default is MISSING else self._plain(default, INPUTS, name)
        self.inputs[name] = PipelineInput(type, value)
        return Ref(INPUTS, name)

    def add(self, type_name: str, name: str | None = None, /, *, id: str | None = None, **inputs: Any) -> Handle:
        """Add a node; without a name it gets the type's in snake case, with ``_2``, ``_3`` … where that is taken.

        Raises `PipelineError` for an unknown type or input, or a bad or used name.
        """
        spec = self._builder_spec(type_name)
        chosen = name or id or self._free_name(_default_name(type_name))
        self._check_name(chosen, None, self)
        if spec is not None and (unknown := spec.unknown_inputs(inputs)):
            raise PipelineError([replace(problem, node=chosen) for problem in unknown])
        self.put(GraphNode(chosen, type_name, {key: self._plain(value, chosen, key) for key, value in inputs.items()}))
        return Handle(self, chosen)

    def __getattr__(self, type_name: str) -> Callable[..., Handle]:
        if type_name.startswith("_"):
            raise AttributeError(type_name)
        if self.registry.find(type_name) is None:
            raise UnknownAttribute([self.registry.unknown(type_name)])
        return lambda *args, **inputs: self.add(type_name, *args, **inputs)

    def output(self, name: str, ref: Link) -> None:
        """Declare a pipeline output; raises `PipelineError` for a bad or used name."""
        self._check_name(name, "outputs", self.outputs)
        if not isinstance(ref, Link):
            raise PipelineError(
                [Problem("bad-reference", f"output {name!r} must be an output of a node", node="outputs")]
            )
        self.outputs[name] = PipelineOutput(ref._as_ref())

    def set(self, target: str, value: Any) -> None:
        """Set a node's input (``"prune.ratio"``) or replace a pipeline input's default (``"image"``).

        Raises `PipelineError` when there is no such input; the value itself is judged by `problems`.
        """
        node_name, dot, key = target.rpartition(".")
        if not dot:
            self._set_pipeline_input(target, value)
            return
        if node_name not in self:
            hint = hint_choices(node_name, self.nodes)
            raise PipelineError(
                [Problem("unknown-node", f"cannot set {target}: no node {node_name!r}", hint=hint)], self.file
            )
        entry = self.node(node_name)
        spec = self.registry.find(entry.type)
        if spec is not None and (unknown := spec.unknown_inputs({key: value})):
            raise PipelineError([replace(unknown[0], node=node_name, line=entry.line)], self.file)
        entry.inputs[key] = self._plain(value, node_name, key)
        self.connect(node_name)

    def remove(self, name: str) -> None:
        """Remove a node; references to it stay and are reported until they are changed. Raises `PipelineError`."""
        if name not in self:
            hint = hint_choices(name, self.nodes)
            raise PipelineError([Problem("unknown-node", f"there is no node {name!r} to remove", hint=hint)])
        readers = list(self._store.out_edges(name, data=True))
        self._store.remove_node(name)
        self._store.add_edges_from(readers)

    def put(self, entry: GraphNode) -> None:
        """Store a node as it is, without any check, in place of one of the same name."""
        readers = list(self._store.out_edges(entry.name, data=True)) if entry.name in self._store else []
        if readers and self._store.nodes[entry.name].get("entry") is None:
            self._store.remove_node(entry.name)  # only a reference so far: it takes its place in the order now
        self._store.add_node(entry.name, entry=entry)
        if not self._store.out_degree(entry.name):
            self._store.add_edges_from(readers)
        self.connect(entry.name)

    def connect(self, name: str) -> None:
        """Bring the links into a node up to date with its inputs."""
        self._store.remove_edges_from(list(self._store.in_edges(name, keys=True)))
        for key, value in self._store.nodes[name]["entry"].inputs.items():
            for path, ref in refs_in(value, key):
                if ref.node != INPUTS:
                    self._store.add_edge(ref.node, name, input=path, output=ref.output)

    # -- running ------------------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        targets: Iterable[str] | None = None,
        to: str | None = None,
        sets: Mapping[str, Any] | None = None,
        cache: MemoryCache | None = None,
        disk: DiskCache | None = None,
        jobs: int = 1,
        on_event: Callable[[Event], None] | None = None,
        cancel: CancelToken | None = None,
        out: Path | None = None,
    ) -> RunResult:
        """Run the pipeline; see `Executor.run`.

        The graph remembers the outputs of its own nodes, so that a second run only runs what changed; another ``cache``
        takes the place of that memory, ``MemoryCache(0)`` remembers nothing.
        """
        from fopru_graph.graph.cache import MemoryCache
        from fopru_graph.graph.run.executor import Executor

        if cache is None:
            cache = self._cache = MemoryCache() if self._cache is None else self._cache
        executor = Executor(self.registry, cache=cache, disk=disk, jobs=jobs)
        return executor.run(self, targets, to=to, sets=sets, on_event=on_event, cancel=cancel, out=out)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _builder_spec(self, type_name: str) -> Any:
        if type_name.endswith((".yaml", ".yml")):
            return None  # a sub-graph: its file tells its inputs when the graph is validated
        return self.registry.get(type_name)

    def _free_name(self, base: str) -> str:
        if base not in self and base != INPUTS:
            return base
        number = 2
        while f"{base}_{number}" in self:
            number += 1
        return f"{base}_{number}"

    def _check_name(self, name: str, kind: str | None, taken: Container[str]) -> None:
        where = f"{kind[:-1]} " if kind else "node "
        if not NAME.fullmatch(name) or (kind is None and name == INPUTS):
            raise PipelineError([bad_name(f"{where}name", name, kind)])
        if name in taken:
            raise PipelineError(
                [Problem("duplicate-id", f"there already is a pipeline {where}{name!r}", node=kind or name)]
            )

    def _plain(self, value: Any, node_name: str, key: str) -> Value:
        try:
            return plain(value)
        except ValueError as error:
            raise PipelineError([Problem("bad-value", str(error), node=node_name, input=key)]) from None

    def _set_pipeline_input(self, name: str, value: Any) -> None:
        if name not in self.inputs:
            hint = hint_choices(name, self.inputs) or "write NODE.INPUT for a node's input"
            message = f"cannot set {name}: the pipeline has no such input"
            raise PipelineError([Problem("unknown-pipeline-input", message, input=name, hint=hint)], self.file)
        self.inputs[name].default = self._plain(value, INPUTS, name)


def _default_name(type_name: str) -> str:
    """The type in snake case; for a sub-graph the name of its file."""
    if type_name.endswith((".yaml", ".yml")):
        return re.sub(r"^(?![A-Za-z_])|[^A-Za-z0-9_-]", "_", PurePosixPath(type_name).stem)
    return snake_case(type_name)
