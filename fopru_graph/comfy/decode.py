"""The nodes of an API prompt as nodes of ours, still under their ids, with everything that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NoReturn

from fopru_graph.comfy.plan import PICTURES, PREFIX, NodePlan, Slot, plans
from fopru_graph.graph import MISSING, GraphNode, PipelineError, Problem, Ref, Registry
from fopru_graph.graph.check.expand import MAX_NODES
from fopru_graph.graph.errors import did_you_mean, hint_choices
from fopru_graph.graph.sockets import BadLiteral
from fopru_graph.graph.values import Value, plain

# Nodes of ComfyUI's own: those that hold a value, and those that only show something.
_VALUES = ("PrimitiveString", "PrimitiveStringMultiline", "PrimitiveInt", "PrimitiveFloat", "PrimitiveBoolean")
_SHOWING = ("PreviewImage", "PreviewAny", "SaveImage", "Note", "MarkdownNote")
_REROUTE, _LOAD_IMAGE = "Reroute", "LoadImage"
_LONGEST_CHAIN = 100
_HINTED = 20  # problems
_UPLOADED = " [input]"  # what ComfyUI writes behind the name of a file in its input folder
_NUMBERED = re.compile(r"(.*)\.(\D*)([0-9]+)")


def decode(prompt: Mapping[str, Any], registry: Registry, file: str | None = None) -> dict[str, GraphNode]:
    """The nodes of a prompt by their ids, in its order; links are references to ids. Defaults are left out.

    Nodes of ComfyUI's own are followed: a primitive is its value, LoadImage is ours, and one that only shows something
    is left out, as are our nodes that gather pictures.

    Raises:
        PipelineError: all that is wrong, by node id and input.
    """
    return _Decoder(prompt, registry, file).nodes


class _Refused(Exception):
    """A value that an input cannot have: the problem's code, message and hint."""


class _Decoder:
    def __init__(self, prompt: Mapping[str, Any], registry: Registry, file: str | None) -> None:
        self.problems: list[Problem] = []
        self.nodes: dict[str, GraphNode] = {}
        self._plans = plans(registry)
        self._raw = dict(self._checked(prompt))
        if len(self._raw) > MAX_NODES:
            raise PipelineError([Problem("too-many-values", f"the prompt has more than {MAX_NODES} nodes")], file)
        for name, (kind, inputs) in self._raw.items():
            if kind == _LOAD_IMAGE:
                self._load_image(name, inputs)
            elif kind in self._plans and kind != PICTURES.type:
                self._node(name, self._plans[kind], inputs)
        if self.problems:
            raise PipelineError(self.problems, file)

    def _checked(self, prompt: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Mapping[str, Any]]]]:
        """The type and the inputs of each node; one of a type that is not known is a problem."""
        for name, node in prompt.items():
            kind = node.get("class_type") if isinstance(node, Mapping) else None
            inputs = node.get("inputs", {}) if isinstance(node, Mapping) else None
            if not isinstance(kind, str) or not isinstance(inputs, Mapping):
                self._add("bad-structure", "a node of a prompt has a class_type and a mapping of inputs", name)
                continue
            if kind not in {*self._plans, *_VALUES, *_SHOWING, _REROUTE, _LOAD_IMAGE}:
                message = f"there is no node type {kind[:80]!r} here, only those of fopru-graph"
                hint = self._near(kind, self._plans) or self._near(PREFIX + kind, self._plans)
                self._add("unknown-type", message, name, hint=hint or "take it off the canvas, or give its --nodes")
            yield name, (kind, inputs)

    def _add(self, code: str, message: str, node: str, key: str | None = None, hint: str | None = None) -> None:
        self.problems.append(Problem(code, message, node=node, input=key, hint=hint))

    def _near(self, name: str, names: Collection[str]) -> str | None:
        """A hint with the closest name, where that does not take long."""
        return did_you_mean(name[:80], names) if len(self.problems) < _HINTED and len(names) <= 300 else None

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, name: str, plan: NodePlan, inputs: Mapping[str, Any]) -> None:
        entry = GraphNode(name, plan.spec.type)
        slots = {slot.name: slot for slot in plan.slots}
        listed: dict[str, list[tuple[int, Value]]] = {}
        for key, given in inputs.items():
            try:
                slot, number = self._slot(key, slots)
                value = self._linked(given, slot) if isinstance(given, list) else self._literal(given, slot)
                if number is not None:
                    listed.setdefault(slot.name, []).append((number, value))
                elif value is not MISSING:
                    entry.inputs[slot.name] = value
            except _Refused as error:
                code, message, hint = error.args
                told = message if code == "unknown-input" else f"{name}.{key} {message}"
                self._add(code, told, name, key, hint)
        for key, numbered in listed.items():
            refs = [value for _, value in sorted(numbered, key=lambda pair: pair[0])]
            entry.inputs[key] = [ref for value in refs for ref in (value if isinstance(value, list) else [value])]
        for key, slot in slots.items():
            if slot.kind == "link" and slot.optional and slot.socket.required:
                entry.inputs.setdefault(key, None)  # a link that may be missing, where a pipeline says so
            if not slot.socket.required and entry.inputs.get(key, MISSING) == slot.socket.default:
                del entry.inputs[key]
        self.nodes[name] = entry

    def _load_image(self, name: str, inputs: Mapping[str, Any]) -> None:
        plan = self._plans.get(PREFIX + _LOAD_IMAGE)
        if plan is None or not isinstance(inputs.get("image"), str):
            self._add("bad-value", "LoadImage opens a file by its name", name, "image")
        else:
            self._node(name, plan, {"path": inputs["image"]})

    @staticmethod
    def _slot(key: str, slots: Mapping[str, Slot]) -> tuple[Slot, int | None]:
        """The input that a key of the prompt means, and the number of a link of one that grows."""
        if key in slots and not slots[key].growing:
            return slots[key], None
        match = _NUMBERED.fullmatch(key)
        slot = slots.get(match[1]) if match else None
        if match is None or slot is None or not slot.growing or match[2] != slot.member or len(match[3]) > 4:
            names = [f"{name}.{slot.member}0" if slot.growing else name for name, slot in slots.items()]
            _refuse("unknown-input", f"there is no input {key[:80]!r}", hint_choices(key, names))
        return slot, int(match[3])

    def _literal(self, given: Any, slot: Slot) -> Value:
        """A widget's value as a pipeline has it."""
        if slot.kind == "link":
            if given is None and slot.optional:
                return MISSING
            _refuse("bad-value", f"is a link, but is {_short(given)}", "link it to a node's output")
        if slot.kind == "file" and isinstance(given, str):
            given = given.removesuffix(_UPLOADED)
        return _plain(given, slot.from_widget)

    # -- links --------------------------------------------------------------------------------------------------------

    def _linked(self, link: list[Any], slot: Slot) -> Value:
        """What comes over a link: a reference, a list of them, or the value of a primitive."""
        found = self._source(link, ())
        if isinstance(found, Ref) or (isinstance(found, list) and slot.kind == "link"):
            return found
        if isinstance(found, list):
            _refuse("bad-value", "takes no list of pictures")
        return _plain(found[0], lambda value: value) if slot.types == ("*",) else self._literal(found[0], slot)

    def _source(self, link: Any, above: tuple[str, ...]) -> Ref | list[Value] | tuple[Any]:
        """A reference, the references that a node gathers, or the value of a primitive, in a tuple."""
        name, number = _parts(link)
        if name not in self._raw:
            _refuse(
                "unknown-node", f"is linked to node {name[:80]!r}, which there is not", did_you_mean(name, self._raw)
            )
        if name in above:
            _refuse("cycle", f"the nodes wait for each other: {' -> '.join((*above, name))}")
        if len(above) > _LONGEST_CHAIN:
            _refuse("too-deep", f"is linked over more than {_LONGEST_CHAIN} nodes that only pass on")
        kind, inputs = self._raw[name]
        if kind in _VALUES:
            value = inputs.get("value")
            return self._source(value, (*above, name)) if isinstance(value, list) else (value,)
        if kind == _REROUTE:
            return self._source(next(iter(inputs.values()), None), (*above, name))
        if kind == PICTURES.type:
            return self._pictures(inputs, (*above, name))
        return self._output(name, kind, number)

    def _pictures(self, inputs: Mapping[str, Any], above: tuple[str, ...]) -> list[Value]:
        matches = [(match, link) for key, link in inputs.items() if (match := _NUMBERED.fullmatch(key))]
        found: list[Value] = []
        for _, link in sorted(matches, key=lambda pair: (len(pair[0][3]), pair[0][3])):
            source = self._source(link, above)
            if isinstance(source, tuple):
                _refuse("bad-value", f"pictures are gathered, but {_short(source[0])} is none")
            found += source if isinstance(source, list) else [source]
        return found

    def _output(self, name: str, kind: str, number: int) -> Ref:
        plan = self._plans.get(PREFIX + _LOAD_IMAGE if kind == _LOAD_IMAGE else kind)
        if plan is None:
            _refuse("unknown-output", f"is linked to node {name!r} ({kind[:80]}), which is no node of fopru-graph")
        if number >= len(plan.outputs):
            has = ", ".join(f"{index} ({out.name})" for index, out in enumerate(plan.outputs))
            _refuse("unknown-output", f"is linked to output {number} of node {name!r}, which has {has}")
        return Ref(name, plan.outputs[number].output if len(plan.outputs) > 1 else None)


def _parts(link: Any) -> tuple[str, int]:
    """The node's id and the output's number of a link."""
    if not isinstance(link, list):
        _refuse("bad-reference", f"is {_short(link)}, which is no link")
    name, number = link if len(link) == 2 else (None, None)
    if type(name) not in (str, int) or type(number) is not int or number < 0:
        message = f"is {_short(link)}, and a list is a link there: a node's id and the number of its output"
        _refuse("bad-reference", message)
    return str(name), number


def _plain(given: Any, meaning: Callable[[Any], Any]) -> Value:
    """What a value of the prompt means, as a pipeline holds it."""
    try:
        return plain(meaning(given))
    except BadLiteral as error:
        _refuse(error.code, error.message, error.hint)
    except (ValueError, TypeError, RecursionError) as error:
        _refuse("bad-value", f"is {_short(given)}: {error}")


def _refuse(code: str, message: str, hint: str | None = None) -> NoReturn:
    raise _Refused(code, message, hint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
