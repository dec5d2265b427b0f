"""The cache of node outputs in memory, for a session: bounded by nodes and by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

Values = dict[str, Any]  # a node's outputs by name
MAX_MEMORY = 512 * 2**20  # the encodings of some 50 pictures of LLaVA-1.5 7B in half precision
_PLAIN = (type(None), bool, int, float, str)


class MemoryCache:
    """The outputs of the ``max_entries`` most recently used nodes; threads may share it.

    By default there is room for 64, and for all nodes of two runs of the largest graph that uses it. Outputs of earlier
    runs also make room while all have more than ``max_bytes``; what the latest run made or read stays, so that its next
    run has it. Bytes are those of everything that has an integer ``nbytes`` (tensors, arrays), also in containers and
    the fields of data classes; what several entries share counts once. Other objects, e.g. models, count nothing.

    Lists, dicts, tuples and sets are copied on the way in and on the way out, so that nobody can change a cached value
    through them. Tensors, data classes and other objects are shared: nodes never change an input.
    """

    def __init__(self, max_entries: int | None = None, max_bytes: int = MAX_MEMORY) -> None:
        self.max_entries = 64 if max_entries is None else max_entries
        self.max_bytes = max_bytes
        self._grows = max_entries is None
        self._run = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._holders: dict[int, int] = {}  # entries that hold an object, by its id
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all outputs that are kept."""
        return self._bytes

    def fit(self, nodes: int) -> None:
        """Prepare for a run of so many nodes: a cache without a size of its own holds two such runs."""
        with self._lock:
            self._run += 1
            if self._grows:
                self.max_entries = max(self.max_entries, 2 * nodes)

    def get(self, key: str) -> Values | None:
        """The outputs kept under a key, or None."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            entry = self._entries[key]
            entry.run = self._run
        return {name: _copied(value) for name, value in entry.values.items()}

    def put(self, key: str, values: Values) -> None:
        """Keep outputs; the least recently used ones make room."""
        copied = _copied(values)
        sizes = _sizes(copied)
        with self._lock:
            self._drop(key)
            self._entries[key] = _Entry(copied, sizes, self._run)
            for item, size in sizes.items():
                self._holders[item] = self._holders.get(item, 0) + 1
                self._bytes += size if self._holders[item] == 1 else 0
            self._make_room()

    def clear(self) -> None:
        """Remove every entry."""
        with self._lock:
            for key in list(self._entries):
                self._drop(key)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def _make_room(self) -> None:
        while len(self._entries) > self.max_entries:
            self._drop(next(iter(self._entries)))
        if self._bytes <= self.max_bytes:
            return
        earlier = [key for key, entry in self._entries.items() if entry.sizes and entry.run < self._run]
        for key in earlier:
            self._drop(key)
            if self._bytes <= self.max_bytes:
                return

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        for item, size in entry.sizes.items() if entry else ():
            self._holders[item] -= 1
            if not self._holders[item]:
                del self._holders[item]
                self._bytes -= size


@dataclass
class _Entry:
    values: Values
    sizes: dict[int, int]  # bytes by the id of what has them
    run: int  # the latest that made or read it


def _sizes(value: Any) -> dict[int, int]:
    """Bytes of everything in a value that tells them, by its id."""
    sizes: dict[int, int] = {}
    seen: set[int] = set()
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, type) or type(item) in _PLAIN or id(item) in seen:
            continue
        seen.add(id(item))
        if (size := _nbytes(item)) is not None:
            sizes[id(item)] = size
        elif isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            stack.extend(item)
        elif is_dataclass(item):
            stack.extend(getattr(item, field.name, None) for field in fields(item))
    return sizes


def _nbytes(value: Any) -> int | None:
    try:
        size = getattr(value, "nbytes", None)
    except Exception:  # it cannot be told, as that of a sparse tensor
        return None
    return size if type(size) is int else None


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _copied(item) for key, item in value.items()}
    if kind in (list, tuple, set):
        return kind([_copied(item) for item in value])
    return value
