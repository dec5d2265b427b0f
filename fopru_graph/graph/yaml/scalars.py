"""Plain YAML scalars by the core schema of YAML 1.2, in which ``no`` is a string and ``1e-3`` a number."""

from __future__ import annotations

import math
import re

from fopru_graph.graph.values import MAX_INTEGER, Value

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {
    text: value for value, word in ((True, "true"), (False, "false")) for text in (word, word.title(), word.upper())
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LONGEST_NUMBER = 400


def resolve(text: str) -> Value:
    """The value of an unquoted scalar; raises ValueError for numbers that are not finite or too large."""
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
