"""docs/drop-in.md: its example is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "drop-in.md").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_shows(capsys):
    code, shown = (
        re.search(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1] for kind in ("python", "text")
    )
    exec(compile(code, "docs/drop-in.md", "exec"), {})
    assert capsys.readouterr().out == shown
