"""The widget plan: how a node looks on ComfyUI's canvas, derived from its declaration.

The node pack, the API JSON, workflows and a server all read this plan, so that they agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args, get_origin

from fopru_graph import values
from fopru_graph.comfy.nodes import Pictures
from fopru_graph.errors import UserError
from fopru_graph.graph import MISSING, NodeSpec, Registry, Socket
from fopru_graph.graph.annotations import members, strip
from fopru_graph.graph.declare.node import snake_case
from fopru_graph.graph.sockets import BadLiteral

PREFIX = "Fopru"  # of the types of nodes
IMAGE, ANY = "IMAGE", "*"  # ComfyUI's own types
NONE = "none"  # the choice that stands for None
LARGEST = 2**53 - 1  # the largest integer that a JavaScript number holds exactly
MOST = 8  # sockets of an input that grows
STEP = 0.01  # of a number with a fraction

Kind = Literal["link", "int", "float", "bool", "choice", "text", "json", "file"]
_PLAIN = {str: "STRING", int: "INT", float: "FLOAT", bool: "BOOLEAN"}
_INEXPRESSIBLE = ('"exclusiveMinimum"', '"exclusiveMaximum"', '"pattern"', '"multipleOf"')


@dataclass(frozen=True, eq=False)
class Slot:
    """An input as it stands on the canvas: a link, or a widget.

    Attributes:
        kind: ``choice`` offers ``options``; ``file`` a list of names that only the running ComfyUI knows; ``json`` is a
            text that holds JSON, for lists, mappings and numbers of which no sentinel is left.
        types: link types that are accepted; for a widget the one type of links that replace it.
        growing: links of a list; they are called ``pruners.pruner0``, ``pruners.pruner1`` and so on.
        optional: the node runs without a link.
        none: the value of the widget that stands for None, `MISSING` if None is no value.
        minimum: smallest number of the widget (bounds are inclusive there), with ``none`` below the node's own bound.
        checked: a rule is left that the widget does not know, so that `problem` must be asked.
    """

    socket: Socket
    kind: Kind
    types: tuple[str, ...] = ()
    growing: bool = False
    optional: bool = False
    none: Any = MISSING
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    multiline: bool = False
    checked: bool = False

    @property
    def name(self) -> str:
        """The input's name."""
        return self.socket.name

    @property
    def advanced(self) -> bool:
        """Whether the widget is shown on demand."""
        return self.socket.advanced or self.socket.file

    @property
    def member(self) -> str:
        """The name before the number of a growing input's links: ``pruner`` of ``pruners``."""
        return self.name.removesuffix("s")

    @property
    def default(self) -> Any:
        """The widget's value on a new node."""
        if not self.socket.required:
            return self.to_widget(self.socket.default_value())
        if self.kind in ("text", "json", "file"):
            return ""
        if self.kind == "choice":
            return self.options[0]
        return False if self.kind == "bool" else self.minimum or 0

    def to_widget(self, value: Any) -> Any:
        """What the widget shows for a literal of the pipeline.

        Raises:
            BadLiteral: no value of the widget means this literal.
        """
        if value is None and self.none is not MISSING:
            return self.none
        if self.kind == "json":
            return json.dumps(value, ensure_ascii=False)
        wanted = (int, float) if self.kind in ("int", "float", "bool") else str
        stands_for_none = value == self.none and not isinstance(value, bool)
        if not isinstance(value, wanted) or stands_for_none:
            message = f"cannot be {json.dumps(value, ensure_ascii=False)[:60]} on a canvas"
            raise BadLiteral("bad-value", message, "give it one value" if isinstance(value, list) else None)
        return value

    def from_widget(self, value: Any) -> Any:
        """The literal that the widget's value means, as the node gets it.

        Raises:
            BadLiteral: it is no value of this input.
        """
        if self.none is not MISSING and value == self.none and not isinstance(value, bool):
            return None
        if self.kind == "json":
            try:
                value = json.loads(value)
            except (ValueError, TypeError):
                raise BadLiteral("bad-value", f"is no JSON: {str(value)[:60]}", self._json_hint) from None
        if self.kind == "float" and self._whole and isinstance(value, float) and value.is_integer():
            value = int(value)
        return self.socket.read(value)

    def problem(self, value: Any) -> str | None:
        """One sentence on what is wrong with the widget's value, or None."""
        try:
            self.from_widget(value)
        except BadLiteral as error:
            return f"{self.name} {error.message}" + (f" ({error.hint})" if error.hint else "")
        return None

    @cached_property
    def _whole(self) -> bool:
        """Whether whole numbers are integers to the node."""
        return int in map(strip, members(self.socket.annotation))

    @property
    def _json_hint(self) -> str:
        listed = any(get_origin(part) is list for part in members(self.socket.annotation))
        return 'write a list, e.g. ["a", "b"] or [1, 2]' if listed else "write a number, or leave it empty"


@dataclass(frozen=True)
class Out:
    """An output on the canvas: its name there, its link type, and the name of the node's output."""

    name: str
    type: str
    output: str


@dataclass(frozen=True, eq=False)
class NodePlan:
    """A node type on the canvas."""

    spec: NodeSpec
    slots: tuple[Slot, ...]
    outputs: tuple[Out, ...]

    @property
    def type(self) -> str:
        """The node's type in ComfyUI."""
        return PREFIX + self.spec.type

    @property
    def title(self) -> str:
        """The name that is shown."""
        return f"{self.spec.type} (FoPru)"

    @property
    def category(self) -> str:
        """The menu that it stands in."""
        return f"fopru/{self.spec.category}"

    @property
    def answers(self) -> bool:
        """Whether it makes a text that is shown on the node, also when its outputs come from a cache."""
        return not self.spec.output and any(out.type == "STRING" for out in self.outputs)

    @property
    def widgets(self) -> tuple[Slot, ...]:
        """The inputs that are widgets, in the order of a workflow's ``widgets_values``."""
        return tuple(slot for slot in self.slots if slot.kind != "link")

    def slot(self, name: str) -> Slot:
        """The input of this name; raises KeyError."""
        return {slot.name: slot for slot in self.slots}[name]

    def index(self, output: str | None) -> int:
        """The position of one of the node's outputs, as links count them; None is the only one."""
        return 0 if output is None else [out.output for out in self.outputs].index(output)


def plans(registry: Registry) -> Mapping[str, NodePlan]:
    """The plans of all node types and of `Pictures`, by their type in ComfyUI.

    Raises:
        UserError: the registry has a node type of that name, too.
    """
    types = registry.types()
    if PICTURES.spec.type in types:
        raise UserError(
            f"{types[PICTURES.spec.type].source}: ComfyUI's canvas has a node Pictures already", "rename it"
        )
    return {plan.type: plan for plan in (*map(plan_of, types.values()), PICTURES)}


def plan_of(spec: NodeSpec) -> NodePlan:
    """How a node type looks on the canvas."""
    return NodePlan(spec, tuple(map(_slot, spec.inputs.values())), tuple(_outputs(spec)))


def link_type(annotation: Any) -> str:
    """The type of links that carry such a value; a list goes by its elements."""
    annotation = strip(annotation)
    if get_origin(annotation) is list:
        return link_type(get_args(annotation)[0])
    if annotation is Any:
        return ANY
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if annotation.__module__.partition(".")[0] == "PIL":
        return IMAGE
    return f"FOPRU_{snake_case(annotation.__name__).upper()}"


def _outputs(spec: NodeSpec) -> list[Out]:
    found = []
    for name, socket in spec.outputs.items():
        types = [link_type(part) for part in members(socket.annotation)]
        kind = IMAGE if IMAGE in types else types[0]  # a picture's path is of no use on a canvas
        shown = {ANY: "any"}.get(kind, kind.removeprefix("FOPRU_").lower()) if name == "output" else name
        found.append(Out(shown, kind, name))
    return found


def _slot(socket: Socket) -> Slot:
    parts = [strip(part) for part in members(socket.annotation)]
    nullable = type(None) in parts
    parts = [part for part in parts if part is not type(None)]
    if socket.is_link_only or parts == [Any]:
        return _link(socket, parts, nullable)
    if socket.choices:
        options = (NONE, *socket.choices) if nullable else tuple(socket.choices)
        return Slot(socket, "choice", ("COMBO",), none=NONE if nullable else MISSING, options=options)
    if bool in parts:
        return Slot(socket, "bool", ("BOOLEAN",))
    if float in parts or int in parts:
        return _number(socket, parts, nullable)
    if str in parts:
        kind: Kind = "file" if socket.path is not None else "text"
        long = socket.path is None and not socket.file and any(get_origin(part) is list for part in parts)
        none = "" if nullable else MISSING
        return Slot(
            socket, kind, ("STRING",), none=none, multiline=long or socket.name == "prompt", checked=_checked(socket)
        )
    return Slot(socket, "json", ("STRING",), none="" if nullable else MISSING, multiline=True, checked=True)


def _link(socket: Socket, parts: list[Any], nullable: bool) -> Slot:
    """An input that only links fill. A list of values is several links, unless a single value does as well."""
    single = any(get_origin(part) is not list for part in parts)
    types = list(dict.fromkeys(name for part in parts for name in _types_of(part)))
    return Slot(socket, "link", tuple(types), growing=not single, optional=nullable or not socket.required)


def _types_of(part: Any) -> list[str]:
    if get_origin(part) is list:
        return [name for member in members(get_args(part)[0]) for name in _types_of(member)]
    return [link_type(part), *([IMAGE] if part is values.Image else [])]


def _number(socket: Socket, parts: list[Any], nullable: bool) -> Slot:
    """A number; None is the number below its smallest. Without a smallest none is left for None: a text holds it."""
    schema = socket.json_schema()
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") in ("integer", "number")]
    lowest = [kind.get("minimum", kind.get("exclusiveMinimum")) for kind in kinds]
    highest = [kind.get("maximum", kind.get("exclusiveMaximum")) for kind in kinds]
    if nullable and None in lowest:
        return Slot(socket, "json", ("STRING",), none="", checked=True)
    whole = float not in parts
    limit = float(LARGEST) if whole else 1e9
    low = -limit if None in lowest else min(lowest)
    # An integer above 1 may stand beside a share below 1: the widget's bounds are those of both.
    high = limit if None in highest else max(highest)
    none: Any = MISSING
    if nullable:
        none = low - 1 if whole or not any("exclusiveMinimum" in kind for kind in kinds) else low
        low = none
    elif not whole and any("exclusiveMinimum" in kind for kind in kinds) and len(kinds) == 1:
        low += STEP / 10  # an open bound: what is below is told by `problem`
    kind, bounds = ("int", map(int, (low, high))) if whole else ("float", (low, high))
    low, high = bounds
    step = None if whole else STEP if len(kinds) == 1 else 1
    return Slot(
        socket, kind, (kind.upper(),), none=none, minimum=low, maximum=high, step=step, checked=_checked(socket)
    )  # fmt: skip


def _checked(socket: Socket) -> bool:
    """Whether the JSON Schema of the literals says more than a widget can."""
    schema = json.dumps(socket.json_schema())
    return any(word in schema for word in _INEXPRESSIBLE)


PICTURES = plan_of(Pictures.spec)  # no node type of pipelines, so no registry has it
