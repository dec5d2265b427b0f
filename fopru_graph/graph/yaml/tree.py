"""YAML text to a tree of values with line numbers: one pass over libyaml's events that makes no objects from tags.

PyYAML's loaders will not do: they keep the last of duplicate keys, read YAML 1.1 scalars (``no`` is False), recurse,
and expand aliases without limit. Here, plain scalars follow the core schema of YAML 1.2: ``no`` is a string and
``1e-3`` a float.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from fopru_graph.graph.errors import PipelineError, Problem
from fopru_graph.graph.values import INVALID, MAX_DEPTH, MAX_INTEGER, Value

MAX_BYTES = 2**20
MAX_VALUES = 20_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {
    text: value for value, word in ((True, "true"), (False, "false")) for text in (word, word.title(), word.upper())
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LONGEST_NUMBER = 400


@dataclass
class Scalar:
    """A scalar: its ``value`` and its ``text`` in the file; ``plain`` if it is not quoted."""

    value: Any
    text: str
    line: int
    plain: bool = False
    size: int = 1
    height: int = 0


@dataclass
class Sequence:
    """A list; ``size`` counts its values (not keys) with aliases expanded, ``height`` the levels of nesting in it."""

    line: int
    items: list[Located] = field(default_factory=list)
    size: int = 1
    height: int = 1


@dataclass
class Mapping:
    """A mapping in the order of its keys."""

    line: int
    items: dict[str, tuple[Scalar, Located]] = field(default_factory=dict)
    size: int = 1
    height: int = 1


Located: TypeAlias = Scalar | Sequence | Mapping


@dataclass
class _Open:
    """A collection whose end the parser has not reached, and the key whose value comes next."""

    node: Sequence | Mapping
    anchor: str | None
    key: Scalar | None = None
    keep: bool = True  # False if the key was refused, so that its value is dropped


def compose(data: str | bytes, file: str | None = None) -> tuple[Located | None, list[Problem]]:
    """The tree of a document (None if it is empty) and the problems that do not prevent reading it.

    Raises `PipelineError` if there is no tree: the text is not UTF-8 or not YAML, or too large or too deep.
    """
    composer = _Composer()
    text = ""
    try:
        text = _decode(data)
        composer.read(text)
    except yaml.YAMLError as error:
        composer.problems.append(_syntax_problem(error, text))
    except PipelineError as error:
        composer.problems += error.problems
    else:
        return composer.root, composer.problems
    raise PipelineError(composer.problems, file)


def _decode(data: str | bytes) -> str:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) > MAX_BYTES:
        raise _stop("too-large", f"the file has more than {MAX_BYTES} bytes", 1)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        raise _stop("encoding", "the file begins with a byte-order mark", 1, "save it as UTF-8 without BOM")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _stop("encoding", "the file is not UTF-8", line, "save it as UTF-8") from None
    if match := _FORBIDDEN.search(text):
        line = text.count("\n", 0, match.start()) + 1
        message = f"the character U+{ord(match[0]):04X} is not allowed"
        raise _stop("encoding", message, line, 'write it as an escape such as "\\x00" in quotes')
    return text


def _stop(code: str, message: str, line: int, hint: str | None = None) -> PipelineError:
    """A problem that ends the reading."""
    return PipelineError([Problem(code, message, line=line, hint=hint)])


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    message = getattr(error, "problem", None) or str(error)
    line = mark.line + 1 if mark else None
    lines = text.split("\n")
    hint = None
    if "maximum nesting depth" in message:  # libyaml's own limit, in PyYAML from 6.0.4 on
        return Problem("too-deep", f"values are nested deeper than {MAX_DEPTH} levels", line=line)
    if mark and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
        return Problem("syntax", "a tab is used for indentation", line=line, hint="YAML allows only spaces there")
    if "mapping values are not allowed" in message or "did not find expected" in message:
        hint = "put text that holds a colon, comma or bracket in quotes"
    if context := getattr(error, "context", None):
        message = f"{context}: {message}"
    return Problem("syntax", message, line=line, hint=hint)


class _Composer:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.root: Located | None = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, Located | None] = {}  # None while the anchored collection is open
        self._documents = 0

    def read(self, text: str) -> None:
        for event in yaml.parse(text, Loader=_LOADER):
            mark: Any = event.start_mark
            line = mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    self._add("bad-structure", "a second document begins here", line, "one file holds one document")
                    return
            elif isinstance(event, yaml.ScalarEvent):
                self._tag(event, line)
                self._attach(self._scalar(event, line), event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                self._attach(self._alias(str(event.anchor), line), None)
            elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
                self._tag(event, line)
                self._open(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                done = self._stack.pop()
                self._attach(done.node, done.anchor)

    def _add(self, code: str, message: str, line: int, hint: str | None = None) -> None:
        self.problems.append(Problem(code, message, line=line, hint=hint))

    def _tag(self, event: yaml.NodeEvent, line: int) -> None:
        if tag := getattr(event, "tag", None):
            self._add("yaml-tag", f"the tag {tag} is not allowed", line, "remove it: values have no tags")

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Scalar:
        if event.style:  # quoted or a block of text
            return Scalar(event.value, event.value, line)
        try:
            return Scalar(resolve(event.value), event.value, line, plain=True)
        except ValueError as error:
            self._add("bad-value", str(error), line)
            return Scalar(INVALID, event.value, line)

    def _alias(self, anchor: str, line: int) -> Located:
        target = self._anchors.get(anchor)
        if target is None:
            if anchor in self._anchors:
                self._add("bad-structure", f"the alias *{anchor} contains itself", line)
            else:
                self._add("bad-reference", f"the alias *{anchor} has no anchor &{anchor} before it", line)
            return Scalar(INVALID, f"*{anchor}", line)
        if len(self._stack) + target.height > MAX_DEPTH:
            raise _stop("too-deep", f"values are nested deeper than {MAX_DEPTH} levels", line)
        if isinstance(target, Scalar):
            return Scalar(target.value, target.text, line)
        return target

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent, line: int) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise _stop("too-deep", f"values are nested deeper than {MAX_DEPTH} levels", line)
        if event.anchor:
            self._anchors[event.anchor] = None
        kind = Sequence if isinstance(event, yaml.SequenceStartEvent) else Mapping
        self._stack.append(_Open(kind(line), event.anchor))

    def _attach(self, value: Located, anchor: str | None) -> None:
        """Add a complete value to the innermost open collection: as a key, as a key's value, or to a list."""
        if anchor:
            self._anchors[anchor] = value
        if not self._stack:
            self.root = self.root or value
            return
        top = self._stack[-1]
        is_key = isinstance(top.node, Mapping) and top.key is None
        top.node.size += 0 if is_key and isinstance(value, Scalar) else value.size
        top.node.height = max(top.node.height, value.height + 1)
        if top.node.size > MAX_VALUES:
            raise _stop("too-many-values", f"the file holds more than {MAX_VALUES} values", value.line)
        if isinstance(top.node, Sequence):
            top.node.items.append(value)
        elif top.key is None:
            top.keep = self._is_key(top.node, value)
            top.key = value if isinstance(value, Scalar) else Scalar(INVALID, "", value.line)
        else:
            if top.keep:
                top.node.items[top.key.value] = (top.key, value)
            top.key = None

    def _is_key(self, mapping: Mapping, key: Located) -> bool:
        if isinstance(key, Scalar) and key.plain and key.value == "<<":
            self._add("bad-structure", "merge keys (<<) are not supported", key.line, "write the keys out")
            return False
        if not isinstance(key, Scalar) or not isinstance(key.value, str):
            shown = f" {key.text!r}" if isinstance(key, Scalar) else ""
            self._add("bad-structure", f"the key{shown} is not a string", key.line, "put it in quotes")
            return False
        if key.value in mapping.items:
            first = mapping.items[key.value][0].line
            message = f"the key {key.value!r} stands here and in line {first}"
            self._add("duplicate-key", message, key.line, "remove or rename one of them")
            return False
        return True


def to_value(located: Located) -> Any:
    """The tree as plain Python values; strings that begin with a dollar are not read as references."""
    if isinstance(located, Scalar):
        return located.value
    if isinstance(located, Sequence):
        return [to_value(item) for item in located.items]
    return {key: to_value(value) for key, (_, value) in located.items.items()}


def resolve(text: str) -> Value:
    """The value of a plain (unquoted) scalar; raises ValueError for a number that is not finite or too large."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text) if len(text) <= _LONGEST_NUMBER else math.inf
        if not math.isfinite(number):
            raise ValueError(f"the number {text[:40]} is too large")
        return number
    return text


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = int(text, base) if len(text) <= _LONGEST_NUMBER else MAX_INTEGER + 1
    if abs(number) > MAX_INTEGER:
        raise ValueError(f"the integer {text[:24]}{'…' if len(text) > 24 else ''} does not fit in 64 bits")
    return number
