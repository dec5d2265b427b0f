"""The set of node types: the built-in ones, installed ones, and those of folders named by the user."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from fopru_graph.graph.declare.node import Node, NodeSpec
from fopru_graph.graph.declare.packs import (
    VARIABLE,
    PackFailure,
    failure_of,
    import_file,
    module_name,
    pack_files,
    python_files,
    variable_paths,
)
from fopru_graph.graph.errors import PipelineError, Problem, did_you_mean, hint_choices
from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.identity import files_digest

BUILT_IN = "fopru_graph.nodes"
ENTRY_POINTS = "fopru_graph.nodes"
_LOADING = threading.RLock()


def is_built_in(spec: NodeSpec) -> bool:
    """Whether a node type ships with the package."""
    return spec.cls.__module__.startswith(f"{BUILT_IN}.")


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
        """A registry of the built-in nodes, those of installed packages and of the paths in ``FOPRU_GRAPH_NODES``.

        They are imported at the first look-up.
        """
        registry = cls()
        registry._pending = [registry._load_built_in, registry._load_entry_points, registry._load_variable]
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
        pipeline that uses a type of that file reports ``pack-failed``. What is loaded already stays as it is. Raises
        `PipelineError` when the path does not exist.
        """
        self._load_pending()
        path = Path(path)
        if not path.exists():
            raise PipelineError([Problem("pack-failed", f"there is no folder or file {path}")])
        before = len(self._failures)
        files = pack_files(path)
        sources = [source for file in files for source in python_files(file)]
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
            message = f"{type_name} cannot be used, {failure.where} failed to load:\n{failure.error.rstrip()}"
            return Problem("pack-failed", message)
        known = [*self.types(), *self._failed]
        hint = did_you_mean(type_name, [*known, *shipped_pipelines()])
        hint = hint or (hint_choices(type_name, known) if len(known) <= 12 else None)
        if failed := ", ".join(failure.where for failure in self._failures if not failure.types):
            hint = "; ".join(filter(None, [hint, f"it may be of a pack that failed to load: {failed}"]))
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
        with _LOADING:  # a second thread waits until all is there
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
        except Exception as error:
            root = _root_of(name)
            self._fail(failure_of(str(root or name), error, root))

    def _load_entry_points(self) -> None:
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            source = f"entry point {point.name} = {point.value}"
            try:
                loaded = point.load()
            except (Exception, SystemExit) as error:
                self._fail(failure_of(source, error, _root_of(point.module.partition(".")[0])))
                continue
            if isinstance(loaded, ModuleType):
                self._collect(loaded)
            elif isinstance(loaded, type) and issubclass(loaded, Node):
                self._add_or_fail(loaded)
            else:
                self._fail(PackFailure(source, "it names neither a module nor a Node class"))

    def _load_variable(self) -> None:
        for path in variable_paths():
            try:
                self.load_folder(path)
            except (PipelineError, OSError) as error:
                self._fail(PackFailure(VARIABLE, str(error)))

    def _load_file(self, file: Path) -> None:
        origin = (file / "__init__.py" if file.is_dir() else file).resolve()
        if other := self._files.get(origin):
            if other != module_name(origin):
                self._fail(PackFailure(str(file), f"{file} is already loaded as {other}"))
            return
        if origin.exists() and not origin.is_file():  # reading a pipe may wait for ever
            self._fail(PackFailure(str(file), f"{file} is no regular file"))
            return
        try:
            self._collect(import_file(origin))
        except (Exception, SystemExit) as error:
            self._fail(failure_of(str(file), error, origin.parent if file.is_dir() else origin, str(file)))

    def _collect(self, module: ModuleType) -> None:
        origin = getattr(module, "__file__", None)
        if origin and self._files.setdefault(Path(origin).resolve(), module.__name__) != module.__name__:
            message = f"{origin} is already loaded as {self._files[Path(origin).resolve()]}"
            self._fail(PackFailure(module.__name__, message))
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

    def _fail(self, failure: PackFailure) -> None:
        self._failures.append(failure)
        self._failed |= {name: failure for name in failure.types if name not in self._specs}


def _node_classes(module: ModuleType) -> Iterator[type[Node]]:
    for _, cls in inspect.getmembers(module, inspect.isclass):
        defined_here = cls.__module__ == module.__name__ or cls.__module__.startswith(module.__name__ + ".")
        if defined_here and issubclass(cls, Node) and "spec" in vars(cls):
            yield cls


def _root_of(name: str) -> Path | None:
    """The file of a module or the folder of a package, without importing it; None if there is none."""
    with contextlib.suppress(Exception):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin).resolve()
            return origin.parent if spec.submodule_search_locations else origin
    return None
