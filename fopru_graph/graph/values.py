"""The values of node inputs: JSON trees that may hold references to the outputs of other nodes."""

from __future__ import annotations

import enum
import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from fopru_graph import describing

MAX_DEPTH = 64  # levels of nesting in a file
MAX_VALUE_DEPTH = 56  # levels of nesting in one input, which itself is some levels deep in its file
MAX_INTEGER = 2**63 - 1
INPUTS = "inputs"  # the reserved name that stands for the pipeline's inputs: $inputs.ratio

# None, bool, int, float, str, Ref, and lists and string-keyed dicts of these
Value: TypeAlias = Any

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_REFERENCE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_/-]*)(?:\.([A-Za-z_][A-Za-z0-9_-]*))?")


# -- references -------------------------------------------------------------------------------------------------------


class Link:
    """Anything that stands for an output of a node."""

    def _as_ref(self) -> Ref:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Ref(Link):
    """A reference to an output of a node, written ``$node.output``, or ``$node`` for a node with a single output."""

    node: str
    output: str | None = None

    def _as_ref(self) -> Ref:
        return self

    def __str__(self) -> str:
        return f"${self.node}" if self.output is None else f"${self.node}.{self.output}"


@dataclass(frozen=True, eq=False)
class Given:
    """An object that was given in Python where a file has a literal, for a socket that `takes` it. No file holds it.

    ``identity`` tells it from every other one, in other processes too. Copies are the same object.
    """

    value: Any
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __deepcopy__(self, memo: dict[int, Any]) -> Given:
        return self

    def __str__(self) -> str:
        """What records of runs say in its place."""
        return f"given:{type(self.value).__name__}:{self.identity[:8]}"


def unwrapped(value: Any) -> Any:
    """The object of a `Given`; any other value itself."""
    return value.value if isinstance(value, Given) else value


class Marker:
    """A constant of this module that stands where a value is absent."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    __reduce__ = __repr__  # copies and pickles are the same object


MISSING = Marker("MISSING")  # the default of an input that must be given
INVALID = Marker("INVALID")  # replaces a value that was already reported as a problem


def parse_reference(text: str) -> Ref | None:
    """The reference that ``$node``, ``$node.output`` or ``$inputs.name`` means; None for any other text."""
    match = _REFERENCE.fullmatch(text)
    if match is None or (match[1] == INPUTS and match[2] is None):
        return None
    return Ref(match[1], match[2])


def escape_dollars(value: Value) -> Value:
    """The value as a file holds it: a text that begins with a dollar gets a second one, so that it is no reference."""
    return _map_leaves(value, lambda leaf: f"${leaf}" if isinstance(leaf, str) and leaf.startswith("$") else leaf)


# -- trees ------------------------------------------------------------------------------------------------------------


def plain(value: Any, depth: int = 0) -> Value:
    """A deep copy of ``value`` as a JSON tree with references; handles become `Ref`, tuples become lists.

    Raises ValueError for a value that a pipeline file cannot hold: another object, nan or inf, an integer of more than
    64 bits, or nesting deeper than `MAX_VALUE_DEPTH`.
    """
    if depth > MAX_VALUE_DEPTH:
        raise ValueError(f"nested deeper than {MAX_VALUE_DEPTH} levels")
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, Link):
        return value._as_ref()
    if isinstance(value, Given) and not depth:
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("the keys of a mapping must be strings")
        return {_text(key): plain(item, depth + 1) for key, item in value.items()}
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Value:
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        return _text(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError("an integer must fit in 64 bits")
    if value is None or type(value) in (bool, int, float):
        return value
    raise ValueError(f"{type(value).__name__} is neither a plain value nor a reference to a node")


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text is not UTF-8; rename the file if it is the name of one") from None
    return text


def _leaves(value: Value, path: str = "") -> Iterator[tuple[str, Value]]:
    """Everything in a value that is no list or mapping, with its path."""
    stack = [(path, value)]
    while stack:
        where, item = stack.pop()
        if isinstance(item, list):
            stack.extend((f"{where}[{index}]", child) for index, child in reversed(list(enumerate(item))))
        elif isinstance(item, dict):
            stack.extend((f"{where}.{key}", child) for key, child in reversed(list(item.items())))
        else:
            yield where, item


def given_in(value: Value) -> bool:
    """Whether the value is or holds an object that was given in Python."""
    return any(isinstance(leaf, Given) for _, leaf in _leaves(value))


def refs_in(value: Value, path: str = "") -> Iterator[tuple[str, Ref]]:
    """Every reference in a value with its path, which is ``path`` followed by ``[0]`` or ``.key`` for every level."""
    return ((where, leaf) for where, leaf in _leaves(value, path) if isinstance(leaf, Ref))


def linked_nodes(inputs: Mapping[str, Value], names: Iterable[str]) -> frozenset[str]:
    """The nodes that the inputs of these ``names`` are linked to."""
    return frozenset(ref.node for name in names for _, ref in refs_in(inputs[name]))


def with_ancestors(nodes: Iterable[str], parents: Callable[[str], Iterable[str]]) -> set[str]:
    """The nodes and all above them, by what each one's ``parents`` are."""
    found: set[str] = set()
    stack = list(nodes)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(parents(name))
    return found


def has_refs(value: Value) -> bool:
    """Whether the value is or holds a reference."""
    return any(True for _ in refs_in(value))


def has_invalid(value: Value) -> bool:
    """Whether the value is or holds `INVALID`."""
    return any(leaf is INVALID for _, leaf in _leaves(value))


def replace_refs(value: Value, replacement: Callable[[Ref], Any]) -> Any:
    """A copy of the value with every reference replaced."""
    return _map_leaves(value, lambda leaf: replacement(leaf) if isinstance(leaf, Ref) else leaf)


def _map_leaves(value: Value, change: Callable[[Value], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return [_map_leaves(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _map_leaves(item, change) for key, item in value.items()}
    return change(value)


def tagged(value: Any, reference: Callable[[Ref], Any] = str) -> Any:
    """A JSON form in which values of different types differ (1, 1.0, "1", True); the order of keys does not matter."""
    if isinstance(value, Ref):
        return ["ref", reference(value)]
    if isinstance(value, Given):
        return ["given", value.identity]
    if isinstance(value, enum.Enum):
        return ["enum", tagged(value.value)]
    if isinstance(value, (list, tuple)):
        return ["list", [tagged(item, reference) for item in value]]
    if isinstance(value, dict):
        return ["dict", [[str(key), tagged(value[key], reference)] for key in sorted(value, key=str)]]
    if value is None or isinstance(value, (bool, str)):
        return [type(value).__name__, value]
    return [type(value).__name__ if not isinstance(value, Path) else "Path", repr(value)]


# -- descriptions -----------------------------------------------------------------------------------------------------


def describe(value: Any) -> str:
    """A value in a few words, see `describing.describe`."""
    words = describing.describe(unwrapped(value))
    return f"{words}, given in Python" if isinstance(value, Given) else words
