"""The types of sockets: their names, which output fits which input, and which literals a type accepts."""

from __future__ import annotations

import enum
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

_SCALARS: tuple[Any, ...] = (str, int, float, bool, type(None), Path)
_CONTAINERS = (list, dict, tuple)


def strip(annotation: Any) -> Any:
    """The annotation without ``Annotated`` around it."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return type(None) if annotation is None else annotation


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union; for any other type only the type itself."""
    annotation = strip(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for member in get_args(annotation) for inner in members(member))
    return (annotation,)


def type_name(annotation: Any) -> str:
    """The type as a reader would write it: ``float``, ``list[InLLMPruner]``, ``Image | list[Image]``."""
    parts = members(annotation)
    if len(parts) > 1:
        return " | ".join(type_name(part) for part in parts)
    annotation = parts[0]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "None"
    if origin is Literal:
        return " | ".join(repr(choice) for choice in arguments)
    if origin is not None and arguments:
        return f"{getattr(origin, '__name__', origin)}[{', '.join(type_name(item) for item in arguments)}]"
    if annotation is Ellipsis:
        return "..."
    return str(getattr(annotation, "__name__", annotation))


def compatible(source: Any, target: Any) -> bool:
    """Whether every value of type ``source`` is accepted where ``target`` is expected.

    Any fits both ways, a subclass fits its base class, and an int fits a float. A float does not fit an int, and a bool
    does not fit a number.
    """
    if strip(source) is Any or strip(target) is Any:
        return True
    return all(any(_fits(given, wanted) for wanted in members(target)) for given in members(source))


def _fits(source: Any, target: Any) -> bool:
    if source is Any or target is Any or source == target:
        return True
    origins = get_origin(source) or source, get_origin(target) or target
    if Literal in origins:
        return _literal_fits(source, target)
    if origins[0] is bool and origins[1] in (int, float):
        return False
    if origins == (int, float):
        return True
    if not (isinstance(origins[0], type) and isinstance(origins[1], type) and issubclass(*origins)):
        return False
    return _arguments_fit(get_args(source), get_args(target))


def _literal_fits(source: Any, target: Any) -> bool:
    if get_origin(source) is not Literal:
        return False
    choices = get_args(source)
    if get_origin(target) is Literal:
        return set(choices) <= set(get_args(target))
    return all(_fits(type(choice), target) for choice in choices)


def _arguments_fit(source: tuple[Any, ...], target: tuple[Any, ...]) -> bool:
    """Nodes do not change the containers they get, so element types may narrow; an unknown element type fits any."""
    if not source or not target:
        return True
    if Ellipsis in target:
        return all(compatible(item, target[0]) for item in source if item is not Ellipsis)
    return len(source) == len(target) and all(compatible(*pair) for pair in zip(source, target, strict=True))


def item_type(annotation: Any, container: type) -> Any | None:
    """The type of the elements of a list (or of the values of a dict) given for this type; None if it is refused."""
    items: list[Any] = []
    for member in members(annotation):
        if member is Any or member is container:
            items.append(Any)
        elif get_origin(member) in ((container, tuple) if container is list else (container,)):
            arguments = [item for item in get_args(member) if item is not Ellipsis]
            items += arguments if container is list else arguments[1:]
    if not items:
        return None
    return Any if Any in items else Union[tuple(items)]  # noqa: UP007 - built at run time


def choices_of(annotation: Any) -> list[Any]:
    """The values that a literal may have if the type lists them (Literal, Enum), otherwise none."""
    choices: list[Any] = []
    for member in members(annotation):
        if get_origin(member) is Literal:
            choices += get_args(member)
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            choices += [choice.value for choice in member]
    return choices


class LinkOnly:
    """Replaces, for the validation of literals, a type that has no literals: only a reference can be given for it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """A schema that refuses every literal."""

        def refuse(value: object) -> object:
            raise PydanticCustomError("link_only", "only a reference to a node is possible")

        return core_schema.no_info_plain_validator_function(refuse)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """References are strings that begin with one dollar."""
        return {"type": "string", "pattern": r"^\$[A-Za-z_]"}


def literal_type(annotation: Any) -> Any:
    """The annotation with `LinkOnly` in place of every class that has no literals; bounds and choices stay."""
    if get_origin(annotation) is Annotated:
        inner, *extra = get_args(annotation)
        return Annotated[(literal_type(inner), *extra)]
    annotation = strip(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [literal_type(member) for member in get_args(annotation)]
        kept = [part for part in parts if part is not LinkOnly]
        return Union[tuple(kept)] if kept else LinkOnly  # noqa: UP007 - built at run time
    origin = get_origin(annotation)
    if origin in _CONTAINERS:
        return origin[tuple(item if item is Ellipsis else literal_type(item) for item in get_args(annotation))]
    if annotation is Any or origin is Literal or annotation in (*_SCALARS, *_CONTAINERS):
        return annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, enum.Enum) else LinkOnly


def is_link_only(annotation: Any) -> bool:
    """Whether this type accepts no literal but None or an empty list."""
    inner = strip(annotation)
    if inner is LinkOnly:
        return True
    if len(parts := members(inner)) > 1:
        return all(is_link_only(part) for part in parts if part is not type(None))
    if get_origin(inner) in _CONTAINERS:
        arguments = [item for item in get_args(inner) if item is not Ellipsis]
        return bool(arguments) and is_link_only(arguments[-1])
    return literal_type(inner) is LinkOnly
