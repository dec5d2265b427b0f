"""The code that a node type is made of: the files it comes from, and what was set since they were read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from fopru_graph.identity.content import digest

_IMPORT = re.compile(
    rb"^[ \t]*(?:from[ \t]+(?P<module>[.\w]+)[ \t]+import[ \t]+(?:\((?P<several>[^)]*)\)|(?P<names>[^\n]*))"
    rb"|import[ \t]+(?P<plain>[^\n]*))",
    re.MULTILINE,
)


_ENGINE = "fopru_graph.graph"  # it calls nodes and computes nothing of theirs; its version is in every key


class Source(NamedTuple):
    """The code that a class's or a function's behaviour follows from.

    ``files`` maps each source file it comes from to a digest: its own module, those of its base classes, and what
    these import from their own pack, also inside of functions. A pack is the top-level package, or the folder of a
    file that belongs to none. ``code`` has digests of the byte code of the class, and of functions that are in no file
    (a notebook's, or replaced ones). ``globals`` are the plain values of module globals that its functions name, which
    may have been set since; a list, set or dict counts as it was when first seen, for nodes keep notes in them.
    """

    files: Mapping[str, str]
    code: Mapping[str, str]
    globals: Mapping[str, Any]
    digest: str  # of files and code

    def key(self) -> dict[str, Any]:
        """The part of a cache key, as JSON."""
        return {"code": self.digest, "globals": dict(self.globals)}


class _Known(NamedTuple):
    """What was found of a class or function, and the functions and globals to look at again each time."""

    files: Mapping[str, str]
    code: Mapping[str, str]
    digest: str
    modules: tuple[str, ...]
    functions: tuple[tuple[dict[str, Any], str, CodeType], ...]
    names: Mapping[str, tuple[dict[str, Any], str]]

    def holds(self) -> bool:
        """Whether every module and every function that was followed is still what its name means."""
        return all(map(_is_current, self.modules)) and all(
            getattr(space.get(name), "__code__", None) is code for space, name, code in self.functions
        )


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def source_of(member: type | FunctionType) -> Source:
    """The code that a class or a function is made of, as it is loaded now; see `Source`."""
    known = _known.get(member)
    if known is None or not known.holds():
        known = _known[member] = _learn(member)
    values: dict[str, Any] = {}
    for label, (space, name) in known.names.items():
        with contextlib.suppress(TypeError):
            values[label] = _constant_value(space, name)
    return Source(known.files, known.code, values, known.digest)


def _learn(member: type | FunctionType) -> _Known:
    every: tuple[type | FunctionType, ...] = member.__mro__ if isinstance(member, type) else (member,)
    parts = [part for part in every if not _is_engine(part.__module__) and part is not object]
    modules = _modules_of({part.__module__ for part in parts})
    files = {_label(name): module.digest for name, module in modules.items()}
    # One file may define a class twice, so its own byte code counts beside the file.
    code = {part.__qualname__: digest([_code_digest(item.__code__) for item in _functions(part)]) for part in parts}
    functions: dict[CodeType, tuple[dict[str, Any], str, CodeType]] = {}
    names: dict[str, tuple[dict[str, Any], str]] = {}  # by a label that says the module
    waiting = [function for part in parts for function in _functions(part)]
    seen: set[CodeType] = set()
    while waiting:
        function = waiting.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        if function.__code__.co_filename != getattr(sys.modules.get(function.__module__), "__file__", None):
            code[function.__qualname__] = _code_digest(function.__code__)
        space = function.__globals__
        for name in _names(function.__code__):
            value = space.get(name)
            if isinstance(value, FunctionType) and value.__globals__ is space:
                functions[value.__code__] = space, name, value.__code__
                waiting.append(value)
            elif isinstance(value, type) and value.__module__ == function.__module__:
                waiting += _functions(value)
            elif name in space and not isinstance(value, (type, ModuleType)):
                names[f"{_label(function.__module__)}.{name}"] = space, name
    return _Known(files, code, digest([files, code]), tuple(modules), tuple(functions.values()), names)


def _functions(part: type | FunctionType) -> list[FunctionType]:
    if isinstance(part, FunctionType):
        return [part]
    members = (getattr(member, "__func__", member) for member in vars(part).values())
    return [member for member in members if isinstance(member, FunctionType)]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _code_digest(code: CodeType) -> str:
    return digest([code.co_code.hex(), list(code.co_names), [_constant(item) for item in code.co_consts]])


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code_digest(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


_containers: dict[tuple[int, str], tuple[Any, Any]] = {}  # what a name of a module held, and its value then


def _constant_value(space: dict[str, Any], name: str) -> Any:
    """A module global as JSON. Raises TypeError if it is not plain."""
    value = space.get(name)
    if not isinstance(value, (list, set, dict)):
        return _plain(value)
    known = _containers.get((id(space), name))
    if known is None or known[0] is not value:
        known = _containers[id(space), name] = value, _plain(value)
    return known[1]


def _plain(value: Any) -> Any:
    """A plain value as JSON that tells types apart. Raises TypeError for anything else."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return [type(value).__name__, repr(value)]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, [_plain(item) for item in value]]
    if isinstance(value, (set, frozenset)):
        return ["set", sorted(_plain(item) for item in value)]
    if isinstance(value, dict):
        return ["dict", [[_plain(key), _plain(item)] for key, item in value.items()]]
    raise TypeError


class _Module(NamedTuple):
    """A module's file: what is loaded does not change when the file does; what is not loaded yet does."""

    loaded: ModuleType | None
    stamp: tuple[int, int] | None  # time and size of a file that is not loaded
    file: str
    digest: str
    imports: tuple[str, ...]  # of its own pack


_modules: dict[str, _Module] = {}


def _modules_of(names: Iterable[str]) -> dict[str, _Module]:
    """Modules, and every module of their packs that they import, directly or through others."""
    reached: dict[str, _Module] = {}
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name not in reached and not _is_engine(name) and (module := _scan(name)) is not None:
            reached[name] = module
            waiting += module.imports
    return dict(sorted(reached.items()))


def _is_engine(module: str) -> bool:
    return f"{module}.".startswith(f"{_ENGINE}.")


def _is_current(name: str) -> bool:
    known, loaded = _modules[name], sys.modules.get(name)
    return known.loaded is loaded and (loaded is not None or known.stamp == _stamp(known.file))


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        state = os.stat(file)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _label(module: str) -> str:
    """A module's name as it is wherever its file lies: the engine's name for a file holds a hash of the path."""
    return re.sub(r"^fopru_pack_[0-9a-f]{8}_", "", module)


def _scan(module: str) -> _Module | None:
    """The digest of a module's file and the modules of its pack that it imports; None where it has no file."""
    if module in _modules and _is_current(module):
        return _modules[module]
    file, loaded = _file_of(module), sys.modules.get(module)
    if file is None or not file.endswith(".py"):
        return None
    with open(file, "rb") as stream:
        text = stream.read()
    package = module if os.path.basename(file) == "__init__.py" else module.rpartition(".")[0]
    imports = (name for name in _imports(text, package) if _same_pack(name, module, os.path.dirname(file)))
    stamp = None if loaded is not None else _stamp(file)
    _modules[module] = _Module(loaded, stamp, file, hashlib.sha256(text).hexdigest(), tuple(dict.fromkeys(imports)))
    return _modules[module]


def _file_of(module: str) -> str | None:
    """Where a module's source is, without importing it."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        return getattr(loaded, "__file__", None)
    parent, _, leaf = module.rpartition(".")
    outer = _file_of(parent) if parent else None
    folders = getattr(sys.modules.get(parent), "__path__", None) if parent else sys.path
    if folders is None and outer is not None and os.path.basename(outer) == "__init__.py":
        folders = [os.path.dirname(outer)]
    for folder in folders or ():
        for path in (os.path.join(folder, f"{leaf}.py"), os.path.join(folder, leaf, "__init__.py")):
            if os.path.isfile(path):
                return path
    return None


def _same_pack(name: str, module: str, folder: str) -> bool:
    """Whether an imported name is a module of the importing module's pack, which lies in ``folder``."""
    if name.partition(".")[0] == module.partition(".")[0]:
        return _file_of(name) is not None
    if "." in module or f"{os.sep}site-packages" in folder:  # beside an installed module lie others' packages
        return False
    file = _file_of(name)
    return file is not None and os.path.realpath(file).startswith(os.path.realpath(folder) + os.sep)


def _imports(text: bytes, package: str) -> Iterator[str]:
    """Names of modules that the import statements of a source text may mean."""
    for match in _IMPORT.finditer(text):
        names = [part.split()[0] for part in _listed(match).split(",") if part.split()]
        if match["module"] is None:
            yield from names
            continue
        module = match["module"].decode(errors="replace")
        base = module.lstrip(".")
        if dots := len(module) - len(base):
            base = ".".join([*package.split(".")[: package.count(".") + 2 - dots], *filter(None, [base])])
        yield base
        yield from (f"{base}.{name}" for name in names)


def _listed(match: re.Match[bytes]) -> str:
    """What stands behind ``import``, without comments."""
    text = match["several"] or match["names"] or match["plain"] or b""
    return re.sub(r"#[^\n]*", "", text.decode(errors="replace"))
