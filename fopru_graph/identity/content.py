"""Content by hash: JSON values, files and versions of packages. Imports no torch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

PACKAGES = ("fopru-graph", "torch", "transformers", "tokenizers", "pillow", "numpy")
_REMEMBERED = 16 * 2**20  # bytes; digests of larger files are kept on disk, hashing weights takes seconds a gigabyte


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, the same in every process."""
    return hashlib.sha256(_canonical(value).encode(errors="backslashreplace")).hexdigest()


@functools.cache
def versions(packages: Iterable[str] = PACKAGES) -> Mapping[str, str]:
    """Versions of Python and of installed packages by name; by default of those that an answer follows from."""
    known = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            known[package] = importlib.metadata.version(package)
    return known


@functools.cache
def versions_digest() -> str:
    """What `versions` says, for keys."""
    return digest(dict(versions()))


# -- files ------------------------------------------------------------------------------------------------------------

_digests: dict[tuple[Any, ...], str] = {}


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content in hex, remembered by path, size, times and inode.

    Raises:
        OSError: the file cannot be read.
    """
    path = os.path.abspath(path)
    state = os.stat(path)
    key = (path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev)
    if key not in _digests:
        note = _note_of(key) if state.st_size >= _REMEMBERED else None
        known = _read_note(note)
        if known is None:
            with open(path, "rb") as stream:
                known = hashlib.file_digest(stream, "sha256").hexdigest()
            _write_note(note, known)
        _digests[key] = known
    return _digests[key]


def files_digest(files: Iterable[Path], root: Path) -> str:
    """SHA-256 of the names below ``root`` and the contents of files, whatever their order."""
    return digest({file.relative_to(root).as_posix(): file_digest(file) for file in files})


def _note_of(key: tuple[Any, ...]) -> Path:
    """Where the digest of a large file is kept between processes."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "fopru-graph", "digests", hashlib.sha256(repr(key).encode()).hexdigest())


def _read_note(note: Path | None) -> str | None:
    try:
        text = note.read_text(encoding="ascii") if note else ""
    except (OSError, ValueError):
        return None
    return text if re.fullmatch("[0-9a-f]{64}", text) else None


def _write_note(note: Path | None, known: str) -> None:
    """Keep a digest; a disk that takes nothing costs time, never an answer."""
    if note is None:
        return
    temporary = note.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(known, encoding="ascii")
        temporary.replace(note)
