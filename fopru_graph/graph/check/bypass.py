"""Disabled nodes: what reads one reads the node's input of the same type instead."""

from __future__ import annotations

from dataclasses import replace

from fopru_graph.graph.annotations import members, type_name
from fopru_graph.graph.declare.node import NodeSpec
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import Problem, hint_choices
from fopru_graph.graph.model import GraphNode, Model
from fopru_graph.graph.sockets import Socket
from fopru_graph.graph.values import INVALID, Marker, Ref, Value, has_refs

_NOTHING = Marker("_NOTHING")  # the output of a disabled node that has no input of its type


def bypass(flat: Model, registry: Registry) -> list[Problem]:
    """Lead the references to disabled nodes of a flat pipeline around them, and say what is wrong with that.

    An output of a disabled node is the value of the one wired input of its type. Where there is none, a list loses the
    entry and an input that has a default falls back to it, with a warning; any other input is a problem, and so are
    several inputs of the type.
    """
    return _Bypass(flat, registry).problems


class _Bypass:
    def __init__(self, flat: Model, registry: Registry) -> None:
        self.nodes, self.registry = flat.nodes, registry
        self.problems: list[Problem] = []
        for entry in flat.nodes.values():
            if entry.enabled:
                self._read_around(entry)
        for name, output in flat.outputs.items():
            section = GraphNode("outputs", "", line=output.line)
            value = self._value(output.ref, section, name, ())
            if value is _NOTHING:
                value = None
                self._warn(section, name, output.ref, "the output is empty")
            flat.outputs[name] = replace(output, ref=value)

    def _read_around(self, reader: GraphNode) -> None:
        spec = self.registry.find(reader.type)
        for key, written in list(reader.inputs.items()):
            value = self._value(written, reader, key, ())
            if value is _NOTHING:
                value = self._without(reader, spec.inputs.get(key) if spec else None, key, written)
            if value is _NOTHING:
                del reader.inputs[key]
            else:
                reader.inputs[key] = value

    def _without(self, reader: GraphNode, socket: Socket | None, key: str, ref: Ref) -> Value:
        """What a node reads of nothing."""
        if socket is None or not socket.required:
            listed = socket is not None and type_name(socket.annotation).startswith("list[")
            if not listed:
                self._warn(reader, key, ref, f"{reader.name}.{key} is its default")
            return _NOTHING
        message = f"{reader.name}.{key} reads {ref}, which is disabled and has nothing of that type to pass on"
        self.problems.append(reader.problem("disabled", message, key, f"disable {reader.name} as well"))
        return INVALID

    def _warn(self, reader: GraphNode, key: str, ref: Ref, message: str) -> None:
        spec = self.registry.find(self.nodes[ref.node].type)
        if spec is None or not spec.output:  # a file that is not written is what one wants
            text = f"{message}, since {ref} is disabled and has nothing of that type to pass on"
            self.problems.append(reader.problem("disabled", text, key, severity="warning"))

    def _value(self, value: Value, reader: GraphNode, key: str, above: tuple[str, ...]) -> Value:
        """A value without references to disabled nodes; ``above`` are those that it was led around."""
        if isinstance(value, Ref):
            entry = self.nodes.get(value.node)
            return value if entry is None or entry.enabled else self._around(entry, value, reader, key, above)
        if isinstance(value, list):
            items = (self._value(item, reader, key, above) for item in value)
            return [item for item in items if item is not _NOTHING]
        if isinstance(value, dict):
            named = {name: self._value(item, reader, key, above) for name, item in value.items()}
            return {name: item for name, item in named.items() if item is not _NOTHING}
        return value

    def _around(self, entry: GraphNode, ref: Ref, reader: GraphNode, key: str, above: tuple[str, ...]) -> Value:
        if entry.name in above:
            self._add(reader, "cycle", f"the disabled nodes wait for each other: {' -> '.join(above)}", key)
            return INVALID
        spec = self.registry.find(entry.type)
        if spec is None:  # reported with the node
            return INVALID
        output = spec.outputs.get(ref.output or next(iter(spec.outputs)))
        if output is None or (ref.output is None and len(spec.outputs) > 1):
            what = "could be several outputs" if output else f"is no output of {spec.type}"
            code = "ambiguous-output" if output else "unknown-output"
            self._add(reader, code, f"{ref} {what}", key, hint_choices(ref.output or "", spec.outputs))
            return INVALID
        passed = _same_typed(spec, entry, output)
        if len(passed) > 1:
            both = ", ".join(passed)
            message = f"{entry.name} is disabled, but which input passes on as {ref} is not clear: {both} fit"
            self._add(reader, "disabled", message, key, "wire one of them only, or leave the node enabled")
            return INVALID
        return self._value(entry.inputs[passed[0]], reader, key, (*above, entry.name)) if passed else _NOTHING

    def _add(self, reader: GraphNode, code: str, message: str, key: str, hint: str | None = None) -> None:
        self.problems.append(reader.problem(code, message, key, hint))


def _same_typed(spec: NodeSpec, entry: GraphNode, output: Socket) -> list[str]:
    """The wired inputs of a node that have an output's type."""
    wired = [name for name in spec.inputs if has_refs(entry.inputs.get(name))]
    return [name for name in wired if _types(spec.inputs[name]) == _types(output)]


def _types(socket: Socket) -> set[str]:
    """The types of a socket's values but for None."""
    return {type_name(member) for member in members(socket.annotation)} - {"None"}
