"""What this package needs, told by its own metadata, and what of it the running Python lacks. Imports nothing of it."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

NAME = "fopru-graph"
CHECKOUT = Path(__file__).resolve().parents[2]


def missing() -> str | None:
    """One sentence on the packages that are absent or of the wrong version, or None.

    Other packs may change them at any time, so it is asked before a run and not at installation. Only metadata is
    read: an old transformers must not be imported to be told apart.
    """
    from packaging.requirements import Requirement

    wrong = []
    for text in required():
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{need.name}{need.specifier} (not installed)")
            continue
        if not need.specifier.contains(found, prereleases=True):
            wrong.append(f"{need.name}{need.specifier} ({found} is installed)")
    return f"{NAME} needs {', '.join(wrong)} in ComfyUI's Python" if wrong else None


def required() -> list[str]:
    """The requirements of the installed package or, where it is not installed, of its checkout."""
    try:
        return metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return list(project["dependencies"])


def license_text() -> str:
    """The text of this package's licence, from where its metadata lies."""
    try:
        text = metadata.distribution(NAME).read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        text = None
    return (CHECKOUT / "LICENSE").read_text(encoding="utf-8") if text is None else text
