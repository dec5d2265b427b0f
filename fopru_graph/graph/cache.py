"""The cache of node outputs on disk, across processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fopru_graph.graph.memory import Values

_MANIFEST = "manifest.json"
_WORK = ".writing-"  # before the names of folders that are no entries yet, or no longer
_ABANDONED = 3600  # seconds after which a folder of these is nobody's
MAX_BYTES = 10 * 10**9


class Codec(Protocol):
    """How one output is written to, and read from, an empty folder."""

    def dump(self, value: Any, folder: Path) -> None:
        """Write files that `load` can read; raise TypeError for a value that cannot be written."""

    def load(self, folder: Path) -> Any:
        """The value that was written."""


class JsonCodec:
    """Values that JSON gives back exactly as they were."""

    def dump(self, value: Any, folder: Path) -> None:
        """Write ``value.json``; raises TypeError for a value that JSON would change, such as a tuple."""
        if not _is_json(value):
            raise TypeError(f"{type(value).__name__} cannot be kept as JSON")
        (folder / "value.json").write_text(json.dumps(value), encoding="utf-8")

    def load(self, folder: Path) -> Any:
        """Read ``value.json``."""
        return json.loads((folder / "value.json").read_text(encoding="utf-8"))


def _is_json(value: Any) -> bool:
    if type(value) is list:
        return all(_is_json(item) for item in value)
    if type(value) is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)


class CorruptEntry(Exception):
    """A cache entry on disk that differs from what was written."""


class DiskEntry(NamedTuple):
    """An entry of a disk cache: its key, its folder, its bytes and when it was used last, in seconds since 1970."""

    key: str
    folder: Path
    size: int
    used: float


class DiskCache:
    """The outputs of nodes in a private folder, with one sub-folder for each key.

    An entry appears at once or not at all, and every byte of it is verified when it is read. When there are more than
    ``max_bytes``, those that were not used for longest make room. Several processes may use the folder at the same
    time.
    """

    def __init__(self, folder: str | Path, codec: Codec | None = None, max_bytes: int = MAX_BYTES) -> None:
        self.folder = Path(folder)
        self.codec = codec or JsonCodec()
        self.max_bytes = max_bytes
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # an existing folder keeps its mode

    def get(self, key: str) -> Values | None:
        """The outputs kept under a key, or None; raises `CorruptEntry` when the entry is damaged."""
        entry = self._entry(key)
        found = None
        try:
            if (found := _inode(entry)) is None:
                return None
            names = _verify(entry, key)
            values = {name: self.codec.load(entry / str(index)) for index, name in enumerate(names)}
        except Exception as error:  # a codec may fail in any way on an entry of another version
            if found and _inode(entry) != found:
                return None  # another process has just removed or replaced it
            raise CorruptEntry(f"the cache entry {entry} is damaged ({error}); it is computed again") from error
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(entry / _MANIFEST)
        return values

    def put(self, key: str, values: Values) -> None:
        """Keep outputs; a damaged entry is replaced.

        Raises TypeError for a value that the codec cannot write, ValueError for one that is larger than the cache may
        be, and OSError.
        """
        entry = self._entry(key)
        entry.parent.mkdir(exist_ok=True, mode=0o700)
        work = self._aside()
        work.mkdir(mode=0o700)
        try:
            for index, value in enumerate(values.values()):
                (work / str(index)).mkdir()
                self.codec.dump(value, work / str(index))
            if (size := _size(work)) > self.max_bytes:
                raise ValueError(f"they have {size} bytes, the cache may have {self.max_bytes}")
            body = {"key": key, "outputs": list(values), "files": _checksums(work)}
            (work / _MANIFEST).write_text(json.dumps({"body": body, "sum": _sum(body)}), encoding="utf-8")
            self._move(work, entry, key)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self._make_room(key)

    def entries(self) -> list[DiskEntry]:
        """All entries, the one that was used last first."""
        found = []
        for folder in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(OSError):  # removed meanwhile
                if folder.name.startswith(folder.parent.name):
                    used = (folder / _MANIFEST).stat().st_mtime
                    found.append(DiskEntry(folder.name, folder, _size(folder), used))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def clear(self) -> list[DiskEntry]:
        """Remove every entry and what killed runs left; returns the entries. Other files of the folder stay."""
        entries = self.entries()
        for entry in entries:
            self._remove(entry.folder)
            with contextlib.suppress(OSError):  # it holds something else
                entry.folder.parent.rmdir()
        self._sweep(0)
        return entries

    def __contains__(self, key: str) -> bool:
        return self._entry(key).is_dir()

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _move(self, work: Path, entry: Path, key: str) -> None:
        """Give the complete entry its name; a sound one that another process wrote in the meantime stays."""
        try:
            os.rename(work, entry)
            return
        except OSError:
            if not entry.is_dir():
                raise
        try:
            _verify(entry, key)
        except Exception:
            self._remove(entry)
            os.rename(work, entry)

    def _make_room(self, key: str) -> None:
        """Remove the entries that were not used for longest, but not that of ``key``."""
        self._sweep(_ABANDONED)
        total = 0
        for entry in sorted(self.entries(), key=lambda entry: entry.key != key):  # stable: that of the key first
            total += entry.size
            if total > self.max_bytes:
                self._remove(entry.folder)

    def _remove(self, folder: Path) -> None:
        """Take an entry away at once, so that a process that reads it meets all of it or nothing."""
        with contextlib.suppress(OSError):  # another process removes it, or the cache may only be read
            aside = self._aside()
            os.rename(folder, aside)
            shutil.rmtree(aside, ignore_errors=True)

    def _aside(self) -> Path:
        return self.folder / f"{_WORK}{uuid.uuid4().hex}"

    def _sweep(self, age: float) -> None:
        """Remove what runs were writing that were killed more than ``age`` seconds ago."""
        for work in self.folder.glob(f"{_WORK}*"):
            with contextlib.suppress(OSError):
                if work.stat().st_mtime <= time.time() - age:
                    shutil.rmtree(work, ignore_errors=True)


def _inode(folder: Path) -> int | None:
    """Tells folders of the same name apart; None if there is none."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _verify(entry: Path, key: str) -> list[str]:
    """The names of the entry's outputs, after every file was compared with the manifest."""
    manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
    body = manifest["body"]
    if manifest["sum"] != _sum(body) or set(manifest) != {"body", "sum"}:
        raise ValueError("the manifest was changed")
    if body["key"] != key:
        raise ValueError("it belongs to another key")
    if body["files"] != _checksums(entry):
        raise ValueError("a file was changed")
    return list(body["outputs"])


def _sum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _checksums(folder: Path) -> dict[str, str]:
    sums: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / _MANIFEST:
            with path.open("rb") as stream:
                sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums
