"""One input of a node on the canvas: a link or a widget, and what the widget's values mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from fopru_graph import values
from fopru_graph.graph import MISSING, Socket
from fopru_graph.graph.annotations import members, strip
from fopru_graph.graph.declare.node import snake_case
from fopru_graph.graph.sockets import BadLiteral

IMAGE, ANY = "IMAGE", "*"  # ComfyUI's own types
PLAIN = {str: "STRING", int: "INT", float: "FLOAT", bool: "BOOLEAN"}
NONE = "none"  # the choice that stands for None
LARGEST = 2**53 - 1  # the largest integer that a JavaScript number holds exactly
# Of a number with a fraction. The frontend shows, and rounds what is typed to, as many digits as the step's order of
# magnitude has, whatever `round` says (1.58.1): 0.01 would turn 0.111 into 0.11.
STEP, DIGITS = 0.005, 3
OPEN = 0.001  # how near a widget comes to a bound that is no value itself
LONG = ("prompt", "system")  # texts of several lines

Kind = Literal["link", "int", "float", "bool", "choice", "text", "json", "file"]
_INEXPRESSIBLE = ('"exclusiveMinimum"', '"exclusiveMaximum"', '"pattern"', '"multipleOf"', '"minLength"', '"maxLength"')


@dataclass(frozen=True, eq=False)
class Slot:
    """An input as it stands on the canvas: a link, or a widget.

    Attributes:
        kind: ``choice`` offers ``options``; ``file`` a list of names that only the running ComfyUI knows; ``json`` is a
            text that holds JSON, for lists, mappings and what no other widget can show without loss.
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
    def tooltip(self) -> str:
        """What the input is, and which value of a widget that is never empty stands for None."""
        empty = "" if self.none in ("", MISSING) else f"{self.none:g}" if self.step else str(self.none)
        return "; ".join(part for part in (self.socket.doc, f"{empty} stands for empty" if empty else "") if part)

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
        return False if self.kind == "bool" else max(self.minimum or 0, 0)

    def to_widget(self, value: Any) -> Any:
        """What the widget shows for a literal of the pipeline.

        Raises:
            BadLiteral: no value of the widget means this literal.
        """
        if value is None and self.none is not MISSING:
            return self.none
        if self.kind == "json":
            return json.dumps(value, ensure_ascii=False)
        fits = isinstance(value, (int, float) if self.kind in ("int", "float", "bool") else str)
        if not fits or self._stands_for_none(value):
            message = f"cannot be {json.dumps(value, ensure_ascii=False)[:60]} on a canvas"
            raise BadLiteral("bad-value", message, "give it one value" if isinstance(value, list) else None)
        return value

    def from_widget(self, value: Any) -> Any:
        """The literal that the widget's value means, as the node gets it.

        Raises:
            BadLiteral: it is no value of this input.
        """
        if self._stands_for_none(value):
            return None
        if self.kind != "json":
            return self.socket.read(value)
        try:
            literal = json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            why = f"is no JSON: {value[:60]}" if value.strip() else "is empty"
            raise BadLiteral("bad-value", why, self._json_hint) from None
        return self.socket.read(literal)

    def problem(self, value: Any) -> str | None:
        """One sentence on what is wrong with the widget's value, or None."""
        try:
            self.from_widget(value)
        except BadLiteral as error:
            return f"{self.name} {error.message}" + (f" ({error.hint})" if error.hint else "")
        return None

    def _stands_for_none(self, value: Any) -> bool:
        if self.none is MISSING or isinstance(value, bool):
            return False
        return bool(value == self.none) or (self.kind == "json" and isinstance(value, str) and not value.strip())

    @property
    def _json_hint(self) -> str:
        parts = [strip(part) for part in members(self.socket.annotation)]
        kind = "JSON"
        if any(get_origin(part) is list for part in parts):
            kind = 'a list, e.g. ["a", "b"] or [1, 2]'
        elif int in parts or float in parts:
            kind = "a number"
        return f"write {kind}" + ("" if self.none is MISSING else ", or leave it empty")


def link_type(annotation: Any) -> str:
    """The type of links that carry such a value; a list goes by its elements, a union by its first member."""
    annotation = next((part for part in members(annotation) if part is not type(None)), Any)
    if get_origin(annotation) is list:
        return link_type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return link_type(type(get_args(annotation)[0]))
    if annotation is Any:
        return ANY
    if annotation in PLAIN:
        return PLAIN[annotation]
    if annotation.__module__.partition(".")[0] == "PIL":
        return IMAGE
    return f"FOPRU_{snake_case(annotation.__name__).upper()}"


def slot_of(socket: Socket) -> Slot:
    """How an input looks, by its annotation."""
    parts = [strip(part) for part in members(socket.annotation)]
    nullable = type(None) in parts
    parts = [part for part in parts if part is not type(None)]
    if socket.is_link_only or parts == [Any]:
        return _link(socket, parts, nullable)
    slot = _choice(socket, parts, nullable) or _plain(socket, parts, nullable)
    return slot if slot is not None and _shows_default(slot) else _json(socket, nullable)


def _shows_default(slot: Slot) -> bool:
    """Whether the widget can hold the default: not a list for a text, not 1e-6 for a number of three digits."""
    try:
        default = slot.default
    except BadLiteral:
        return False
    if slot.minimum is None or slot.maximum is None:
        return True
    return slot.minimum <= default <= slot.maximum and (slot.step is None or round(default, DIGITS) == default)


def _link(socket: Socket, parts: list[Any], nullable: bool) -> Slot:
    """An input that only links fill. A list of values is several links, unless a single value does as well."""
    single = any(get_origin(part) is not list for part in parts)
    types = list(dict.fromkeys(name for part in parts for name in _types_of(part)))
    return Slot(socket, "link", tuple(types), growing=not single, optional=nullable or not socket.required)


def _types_of(part: Any) -> list[str]:
    if get_origin(part) is list:
        return [name for member in members(get_args(part)[0]) for name in _types_of(member)]
    return [link_type(part), *([IMAGE] if part is values.Image else [])]


def _choice(socket: Socket, parts: list[Any], nullable: bool) -> Slot | None:
    """A list of texts, if the type has nothing but these."""
    listed = all(get_origin(part) is Literal or (isinstance(part, type) and issubclass(part, Enum)) for part in parts)
    texts = all(isinstance(choice, str) for choice in socket.choices)
    if not (listed and texts) or (nullable and NONE in socket.choices):
        return None
    options = (NONE, *socket.choices) if nullable else tuple(socket.choices)
    return Slot(socket, "choice", ("COMBO",), none=NONE if nullable else MISSING, options=options)


def _plain(socket: Socket, parts: list[Any], nullable: bool) -> Slot | None:
    """A widget of ComfyUI's own for a bool, a number or a text."""
    if parts == [bool]:
        return None if nullable else Slot(socket, "bool", ("BOOLEAN",))
    if parts in ([int], [float]):
        return _number(socket, parts == [int], nullable)
    if str not in parts or any(part is not str and get_origin(part) is not list for part in parts):
        return None
    none = "" if nullable else MISSING
    if socket.path is not None:
        return Slot(socket, "file", ("COMBO",), none=none, checked=_checked(socket))
    long = not socket.file and (len(parts) > 1 or socket.name in LONG)
    return Slot(socket, "text", ("STRING",), none=none, multiline=long, checked=_checked(socket))


def _json(socket: Socket, nullable: bool) -> Slot:
    schema = socket.json_schema()
    long = any(kind.get("type") in ("array", "object") for kind in schema.get("anyOf", [schema]))
    return Slot(socket, "json", ("STRING",), none="" if nullable else MISSING, multiline=long, checked=True)


def _number(socket: Socket, whole: bool, nullable: bool) -> Slot | None:
    """A number; None is the one below its smallest. Without a smallest none is left for None."""
    low, high, opened = _bounds(socket, whole)
    if nullable and low is None:
        return None
    limit = float(LARGEST) if whole else 1e9
    minimum = max(-limit if low is None else low, -limit)
    maximum = min(limit if high is None else high, limit)
    none: Any = MISSING
    gap = False
    if nullable:
        gap = not (whole or opened)  # of numbers between None and the bound
        none = minimum = minimum if opened else minimum - 1
    elif opened:
        minimum += OPEN
    if whole:
        minimum, maximum = int(minimum), int(maximum)
        none = none if none is MISSING else int(none)
    kind: Kind = "int" if whole else "float"
    return Slot(
        socket, kind, (kind.upper(),), none=none, minimum=minimum, maximum=maximum, step=None if whole else STEP,
        checked=gap or _checked(socket),
    )  # fmt: skip


def _bounds(socket: Socket, whole: bool) -> tuple[float | None, float | None, bool]:
    """The smallest and the largest value, and whether the smallest is just not one: integers have no such bounds."""
    schema = socket.json_schema()
    schema = next((kind for kind in schema.get("anyOf", [schema]) if kind.get("type") in ("integer", "number")), {})
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if whole:
        low = above + 1 if above is not None else low
        return low, below - 1 if below is not None else high, False
    return above if above is not None else low, below if below is not None else high, above is not None


def _checked(socket: Socket) -> bool:
    """Whether the JSON Schema of the literals says more than a widget can."""
    schema = json.dumps(socket.json_schema())
    return any(word in schema for word in _INEXPRESSIBLE)
