"""The documentation builds as a site without a warning: every page is reached, every link leads somewhere."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_site_builds_without_warnings(tmp_path, caplog):
    pytest.importorskip("mkdocs", reason="needs the extra 'docs'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    with caplog.at_level(logging.WARNING, "mkdocs"):
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    assert [record.getMessage() for record in caplog.records] == []
    assert "RankPrune" in (tmp_path / "reference/nodes/index.html").read_text(encoding="utf-8")
    assert "--ratio" in (tmp_path / "reference/commands/index.html").read_text(encoding="utf-8")
    assert "http" not in " ".join(
        part.split('"')[0] for part in (tmp_path / "index.html").read_text(encoding="utf-8").split('src="')[1:]
    )
