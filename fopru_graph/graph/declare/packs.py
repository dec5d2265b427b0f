"""Importing the Python files of a node folder."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType


def pack_files(path: Path) -> list[Path]:
    """The files and packages of a folder that hold nodes, or the path itself when it is one of them."""
    if path.is_file() or (path / "__init__.py").is_file():
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith(("_", ".")))
    return [entry for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").is_file()]


def import_file(file: Path) -> ModuleType:
    """Import a file (or a package's ``__init__.py``) under a name that depends on its path only.

    A file that was imported before is executed again, so that a new registry sees its present text. Whatever the file
    raises is raised.
    """
    package = file.name == "__init__.py"
    stem = re.sub(r"\W", "_", file.parent.name if package else file.stem)
    name = f"fopru_pack_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}_{stem}"
    locations = [str(file.parent)] if package else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=locations)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    for stale in [key for key in sys.modules if key == name or key.startswith(name + ".")]:
        del sys.modules[stale]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations given as strings are looked up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def classes_in_source(file: Path) -> tuple[str, ...]:
    """Names of the classes at the top level of a file that may not even compile."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    try:
        return tuple(item.name for item in ast.parse(text).body if isinstance(item, ast.ClassDef))
    except (SyntaxError, ValueError):
        return tuple(re.findall(r"^class\s+(\w+)", text, flags=re.MULTILINE))
