"""Importing the Python files of packs of nodes, and what is known of one that fails."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

VARIABLE = "FOPRU_GRAPH_NODES"  # of the environment: folders and files of nodes, separated as in PATH


@dataclass(frozen=True)
class PackFailure:
    """A file or entry point that could not be loaded.

    ``source`` is its name, ``error`` the error's text, ``types`` what it would define, and ``location`` the
    ``file:line`` of its code that failed; empty if none of its code did.
    """

    source: str
    error: str
    types: tuple[str, ...] = ()
    location: str = ""

    @property
    def where(self) -> str:
        """The location, behind the name of an entry point; the name alone where no line is known."""
        if not self.location or self.location.startswith(self.source):
            return self.location or self.source
        return f"{self.source} ({self.location})"

    @property
    def summary(self) -> str:
        """The last line of the error."""
        return self.error.strip().rpartition("\n")[2]

    def __str__(self) -> str:
        return f"{self.where} failed to load: {self.summary}"


def failure_of(source: str, error: BaseException, root: Path | None, shown: str | None = None) -> PackFailure:
    """The failure of a pack whose code is the file or folder ``root``, which messages call ``shown``."""
    if root is None:
        return PackFailure(source, "".join(traceback.format_exception(error, limit=-3)))
    own = error.__traceback__  # from the pack's own code on: what led there is ours
    while own is not None and not Path(own.tb_frame.f_code.co_filename).is_relative_to(root):
        own = own.tb_next
    text = "".join(traceback.format_exception(type(error), error, own, limit=-3))
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno or 0))
    inside = [(Path(file), line) for file, line in frames if Path(file).is_relative_to(root)]
    location = ""
    if inside:
        file, line = inside[-1]
        location = f"{Path(shown or root, file.relative_to(root))}:{line}"
    types = [name for path in python_files(root) for name in classes_in_source(path)]
    return PackFailure(source, text, tuple(dict.fromkeys(types)), location)


def variable_paths() -> list[Path]:
    """The folders and files that the environment names."""
    return [Path(path) for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path]


def python_files(pack: Path) -> list[Path]:
    """The Python files of a pack: the file itself, or all of a package."""
    return sorted(pack.rglob("*.py")) if pack.is_dir() else [pack]


def pack_files(path: Path) -> list[Path]:
    """The Python files and packages in a folder without its tests; for a file or a package only the path itself."""
    if path.is_file() or (path / "__init__.py").is_file():
        return [path]
    # A pack's tests lie beside it: pytest's names are no packs.
    others = ("_", ".", "test_", "conftest.py")
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith(others))
    return [entry for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").is_file()]


def import_file(file: Path) -> ModuleType:
    """Import a file (or a package's ``__init__.py``) under a module name that depends only on its path.

    A file that was imported before is executed again, so that a new registry sees its current text. Exceptions of the
    file are not caught.
    """
    name = module_name(file)
    locations = [str(file.parent)] if file.name == "__init__.py" else None
    loader = _CurrentText(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=locations)
    assert spec is not None  # a loader was given
    for stale in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
        del sys.modules[stale]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations given as strings are looked up
    try:
        with _no_byte_code():
            loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def module_name(file: Path) -> str:
    """The module name of a file (or a package's ``__init__.py``) that `import_file` gives."""
    stem = re.sub(r"\W", "_", file.parent.name if file.name == "__init__.py" else file.stem)
    return f"fopru_pack_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}_{stem}"


class _CurrentText(importlib.machinery.SourceFileLoader):
    """Compiles what the file says now: Python takes byte code for current if size and second of the change agree."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


@contextlib.contextmanager
def _no_byte_code() -> Iterator[None]:
    """Leave none of a package's other modules either, nor a ``__pycache__`` in the user's folder."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def classes_in_source(file: Path) -> tuple[str, ...]:
    """The names of the classes at the top level of a file, even if the file does not compile."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    try:
        return tuple(item.name for item in ast.parse(text).body if isinstance(item, ast.ClassDef))
    except (SyntaxError, ValueError):
        return tuple(re.findall(r"^class\s+(\w+)", text, flags=re.MULTILINE))
