"""SECURITY.md promises what tests show: each test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_promise_names_a_test_that_is_there() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 15
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row.rpartition(" | ")[2])
        assert named, row
        for file, test in named:
            path = ROOT / file if file.startswith("tests/") else ROOT / "tests" / "server" / file
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert test in {item.name for item in tree.body if isinstance(item, ast.FunctionDef)}, row
