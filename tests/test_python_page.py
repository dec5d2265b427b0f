"""docs/python.md as a reader follows it: every block runs as it stands, and prints what the page says, and no more."""

from __future__ import annotations

import io
import re
import threading
import urllib.error
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from fopru_graph.lvlm.inputs.images import load_image

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", PAGE, re.DOTALL)
WRITES = {"kept.png", "results", "cache"}  # what the page asks for


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    load_image("demo:taxi-rank").picture.save(folder / "photo.jpg", quality=95)
    return folder


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_does_what_the_page_says(folder, monkeypatch, number):
    monkeypatch.chdir(folder)
    code, expected = BLOCKS[number]
    printed, warned = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(warned):
        exec(compile(code, f"block {number} of python.md", "exec"), {"__name__": "page"})
    assert (printed.getvalue(), warned.getvalue()) == (expected, "")
    assert {path.name for path in folder.iterdir()} - WRITES == {"photo.jpg"}


class Silent(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_service_answers_and_refuses(folder):
    space: dict = {"__name__": "service"}
    (code,) = (code for code, _ in BLOCKS if "make_server" in code)
    exec(compile(code, "service.py", "exec"), space)
    server = make_server("127.0.0.1", 0, space["service"], handler_class=Silent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def post(body: bytes) -> str:
        address = f"http://127.0.0.1:{server.server_port}/what%20does%20the%20text%20say%20%3F"
        with urllib.request.urlopen(urllib.request.Request(address, body, method="POST"), timeout=60) as reply:
            return reply.read().decode()

    try:
        assert post((folder / "photo.jpg").read_bytes()) == "taxi"
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(b"no picture")
        assert refused.value.code == 400
        refused.value.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
