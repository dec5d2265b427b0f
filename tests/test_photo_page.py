"""docs/photo.md as a reader follows it, with a drawn scene as the photo."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

from tests.test_cli import invoke

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "photo.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "fopru_graph" / "demo" / "samples" / "taxi-rank.png", "photo.png")
    commands = [line for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    printed = []
    for line in commands:
        result = invoke(*shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output)
        printed.append(result.stdout)
    assert printed[:3] == ["white\n"] * 3
    assert "white" in Path("compare.html").read_text(encoding="utf-8")
    assert [json.loads(line)["text"] for line in printed[-1].splitlines()] == ["white", "white"]
