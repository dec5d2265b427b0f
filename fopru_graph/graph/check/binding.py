"""The inputs of nodes against their sockets (literals by value, links by type), and the types of pipeline inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import networkx as nx
from pydantic import TypeAdapter

from fopru_graph.graph.annotations import compatible, item_type, type_name
from fopru_graph.graph.declare.node import NodeSpec
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import Problem, did_you_mean, hint_choices
from fopru_graph.graph.model import INPUT_TYPES, PATH, GraphNode, Model
from fopru_graph.graph.sockets import BadLiteral, InputPath, Socket, read_literal
from fopru_graph.graph.values import (
    INPUTS,
    INVALID,
    MISSING,
    Given,
    Ref,
    Value,
    describe,
    has_invalid,
    has_refs,
    refs_in,
)


@dataclass
class Checked:
    """A pipeline after validation.

    ``flat`` has no sub-graphs; ``specs`` holds the type of every node whose type is known, ``bound`` its complete
    inputs as ``run`` wants them, with `Ref` for links.
    """

    flat: Model
    registry: Registry
    problems: list[Problem]
    specs: dict[str, NodeSpec] = field(default_factory=dict)
    bound: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def links(self) -> nx.MultiDiGraph[str]:
        """The links of the flat pipeline."""
        return self.flat.links()


@dataclass
class InputChecker:
    """Checks and binds the inputs of one node, and adds what is wrong to the problems of ``checked``."""

    checked: Checked
    entry: GraphNode

    def __post_init__(self) -> None:
        self.flat, self.specs, self.registry = self.checked.flat, self.checked.specs, self.checked.registry

    def bind(self, spec: NodeSpec) -> dict[str, Any]:
        """The complete inputs, with defaults filled in and outputs named in references; wrong ones are `INVALID`."""
        for key in self.entry.inputs:
            if key not in spec.inputs:
                message = f"{self.entry.name} ({spec.type}) has no input {key!r}"
                self._add("unknown-input", key, message, hint_choices(key, spec.inputs))
                self.references(key)
        bound: dict[str, Any] = {}
        for key, socket in spec.inputs.items():
            if key in self.entry.inputs:
                bound[key] = self._value(self.entry.inputs[key], socket)
                if path := socket.path or self._declared_path(self.entry.inputs[key]):
                    bound[key] = path.place(bound[key], self.flat.folder)
            elif socket.required:
                message = f"{self.entry.name} ({spec.type}) needs the input {key!r}, which is {socket.type_name}"
                self._add("missing-input", key, message, self._producer_hint(socket.annotation))
                bound[key] = INVALID
            else:
                bound[key] = socket.default_value()
        return bound

    def resolve(self, ref: Ref, key: str) -> tuple[Ref, Any] | None:
        """The reference with its output named, and that output's type; None, with a problem, when it leads nowhere.

        The type is Any if the type of the node referred to is unknown.
        """
        if ref.node == INPUTS:
            return self._resolve_input(ref, key)
        if ref.node not in self.flat:
            hint = hint_choices(ref.node, self.flat.nodes)
            self._add("unknown-node", key, f"{ref} refers to a node that does not exist", hint)
            return None
        spec = self.specs.get(ref.node)
        if spec is None:
            return ref, Any
        if ref.output is None and len(spec.outputs) > 1:
            hint = "write one of " + ", ".join(f"{ref}.{name}" for name in spec.outputs)
            self._add("ambiguous-output", key, f"{ref} could be several outputs of {spec.type}", hint)
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
            hint = hint_choices(ref.output or "", self.flat.inputs) or "declare it under inputs:"
            self._add("unknown-pipeline-input", key, f"{ref} is no input of the pipeline", hint)
            return None
        annotation = declared_annotation(declared.type, self.registry)
        return ref, Any if annotation is None else annotation

    def _declared_path(self, value: Value) -> InputPath | None:
        """How a value is read that is a pipeline input of type path, whatever the socket says."""
        declared = self.flat.inputs.get(value.output or "") if isinstance(value, Ref) and value.node == INPUTS else None
        return InputPath() if declared is not None and declared.type == PATH else None

    def references(self, key: str) -> None:
        """Check only that the references of an input lead somewhere."""
        for _, ref in refs_in(self.entry.inputs[key]):
            self.resolve(ref, key)

    def _value(self, value: Value, socket: Socket) -> Any:
        if has_invalid(value):
            self.references(socket.name)
            return INVALID
        if not has_refs(value):
            if isinstance(value, Given):
                return self._object(value, socket)
            return self._literal(value, socket.annotation, socket.name, adapter=socket.adapter, doc=socket.doc)
        if isinstance(value, Ref) and isinstance(given := self._written(value), Given):
            return self._object(given, socket)
        return self._mixed(value, socket.annotation, socket.name, socket.name)

    def _written(self, ref: Ref) -> Value:
        """The value of a pipeline input that the reference is to, if any."""
        declared = self.flat.inputs.get(ref.output or "") if ref.node == INPUTS else None
        return declared.default if declared else MISSING

    def _object(self, given: Given, socket: Socket) -> Any:
        """An object that was given in Python, if the socket takes it."""
        if socket.takes_object(given.value):
            return given
        message = f"{self.entry.name}.{socket.name} expects {socket.type_name}, but is {describe(given)}"
        self._add("bad-value", socket.name, message, self._producer_hint(socket.annotation))
        return INVALID

    def _literal(
        self,
        value: Value,
        annotation: Any,
        key: str,
        shown: str = "",
        adapter: TypeAdapter[Any] | None = None,
        doc: str = "",
    ) -> Any:
        try:
            return read_literal(annotation, value, adapter)
        except BadLiteral as error:
            hint = error.hint
            if "from another node" in error.message:
                hint = self._producer_hint(annotation) or hint
            if error.code == "out-of-range" and doc:
                hint = f"{key}: {doc}"  # a bound is clear once one knows what it bounds
            source = f" ({shown})" if shown else ""
            self._add(error.code, key, f"{self.entry.name}.{key} {error.message}{source}", hint)
            return INVALID

    def _mixed(self, value: Value, annotation: Any, key: str, path: str) -> Any:
        """A value that is or holds a reference: every element is checked against the type of elements."""
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
        links, name = self.checked.links, self.entry.name
        excluded = {name} | (nx.descendants(links, name) if name in links else set())
        for other, spec in self.specs.items():
            for output in spec.outputs.values() if other not in excluded else ():
                if _makes(output.annotation, annotation):
                    return f"use ${other}" + (f".{output.name}" if len(spec.outputs) > 1 else "")
        types = self.registry.types().values()
        makers = [spec.type for spec in types if any(_makes(o.annotation, annotation) for o in spec.outputs.values())]
        return f"{type_name(annotation)} comes from {', '.join(makers[:3])}" if makers else None

    def _add(self, code: str, key: str, message: str, hint: str | None = None) -> None:
        self.checked.problems.append(self.entry.problem(code, message, key, hint))


def _makes(source: Any, target: Any) -> bool:
    """Whether an output is a good suggestion: it fits, and not only because its type is Any."""
    inner = item_type(target, list)
    fits = compatible(source, target) or (inner is not None and compatible(source, inner))
    return source is not Any and fits


# -- the types of pipeline inputs -------------------------------------------------------------------------------------


def declared_annotation(name: str, registry: Registry) -> Any | None:
    """The annotation of a declared type: one of `INPUT_TYPES` or the type of some node's socket; None if unknown."""
    return INPUT_TYPES[name] if name in INPUT_TYPES else registry.annotation(name)


def unknown_type_problem(name: str) -> Problem:
    """The problem of a declared type that does not exist."""
    hint = did_you_mean(name, INPUT_TYPES) or "write one of " + ", ".join(INPUT_TYPES)
    return Problem("bad-value", f"is declared with the unknown type {name!r}", hint=hint)


def declared_problem(name: str, value: Any, registry: Registry) -> Problem | None:
    """Why a literal does not fit its declared type, or None.

    The value None and objects given in Python always fit: the sockets judge them.
    """
    annotation = declared_annotation(name, registry)
    if annotation is None:
        return unknown_type_problem(name)
    if value is None or isinstance(value, Given):
        return None
    try:
        read_literal(annotation, value)
    except BadLiteral as error:
        return Problem(error.code, error.message, hint=error.hint)
    return None
