"""The inputs of one node against its sockets: literals by value, links by type."""

from __future__ import annotations

from typing import Any

import networkx as nx
from pydantic import TypeAdapter

from fopru_graph.graph.annotations import compatible, item_type, type_name
from fopru_graph.graph.check.expand import locate
from fopru_graph.graph.check.pipeline_inputs import declared_annotation
from fopru_graph.graph.declare.node import NodeSpec
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import Problem, hint_choices
from fopru_graph.graph.graph import Graph
from fopru_graph.graph.model import GraphNode
from fopru_graph.graph.sockets import MISSING, BadLiteral, Socket, literal_adapter, read_literal
from fopru_graph.graph.values import INPUTS, INVALID, Ref, Value, has_invalid, has_refs, refs_in


class InputChecker:
    """Checks and binds the inputs of one node, adding to ``problems`` what is wrong."""

    def __init__(
        self, flat: Graph, specs: dict[str, NodeSpec], registry: Registry, entry: GraphNode, problems: list[Problem]
    ) -> None:
        self.flat = flat
        self.specs = specs
        self.registry = registry
        self.entry = entry
        self.problems = problems

    def bind(self, spec: NodeSpec) -> dict[str, Any]:
        """The complete inputs with defaults filled in and references naming their output; bad ones are `INVALID`."""
        for key in self.entry.inputs:
            if key not in spec.inputs:
                message = f"{self.entry.name} ({spec.type}) has no input {key!r}"
                self._add("unknown-input", key, message, hint_choices(key, spec.inputs))
                self._references(key)
        bound: dict[str, Any] = {}
        for key, socket in spec.inputs.items():
            if key in self.entry.inputs:
                bound[key] = self._value(self.entry.inputs[key], socket)
            elif socket.required:
                message = f"{self.entry.name} ({spec.type}) needs the input {key!r}, which is {socket.type_name}"
                self._add("missing-input", key, message, self._producer_hint(socket.annotation))
                bound[key] = INVALID
            else:
                bound[key] = socket.default_value()
        return bound

    def references_only(self) -> None:
        """Check that what the inputs refer to exists, for a node whose own type is unknown."""
        for key in self.entry.inputs:
            self._references(key)

    def resolve(self, ref: Ref, key: str) -> tuple[Ref, Any] | None:
        """The reference with its output named, and that output's type; None, with a problem, when it leads nowhere.

        The type is Any when the node referred to has problems of its own.
        """
        if ref.node == INPUTS:
            return self._resolve_input(ref, key)
        if ref.node not in self.flat:
            self._add(
                "unknown-node",
                key,
                f"{ref} refers to a node that does not exist",
                hint_choices(ref.node, self.flat.nodes),
            )
            return None
        spec = self.specs.get(ref.node)
        if spec is None:
            return ref, Any
        if ref.output is None and len(spec.outputs) > 1:
            message = f"{ref} could be several outputs of {spec.type}"
            self._add(
                "ambiguous-output", key, message, "write one of " + ", ".join(f"{ref}.{name}" for name in spec.outputs)
            )
            return None
        name = ref.output or next(iter(spec.outputs))
        if name not in spec.outputs:
            message = f"{ref.node} ({spec.type}) has no output {name!r}"
            self._add("unknown-output", key, message, hint_choices(name, spec.outputs))
            return None
        return Ref(ref.node, name), spec.outputs[name].annotation

    def _resolve_input(self, ref: Ref, key: str) -> tuple[Ref, Any] | None:
        declared = self.flat.inputs.get(ref.output or "")
        if declared is None:
            message = f"{ref} is no input of the pipeline"
            hint = hint_choices(ref.output or "", self.flat.inputs) or "declare it under inputs:"
            self._add("unknown-pipeline-input", key, message, hint)
            return None
        annotation = declared_annotation(declared.type, self.registry)
        return ref, Any if annotation is None else annotation

    def _references(self, key: str) -> None:
        for _, ref in refs_in(self.entry.inputs[key]):
            self.resolve(ref, key)

    def _value(self, value: Value, socket: Socket) -> Any:
        if has_invalid(value):
            self._references(socket.name)
            return INVALID
        if not has_refs(value):
            return self._literal(value, socket.annotation, socket.name, adapter=socket.adapter)
        return self._mixed(value, socket.annotation, socket.name, socket.name)

    def _literal(
        self, value: Value, annotation: Any, key: str, shown: str = "", adapter: TypeAdapter[Any] | None = None
    ) -> Any:
        try:
            return read_literal(adapter or literal_adapter(annotation), annotation, value)
        except BadLiteral as error:
            hint = error.hint
            if "from another node" in error.message:
                hint = self._producer_hint(annotation) or hint
            source = f" ({shown})" if shown else ""
            self._add(error.code, key, f"{self.entry.name}.{key} {error.message}{source}", hint)
            return INVALID

    def _mixed(self, value: Value, annotation: Any, key: str, path: str) -> Any:
        """A value that is or holds a reference: every element is checked against the type of its place."""
        if isinstance(value, Ref):
            return self._link(value, annotation, key, path)
        if not has_refs(value):
            return self._literal(value, annotation, key)
        container = list if isinstance(value, list) else dict
        inner = item_type(annotation, container)
        if inner is None:
            what = "a list" if container is list else "a mapping"
            message = f"{self.entry.name}.{path} expects {type_name(annotation)}, but is {what}"
            self._add("type-mismatch", key, message, "give one reference, not a list" if container is list else None)
            return INVALID
        if container is list:
            return [self._mixed(item, inner, key, f"{path}[{index}]") for index, item in enumerate(value)]
        return {name: self._mixed(item, inner, key, f"{path}.{name}") for name, item in value.items()}

    def _link(self, ref: Ref, annotation: Any, key: str, path: str) -> Any:
        resolved = self.resolve(ref, key)
        if resolved is None:
            return INVALID
        ref, source = resolved
        if ref.node == INPUTS:
            declared = self.flat.inputs[ref.output or ""]
            if declared.default is not MISSING:
                if has_refs(declared.default) or has_invalid(declared.default):
                    return INVALID
                return self._literal(declared.default, annotation, key, f"the value of {ref}")
        if not compatible(source, annotation):
            message = f"{self.entry.name}.{path} expects {type_name(annotation)}, but {ref} is {type_name(source)}"
            self._add("type-mismatch", key, message, self._producer_hint(annotation))
            return INVALID
        return ref

    def _producer_hint(self, annotation: Any) -> str | None:
        """An output in this pipeline that would fit, or else the node types that make such a value."""
        later = nx.descendants(self.flat.store, self.entry.name) if self.entry.name in self.flat.store else set()
        for name, spec in self.specs.items():
            if name == self.entry.name or name in later:
                continue
            for output in spec.outputs.values():
                if _makes(output.annotation, annotation):
                    return f"use ${name}" + (f".{output.name}" if len(spec.outputs) > 1 else "")
        types = self.registry.types().values()
        makers = [
            spec.type for spec in types if any(_makes(out.annotation, annotation) for out in spec.outputs.values())
        ]
        return f"{type_name(annotation)} comes from {', '.join(makers[:3])}" if makers else None

    def _add(self, code: str, key: str, message: str, hint: str | None = None) -> None:
        self.problems.append(locate(Problem(code, message, node=self.entry.name, input=key, hint=hint), self.entry))


def _makes(source: Any, target: Any) -> bool:
    """Whether an output is a good suggestion: it fits, and not only because it could be anything."""
    inner = item_type(target, list)
    fits = compatible(source, target) or (inner is not None and compatible(source, inner))
    return source is not Any and fits
