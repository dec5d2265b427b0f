"""docs/server.md: its code runs against a server, and its tables are what the code says."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fopru_graph.server.chat.schemas import ChatRequest, Figures
from fopru_graph.server.settings import PORT, Limits, Settings
from tests.server.asking import SIGN
from tests.server.conftest import Client

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")


@pytest.fixture
def blocks(server: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page's blocks of a language, as they are for the server of the tests; a photo lies in the folder."""
    SIGN.save(tmp_path / "photo.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    page = PAGE.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{server.port}")
    return lambda language: re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_its_python_prints_what_it_says(blocks) -> None:
    (code,), (shown,) = blocks("python"), blocks("text")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "docs/server.md", "exec"), {})
    assert said.getvalue() == shown.rstrip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_its_shell_gets_an_answer(blocks) -> None:
    (block,) = blocks("bash")
    done = subprocess.run(["bash", "-c", block], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == "stop"


def rows(heading: str) -> list[str]:
    """The first cells of the first table below a heading."""
    table = PAGE.partition(f"## {heading}")[2].partition("\n\n|")[2].partition("\n\n")[0]
    return re.findall(
        r"`(\w+)`", " ".join(line.split("|")[0 if line.startswith(" ") else 1] for line in table.splitlines())
    )


def test_its_tables_are_those_of_the_code() -> None:
    assert rows("Requests") == list(ChatRequest.model_fields)
    assert rows("Answers") == list(Figures.model_fields)


def test_its_numbers_are_the_defaults(settings: Settings) -> None:
    limits = Limits()
    assert f"`--batch-size` ({settings.batch_size})" in PAGE
    assert f"milliseconds ({settings.batch_seconds * 1000:g})" in PAGE
    assert f"{limits.body_seconds:g} seconds, has more than {limits.body_bytes >> 20} MiB" in PAGE
    assert f"{limits.waiting} requests are waiting" in PAGE and f"in {limits.fetch_seconds:g} seconds" in PAGE
