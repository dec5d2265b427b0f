"""The set of node types: the built-in ones, installed ones, and those of folders named by the user."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from fopru_graph.graph.declare.node import Node, NodeSpec
from fopru_graph.graph.errors import PipelineError, Problem, did_you_mean, hint_choices
from fopru_graph.identity import files_digest

BUILT_IN = "fopru_graph.nodes"
ENTRY_POINTS = "fopru_graph.nodes"


@dataclass(frozen=True)
class PackFailure:
    """A file or entry point that could not be loaded: its name, the error's text, and the types it would define."""

    source: str
    error: str
    types: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The last line of the error."""
        return self.error.strip().rpartition("\n")[2]


class Registry:
    """A set of node types by name. Registries are independent of each other; there is no global one."""

    def __init__(self) -> None:
        self._specs: dict[str, NodeSpec] = {}
        self._failed: dict[str, PackFailure] = {}
        self._files: dict[Path, str] = {}
        self._pending: list[Callable[[], None]] = []
        self._failures: list[PackFailure] = []
        self.packs: dict[str, str] = {}  # folders and files that were loaded, each with a digest of its Python files

    @classmethod
    def default(cls) -> Registry:
        """A registry of the built-in nodes and those of installed packages, imported at the first look-up."""
        registry = cls()
        registry._pending = [registry._load_built_in, registry._load_entry_points]
        return registry

    def add(self, *classes: type[Node]) -> None:
        """Add node classes; raises `PipelineError` for a type name that another class has already."""
        self._load_pending()
        for cls in classes:
            if clash := self._register(cls):
                raise PipelineError([Problem("duplicate-id", clash)])

    def load_module(self, module: ModuleType) -> None:
        """Add the node classes that a module (or a package's modules) defines."""
        self._load_pending()
        self._collect(module)

    def load_folder(self, path: str | Path) -> list[PackFailure]:
        """Import every Python file and package in a folder, or a single file, and add the nodes defined there.

        A file that fails raises nothing: the failures are returned and kept in `failures`, and the validation of a
        pipeline that uses a type of that file reports ``pack-failed``. Raises `PipelineError` when the path does not
        exist.
        """
        self._load_pending()
        path = Path(path)
        if not path.exists():
            raise PipelineError([Problem("pack-failed", f"there is no folder or file {path}")])
        before = len(self._failures)
        files = pack_files(path)
        sources = [source for file in files for source in ([file] if file.is_file() else file.rglob("*.py"))]
        with contextlib.suppress(OSError):  # a file that cannot be read is a failure below
            root = path if path.is_dir() else path.parent
            self.packs[str(path.resolve())] = files_digest(filter(Path.is_file, sources), root)
        for file in files:
            self._load_file(file)
        return self._failures[before:]

    def get(self, type_name: str) -> NodeSpec:
        """The node type of this name; raises `PipelineError` with ``unknown-type`` or ``pack-failed``."""
        spec = self.find(type_name)
        if spec is None:
            raise PipelineError([self.unknown(type_name)])
        return spec

    def find(self, type_name: str) -> NodeSpec | None:
        """The node type of this name, or None if there is none or it cannot be used."""
        self._load_pending()
        return None if type_name in self._failed else self._specs.get(type_name)

    def unknown(self, type_name: str) -> Problem:
        """The problem that says why there is no usable type of this name."""
        if failure := self._failed.get(type_name):
            message = f"{type_name} cannot be used, {failure.source} failed to load:\n{failure.error.rstrip()}"
            return Problem("pack-failed", message)
        known = [*self.types(), *self._failed]
        hint = did_you_mean(type_name, known) or (hint_choices(type_name, known) if len(known) <= 12 else None)
        hint = hint or (None if self.types() else "no node types are loaded")
        return Problem("unknown-type", f"there is no node type {type_name!r}", hint=hint)

    def types(self) -> dict[str, NodeSpec]:
        """All usable node types by name, sorted."""
        self._load_pending()
        return {name: self._specs[name] for name in sorted(self._specs) if name not in self._failed}

    @property
    def failures(self) -> list[PackFailure]:
        """The files and entry points that could not be loaded."""
        self._load_pending()
        return list(self._failures)

    def annotation(self, name: str) -> Any | None:
        """The annotation that is written like ``name`` on any socket, e.g. ``Significance`` of a sub-graph's input."""
        for spec in self.types().values():
            for socket in (*spec.outputs.values(), *spec.inputs.values()):
                if socket.type_name == name:
                    return socket.annotation
        return None

    def _load_pending(self) -> None:
        while self._pending:
            self._pending.pop(0)()

    def _load_built_in(self) -> None:
        try:
            package = importlib.import_module(BUILT_IN)
        except ModuleNotFoundError as error:
            if error.name != BUILT_IN:
                raise
            return
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                self._load_named(f"{BUILT_IN}.{module.name}")

    def _load_named(self, name: str) -> None:
        try:
            self._collect(importlib.import_module(name))
        except Exception:
            spec = importlib.util.find_spec(name)
            file = Path(spec.origin) if spec and spec.origin else None
            self._fail(str(file or name), traceback.format_exc(limit=-3), classes_in_source(file) if file else ())

    def _load_entry_points(self) -> None:
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            try:
                loaded = point.load()
            except Exception:
                self._fail(f"entry point {point.name} = {point.value}", traceback.format_exc(limit=-3))
                continue
            if isinstance(loaded, ModuleType):
                self._collect(loaded)
            elif isinstance(loaded, type) and issubclass(loaded, Node):
                self._add_or_fail(loaded)
            else:
                self._fail(f"entry point {point.name} = {point.value}", "it names neither a module nor a Node class")

    def _load_file(self, file: Path) -> None:
        origin = (file / "__init__.py" if file.is_dir() else file).resolve()
        if other := self._files.get(origin):
            self._fail(str(file), f"{file} is already loaded as {other}")
            return
        if origin.exists() and not origin.is_file():  # reading a pipe may wait for ever
            self._fail(str(file), f"{file} is no regular file")
            return
        try:
            self._collect(import_file(origin))
        except (Exception, SystemExit):
            self._fail(str(file), traceback.format_exc(limit=-3), classes_in_source(origin))

    def _collect(self, module: ModuleType) -> None:
        origin = getattr(module, "__file__", None)
        if origin and self._files.setdefault(Path(origin).resolve(), module.__name__) != module.__name__:
            self._fail(module.__name__, f"{origin} is already loaded as {self._files[Path(origin).resolve()]}")
            return
        for cls in _node_classes(module):
            self._add_or_fail(cls)

    def _add_or_fail(self, cls: type[Node]) -> None:
        if clash := self._register(cls):  # a pipeline could mean either class, so neither can be used
            self._failures.append(PackFailure(cls.spec.source, clash, (cls.spec.type,)))
            self._failed[cls.spec.type] = self._failures[-1]

    def _register(self, cls: type[Node]) -> str | None:
        """Add a class; if another class has its type name, return a sentence that says so."""
        known = self._specs.setdefault(cls.spec.type, cls.spec)
        if known.cls is cls:
            return None
        return f"the node type {known.type} is defined twice, in {known.source} and in {cls.spec.source}"

    def _fail(self, source: str, error: str, types: tuple[str, ...] = ()) -> None:
        self._failures.append(PackFailure(source, error, types))
        self._failed |= {name: self._failures[-1] for name in types if name not in self._specs}


def _node_classes(module: ModuleType) -> Iterator[type[Node]]:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        defined_here = cls.__module__ == module.__name__ or cls.__module__.startswith(module.__name__ + ".")
        if defined_here and issubclass(cls, Node) and "spec" in vars(cls):
            yield cls


# -- importing the Python files of a folder of nodes ------------------------------------------------------------------


def pack_files(path: Path) -> list[Path]:
    """The Python files and packages in a folder; for a file or a package only the path itself."""
    if path.is_file() or (path / "__init__.py").is_file():
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith(("_", ".")))
    return [entry for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").is_file()]


def import_file(file: Path) -> ModuleType:
    """Import a file (or a package's ``__init__.py``) under a module name that depends only on its path.

    A file that was imported before is executed again, so that a new registry sees its current text. Exceptions of the
    file are not caught.
    """
    package = file.name == "__init__.py"
    stem = re.sub(r"\W", "_", file.parent.name if package else file.stem)
    name = f"fopru_pack_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}_{stem}"
    locations = [str(file.parent)] if package else None
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
