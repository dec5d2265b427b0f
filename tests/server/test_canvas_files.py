"""What of the canvas touches files: looking, sending, and keeping workflows and settings."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from fopru_graph.comfy.reading import read_json
from fopru_graph.comfy.workflow import workflow_of
from fopru_graph.graph import Graph
from fopru_graph.server.settings import Settings
from tests.server.conftest import Answer, Client

PAGE = {"content_type": "text/plain;charset=UTF-8"}  # what the frontend's own posts are, whatever they hold


@pytest.fixture
def folder(settings: Settings, server: Client) -> Path:
    """The shared server's folder."""
    return settings.folder


@pytest.fixture
def page(server: Client) -> Callable[..., Answer]:
    """Sends as the page of the shared server does."""
    return lambda method, path, body=None: server.ask(method, path, body, origin=server.address, **PAGE)


def png(picture: PIL.Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", **options)
    return stream.getvalue()


def form(content: bytes, name: str, kind: str = "image/png") -> tuple[bytes, str]:
    head = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n'
    more = '\r\n--b\r\nContent-Disposition: form-data; name="type"\r\n\r\ninput\r\n--b--\r\n'
    return head.encode() + content + more.encode(), "multipart/form-data; boundary=b"


def upload(server: Client, content: bytes, name: str = "cat.png") -> Answer:
    body, kind = form(content, name)
    return server.ask("POST", "/upload/image", body, content_type=kind)


# -- looking ----------------------------------------------------------------------------------------------------------

TRICKS = [
    "../queue.sqlite", "..%2Fqueue.sqlite", "%2e%2e%2fqueue.sqlite", "..%5Cqueue.sqlite", "/etc/passwd",
    "%2Fetc%2Fpasswd", "file:%2F%2F%2Fetc%2Fpasswd", "~root", "C:%5Cx.png", "%5C%5Chost%5Cshare",
    "a%00.png", "a%0Ab.png", ".hidden", "..", ".", "CON", "nul.png", "a" * 5000, "demo:..%2Fx", "",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["input", "output", "temp"])
@pytest.mark.parametrize("name", TRICKS)
def test_a_name_that_leads_elsewhere_is_refused(server: Client, name: str, kind: str) -> None:
    for query in (f"filename={name}", f"filename=x.png&subfolder={name or '..'}"):
        answer = server.ask("GET", f"/view?{query}&type={kind}")
        assert answer.status in (400, 404) and b"root:" not in answer.body and b"SQLite" not in answer.body


@pytest.mark.parametrize("kind", ["", "workflows", "..", "userdata", "input/.."])
def test_there_are_three_folders_to_look_into(server: Client, kind: str) -> None:
    assert server.ask("GET", f"/view?filename=queue.sqlite&type={kind}").status == 400


def test_a_link_leads_nowhere(server: Client, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (folder / "input" / "link.png").symlink_to(secret)
    (folder / "input" / "out").symlink_to(tmp_path, target_is_directory=True)
    for query in ("filename=link.png", "filename=secret.png&subfolder=out"):
        assert server.ask("GET", f"/view?{query}&type=input").status == 400
    os.unlink(folder / "input" / "link.png")
    os.unlink(folder / "input" / "out")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.html", None), ("a.svg", None), ("a.xml", None), ("a.js", None), ("a", None), ("a.png", "image/png"),
     ("a.txt", "text/plain"), ("a.json", "text/plain")],
)  # fmt: skip
def test_what_is_looked_at_cannot_run(server: Client, folder: Path, name: str, kind: str | None) -> None:
    (folder / "output" / name).write_text("<script>alert(1)</script>")
    answer = server.ask("GET", f"/view?filename={name}&type=output")
    assert answer.status == 200
    assert answer.headers["Content-Type"].partition(";")[0] == (kind or "application/octet-stream")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert (kind is None) == answer.headers.get("Content-Disposition", "").startswith("attachment")


def test_a_bundled_picture_can_be_looked_at(server: Client) -> None:
    answer = server.ask("GET", "/api/view?filename=demo:street-sign&type=input&subfolder=&rand=0.5")
    assert answer.status == 200
    with PIL.Image.open(io.BytesIO(answer.body)) as picture:
        assert picture.format == "PNG"


# -- sending ----------------------------------------------------------------------------------------------------------


def test_a_picture_is_drawn_anew_and_offered(server: Client, folder: Path) -> None:
    sent = png(PIL.Image.new("RGB", (30, 20), "red")) + b"<script>alert(1)</script>"
    answer = upload(server, sent, "..\\..//my <b>cat</b>.PHP.png")
    assert answer.status == 200
    name = json.loads(answer.body)["name"]
    assert name.startswith("b_PHP-")
    kept = (folder / "input" / name).read_bytes()
    assert b"script" not in kept
    with PIL.Image.open(io.BytesIO(kept)) as picture:
        assert picture.size == (30, 20)
    offered = json.loads(server.ask("GET", "/object_info/FopruLoadImage").body)
    assert name in offered["FopruLoadImage"]["input"]["required"]["path"][1]["options"]
    assert json.loads(upload(server, sent, "..\\..//my <b>cat</b>.PHP.png").body)["name"] == name


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html>",
        b"%PDF-1.4",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n" + bytes(99),
    ],
    ids=["empty", "svg", "html", "pdf", "cut gif", "cut png"],
)
def test_what_is_no_picture_is_not_kept(server: Client, folder: Path, content: bytes) -> None:
    before = sorted(os.listdir(folder / "input"))
    answer = upload(server, content)
    assert answer.status == 400 and json.loads(answer.body)["error"]["message"]
    assert sorted(os.listdir(folder / "input")) == before


@pytest.mark.parametrize("body", [b"", b"--b--", b"--b\r\n\r\nx", b"--c\r\n\r\nx\r\n--c--", b"--b\r\n" * 50 + b"--b--"])
def test_a_broken_form_is_refused(server: Client, body: bytes) -> None:
    assert server.ask("POST", "/upload/image", body, content_type="multipart/form-data; boundary=b").status == 400
    assert server.ask("POST", "/upload/image", body, content_type="multipart/form-data").status == 400


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_kept_but_the_one_that_opens_an_example(server: Client, page: Callable[..., Answer]) -> None:
    assert page("POST", "/api/settings/Comfy.TutorialCompleted", b"true").status == 200
    assert page("POST", "/api/settings/Comfy.ColorPalette", b'"light"').status == 200
    assert page("POST", "/api/settings", b'{"Comfy.Locale": "de"}').status == 200
    found = json.loads(server.ask("GET", "/settings").body)
    assert found["Comfy.ColorPalette"] == "light" and found["Comfy.Locale"] == "de"
    assert "Comfy.TutorialCompleted" not in found
    assert json.loads(server.ask("GET", "/api/settings/Comfy.Locale").body) == "de"


def test_settings_have_a_size(page: Callable[..., Answer]) -> None:
    assert page("POST", "/settings/x", json.dumps("a" * 300_000).encode()).status == 413
    assert page("POST", "/settings", b"[]").status == 400
    assert page("POST", "/settings", b"{").status == 400


@pytest.mark.parametrize("path", ["/settings/x", "/userdata/workflows%2Fa.json", "/jobs/a/cancel"])
def test_only_the_own_page_posts_without_a_type(server: Client, path: str) -> None:
    for origin in ({}, {"origin": "null"}, {"origin": "http://evil.example"}):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            assert server.ask("POST", path, b'"x"', content_type=kind, **origin).status in (403, 415)


# -- workflows --------------------------------------------------------------------------------------------------------


def put(page: Callable[..., Answer], name: str, body: bytes, query: str = "overwrite=true&full_info=true") -> Answer:
    return page("POST", f"/api/userdata/workflows%2F{name}?{query}", body)


def test_a_workflow_is_kept_as_it_is_and_as_yaml(server: Client, page: Callable[..., Answer], folder: Path) -> None:
    graph = Graph.load("fopru_rank")
    workflow = workflow_of(graph)
    workflow["nodes"][0]["pos"] = [5, 7]
    body = json.dumps(workflow, indent=3).encode()
    assert put(page, "mine.json", body).status == 200
    assert server.ask("GET", "/userdata/workflows%2Fmine.json").body == body
    kept = Graph.loads((folder / "workflows" / "mine.yaml").read_bytes())
    assert kept.nodes == graph.nodes and kept.inputs == graph.inputs
    assert kept.ui == {"canvas": {workflow["nodes"][0]["id"]: [5, 7]}}
    listed = json.loads(server.ask("GET", "/userdata?dir=workflows&recurse=true&split=false&full_info=true").body)
    assert {"path": "mine.json", "size": len(body)}.items() <= next(
        x for x in listed if x["path"] == "mine.json"
    ).items()


def test_yaml_that_was_edited_is_what_opens(server: Client, page: Callable[..., Answer], folder: Path) -> None:
    graph = Graph.load("fopru_rank")
    put(page, "edited.json", json.dumps(workflow_of(graph)).encode())
    graph.set("ratio", 0.625)
    (folder / "workflows" / "edited.yaml").write_text(graph.dumps())
    assert read_json(server.ask("GET", "/userdata/workflows%2Fedited.json").body) == graph
    (folder / "workflows" / "only.yaml").write_text(Graph.load("baseline").dumps())
    assert read_json(server.ask("GET", "/userdata/workflows%2Fonly.json").body) == Graph.load("baseline")


def test_a_workflow_of_other_nodes_is_kept_without_yaml(page: Callable[..., Answer], folder: Path) -> None:
    body = b'{"nodes": [{"id": 1, "type": "KSampler"}], "links": []}'
    assert put(page, "foreign.json", body).status == 200
    assert (folder / "workflows" / "foreign.json").read_bytes() == body
    assert not (folder / "workflows" / "foreign.yaml").exists()


def test_workflows_are_renamed_and_removed(server: Client, page: Callable[..., Answer], folder: Path) -> None:
    body = json.dumps(workflow_of(Graph.load("baseline"))).encode()
    put(page, "old.json", body)
    assert put(page, "old.json", body, "overwrite=false").status == 409
    moved = page("POST", "/api/userdata/workflows%2Fold.json/move/workflows%2Fsub%2Fnew.json?overwrite=false")
    assert moved.status == 200
    assert not list((folder / "workflows").glob("old.*"))
    assert server.ask("GET", "/userdata/workflows%2Fsub%2Fnew.json").body == body
    gone = server.ask("DELETE", "/userdata/workflows%2Fsub%2Fnew.json", content_type="application/json")
    assert gone.status == 204
    assert server.ask("GET", "/userdata/workflows%2Fsub%2Fnew.json").status == 404


@pytest.mark.parametrize(
    "name",
    ["..%2Fsettings.json", "workflows%2F..%2Fsettings.json", "workflows%2F%2e%2e%2fa.json", "settings.json", "user.css",
     "workflows%2Fa.html", "workflows%2Fa.yaml", "%2Fetc%2Fpasswd", "workflows%2F.a.json", "workflows%2Fa%00.json",
     "workflows%5C..%5Ca.json", "workflows%2F", "workflows", "subgraphs%2Fa.json", "workflows%2Fnul.json"],
)  # fmt: skip
def test_nothing_but_a_workflow_is_written(page: Callable[..., Answer], folder: Path, name: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".json", ".yaml", ".css")}
    assert page("POST", f"/userdata/{name}?overwrite=true", b"{}").status in (403, 404)
    assert page("DELETE", f"/userdata/{name}").status in (403, 404, 405)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".json", ".yaml", ".css")}
    assert before == after


def test_the_folder_is_private_and_of_one_server(folder: Path, settings: Settings) -> None:
    from fopru_graph.errors import UserError
    from fopru_graph.server.folders import Folders

    assert folder.stat().st_mode & 0o077 == 0 or folder.parent.stat().st_mode & 0o077 == 0
    assert (folder / "input").stat().st_mode & 0o077 == 0
    with pytest.raises(UserError, match="another server"):
        Folders(folder)
