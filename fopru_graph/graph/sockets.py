"""One input or output of a node type, and the validation of the literals given for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from fopru_graph.graph.annotations import LinkOnly, choices_of, is_link_only, literal_type, type_name
from fopru_graph.graph.errors import did_you_mean
from fopru_graph.graph.values import MISSING
from fopru_graph.paths import absolute_path

FileKind = Literal["file", "image", "video", "model", "tokens"]
_RANGE = ("greater_than", "less_than", "too_short", "too_long", "multiple_of", "pattern_mismatch")


class BadLiteral(ValueError):
    """A literal that does not fit its socket: the problem's code, message and hint."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        self.code, self.message, self.hint = code, message, hint
        super().__init__(message)


@dataclass(frozen=True)
class InputPath:
    """``Annotated[str, InputPath()]`` marks the path of a file or folder that a node reads, or a list of such.

    A relative path in a pipeline's file is relative to that file. With ``or_name`` the text may as well be a name, see
    `fopru_graph.paths.absolute_path`. ``kind`` says what is read, for those who offer the files there are.
    """

    or_name: bool = False
    kind: FileKind = "file"

    def place(self, value: Any, folder: Path | None) -> Any:
        """The value with absolute paths; what is no text stays as it is."""
        if isinstance(value, list):
            return [self.place(item, folder) for item in value]
        return absolute_path(value, folder, or_name=self.or_name) if isinstance(value, str) else value


@dataclass(frozen=True, eq=False)
class Socket:
    """A named, typed input or output.

    ``annotation`` keeps pydantic bounds; ``default`` is `MISSING` for a required input; a ``lazy`` input is evaluated
    only when the node asks for it; a ``file`` names what the node writes to the output folder; a ``path`` is one that
    it reads. ``takes`` tells which objects may be given in Python in place of a literal. ``advanced``: rarely changed.
    """

    name: str
    annotation: Any
    default: Any = MISSING
    lazy: bool = False
    doc: str = ""
    file: bool = False
    path: InputPath | None = None
    takes: Callable[[object], bool] | None = None
    advanced: bool = False

    @property
    def required(self) -> bool:
        """Whether an input has no default."""
        return self.default is MISSING

    @cached_property
    def type_name(self) -> str:
        """The type as a reader would write it, e.g. ``float`` or ``list[InLLMPruner]``."""
        return type_name(self.annotation)

    @cached_property
    def is_link_only(self) -> bool:
        """Whether only a reference can be given (apart from None or an empty list)."""
        return is_link_only(self.annotation)

    @cached_property
    def choices(self) -> list[Any]:
        """The values that a literal may have if the type lists them, otherwise none."""
        return choices_of(self.annotation)

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """The validator of this socket's literals."""
        return literal_adapter(self.annotation)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the literals, with default and description; a link-only type is a reference string."""
        schema = dict(self.adapter.json_schema())
        if self.doc:
            schema["description"] = self.doc
        if not self.required and not self.is_link_only:
            schema["default"] = json.loads(self.adapter.dump_json(self.default))
        return schema

    def takes_object(self, value: object) -> bool:
        """Whether the object may be given in Python."""
        return self.takes is not None and self.takes(value)

    def default_value(self) -> Any:
        """A fresh copy of the default."""
        return copy.deepcopy(self.default)

    def read(self, value: Any) -> Any:
        """The JSON value ``value`` as the node's ``run`` gets it (an int becomes a float where one is expected).

        Raises `BadLiteral` for a wrong type, a value out of range, or a value that is no choice.
        """
        return read_literal(self.annotation, value, self.adapter)


def literal_adapter(annotation: Any) -> TypeAdapter[Any]:
    """A validator of the literals that a type accepts."""
    return TypeAdapter(literal_type(annotation))


def read_literal(annotation: Any, value: Any, adapter: TypeAdapter[Any] | None = None) -> Any:
    """The JSON value as the annotation's type, by pydantic's strict rules; raises `BadLiteral`."""
    try:
        return (adapter or literal_adapter(annotation)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise _bad_literal(error, annotation, value) from None


def _bad_literal(error: ValidationError, annotation: Any, value: Any) -> BadLiteral:
    """The most telling of pydantic's errors: a bound or a choice says more than the types of a union's members."""
    details = error.errors(include_url=False, include_context=False)
    name = type_name(annotation)
    for detail in details:
        if any(part in detail["type"] for part in _RANGE):
            indices = "".join(f"[{part}]" for part in detail["loc"] if isinstance(part, int))
            element = f"element {indices} " if indices else ""
            return BadLiteral("out-of-range", f"{element}{_lower(detail['msg'])}, but is {_show(detail['input'])}")
    choices = choices_of(annotation)
    if choices and any(detail["type"] in ("literal_error", "enum") for detail in details):
        hint = did_you_mean(value, [str(choice) for choice in choices]) if isinstance(value, str) else None
        message = f"must be one of {', '.join(map(repr, choices))}, but is {_show(value)}"
        return BadLiteral("not-a-choice", message, hint)
    if literal_type(annotation) is LinkOnly or all(detail["type"] == "link_only" for detail in details):
        message = f"expects {name} from another node, but is the value {_show(value)}"
        return BadLiteral("bad-value", message, "write $node")
    return BadLiteral("bad-value", f"expects {name}, but is {_show(value)}", _type_hint(name, value))


def _lower(text: str) -> str:
    return text.replace("Input should be", "must be").replace("List should", "must").replace("String should", "must")


def _type_hint(name: str, value: Any) -> str | None:
    if isinstance(value, str) and ("float" in name or "int" in name):
        try:
            float(value)
        except ValueError:
            return None
        return "write the number without quotes"
    if name.startswith("list[") and not isinstance(value, list):
        return "write a list: [first, second]"
    if "str" in name and isinstance(value, (bool, int, float)):
        return "put the text in quotes"
    return None


def _show(value: Any) -> str:
    """A literal for a message: short, with its type where the text alone is ambiguous."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > 60:
        text = text[:57] + "…"
    kind = {str: "text", bool: "a bool", list: "a list", dict: "a mapping"}.get(type(value))
    return f"{text} ({kind})" if kind else text
