"""What the running Python lacks is told in one sentence, from metadata alone."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from fopru_graph.comfy import requirements
from fopru_graph.comfy.requirements import license_text, missing, required

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions that are said to be installed instead of the real ones; None is not installed."""
    said: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        found = said.get(name, "") if name in said else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return said


def test_nothing_is_missing_here() -> None:
    assert missing() is None
    assert len(required()) > 10


def test_an_old_transformers_is_told_with_what_is_needed(versions: dict[str, str | None]) -> None:
    versions |= {"transformers": "4.57.6", "tokenizers": None}
    sentence = missing()
    assert sentence is not None and "\n" not in sentence
    assert "transformers<6,>=5.23 (4.57.6 is installed)" in sentence
    assert "tokenizers>=0.23.1 (not installed)" in sentence
    assert "torch" not in sentence


@pytest.mark.parametrize("version", ["2.14.1+cu130", "2.15.0.dev20261120", "2.11.0+cpu"])
def test_builds_of_torch_go_by_their_version(versions: dict[str, str | None], version: str) -> None:
    versions["torch"] = version
    assert missing() is None


def test_what_only_extras_need_is_not_missed(versions: dict[str, str | None]) -> None:
    versions |= {"datasets": None, "ray": None, "submitit": None}
    assert missing() is None


def test_a_checkout_that_is_not_installed_tells_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    licence = license_text()
    monkeypatch.setattr(requirements, "NAME", "fopru-graph-that-is-not-installed")
    assert required() == tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert license_text() == licence == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_it_imports_nothing_of_what_it_asks_for() -> None:
    code = (
        "import sys\nfrom fopru_graph.comfy.requirements import missing\nmissing()\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")
