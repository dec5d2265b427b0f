"""No workflow opens a file outside ComfyUI's folders: watched by the operating system, not read from messages."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

from fopru_graph.comfy import files
from fopru_graph.comfy.call import NodeFailure
from fopru_graph.comfy.plan import plans
from fopru_graph.errors import UserError
from fopru_graph.graph import InputPath, Registry
from fopru_graph.lvlm.loading.checkpoint import DEMO
from tests.comfy.standin import ComfyUI
from tests.comfy.standin.node_api import HiddenValues

IN_OPEN, IN_NONBLOCK = 0x20, 0o4000
PATHS = {(plan.type, slot.name): slot.socket.path for plan in plans(Registry.default()).values()
         for slot in plan.slots if slot.socket.path is not None}  # fmt: skip
FILES = {"image": "secret.png", "video": "secret.gif", "model": "secret-model", "tokens": "secret.safetensors"}
needs_watch = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify is Linux's")


@contextlib.contextmanager
def watched(*folders: Path) -> Iterator[list[bool]]:
    """Whether anything in the folders was opened or listed meanwhile: an empty list if not."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(IN_NONBLOCK)
    for folder in folders:
        assert libc.inotify_add_watch(watch, str(folder).encode(), IN_OPEN) >= 0
    opened: list[bool] = []
    try:
        yield opened
        with contextlib.suppress(BlockingIOError):  # nothing happened
            opened.append(bool(os.read(watch, 4096)))
    finally:
        os.close(watch)


@pytest.fixture(scope="module")
def outside(comfy: ComfyUI, comfy_root: Path) -> Path:
    """A folder beside ComfyUI's, with files that our nodes could read, and links to them from its folders."""
    folder = comfy_root.parent / "outside"
    folder.mkdir()
    picture = PIL.Image.new("RGB", (64, 64), "red")
    picture.save(folder / "secret.png")
    picture.save(folder / "secret.gif", save_all=True, append_images=[PIL.Image.new("RGB", (64, 64), "blue")])
    (folder / "secret.safetensors").write_bytes((DEMO / "model.safetensors").read_bytes())
    shutil.copytree(DEMO, folder / "secret-model")
    for inside in ("input", "output", "models/LLM"):
        (comfy_root / inside / "linked").symlink_to(folder)
        for name in FILES.values():
            (comfy_root / inside / f"link-{name}").symlink_to(folder / name)
    frames = comfy_root / "input" / "frames"
    frames.mkdir()
    (frames / "1.png").symlink_to(folder / "secret.png")
    return folder


def bad_names(kind: str, outside: Path) -> list[str]:
    name = FILES[kind]
    path = str(outside / name)
    return [
        f"../../outside/{name}", f"../../../outside/{name}", f"..\\..\\outside\\{name}", f"x/../../../outside/{name}",
        f"../../outside/{name} [input]", f"../../outside/{name}[output]", ".. /../outside", "..", ".", "linked/..",
        path, f"{path} [temp]", f"/{path}", f"\\{path}", f"C:{path}", f"\\\\host\\share\\{name}", f"//host/{name}",
        f"~/{name}", "~root/x", f"file://{path}", f"FILE:{path}", f"https://example.org/{name}", f"data:{name}",
        f"{name}\0", f"..\0/{name}", f"{name}\n", f"%2e%2e/%2e%2e/outside/{name}", f"..%2f..%2foutside%2f{name}",
        "CON", "nul.png", "x/aux", "lpt1", "COM9 .txt", f"link-{name}", f"linked/{name}", "linked",
        f"linked/{name} [output]",
        f"demo:../{name}", f"demo:/{path}", f"given:{name}", "random:llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", "", " ",
        "missing.png", *(["frames"] if kind == "video" else []),
    ]  # fmt: skip


@needs_watch
@pytest.mark.parametrize("place", PATHS, ids=".".join)
def test_no_node_opens_a_file_outside(place: tuple[str, str], comfy: ComfyUI, outside: Path) -> None:
    type_name, slot = place
    node = comfy.nodes[type_name]
    inputs = {each.id: each.default for each in node.SCHEMA.inputs if hasattr(each, "default")}
    inputs |= {"frames": 1} if "frames" in inputs else {}
    bound = type(type_name, (node,), {"hidden": HiddenValues("node")})
    for name in bad_names(PATHS[place].kind, outside):
        with watched(outside, outside / "secret-model") as opened:
            assert isinstance(told := node.validate_inputs(**{slot: name}), str), name
            node.fingerprint_inputs(**inputs | {slot: name})
            with pytest.raises(NodeFailure) as raised:
                bound.execute(**inputs | {slot: name})
        assert not opened, f"{name} was opened"
        assert "\n" not in told and len(told) < 300
        said = re.sub("'[^']*'", "", str(raised.value))  # without the name as it was given
        assert str(outside.parent) not in said


def test_no_node_writes_outside(comfy: ComfyUI, comfy_root: Path, outside: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in outside.parent.rglob("*") if comfy_root not in path.parents}
    node = type("SaveText", (comfy.nodes["FopruSaveText"],), {"hidden": HiddenValues("node")})
    for name in bad_names("image", outside):
        refused = node.validate_inputs(file=name) is not True
        with pytest.raises(NodeFailure) if refused else contextlib.nullcontext():
            saved = node.execute(text="x", file=name).args[0].removesuffix(" [output]")
            path = comfy_root / "output" / saved
            assert path.parent == comfy_root / "output" and path.read_text() == "x\n" and not path.is_symlink()
    after = {path: path.stat().st_mtime_ns for path in outside.parent.rglob("*") if comfy_root not in path.parents}
    assert {path for path in after if path != comfy_root and after[path] != before.get(path)} == set()


@needs_watch
def test_the_watch_sees_what_our_nodes_open(comfy: ComfyUI, comfy_root: Path, outside: Path) -> None:
    shutil.copy(outside / "secret.png", comfy_root / "input" / "mine.png")
    with watched(comfy_root / "input") as opened:
        comfy.nodes["FopruLoadImage"].fingerprint_inputs(path="mine.png")
    assert opened
    with watched(outside) as opened:
        os.listdir(outside)
    assert opened


def test_files_of_its_folders_are_found(comfy: ComfyUI, comfy_root: Path, outside: Path) -> None:
    (comfy_root / "input" / "clips").mkdir()
    for name in ("input/a.png", "input/clips/b.PNG", "output/c.safetensors", "temp/d e.png", "output/a.png"):
        (comfy_root / name).write_bytes((outside / "secret.png").read_bytes())
    image, model = InputPath(kind="image"), InputPath(or_name=True, kind="model")
    expected = {
        "a.png": "input/a.png", "clips/b.PNG": "input/clips/b.PNG", "a.png [output]": "output/a.png",
        "d e.png [temp]": "temp/d e.png",
    }  # fmt: skip
    for name, path in expected.items():
        assert files.confined(image, name) == os.path.realpath(comfy_root / path)
    assert files.confined(image, "demo:zoo-gate") == "demo:zoo-gate"
    assert files.confined(model, "demo") == "demo"
    assert "a.png" in files.choices(image) and "demo:zoo-gate" in files.choices(image)
    assert "clips" in files.choices(InputPath(kind="video"))
    assert "c.safetensors [output]" in files.choices(InputPath(kind="tokens"))


def test_models_lie_in_the_folders_of_language_models(comfy: ComfyUI, comfy_root: Path) -> None:
    model = InputPath(or_name=True, kind="model")
    shutil.copytree(DEMO, comfy_root / "models/VLM/mine")
    (comfy_root / "models/VLM/empty").mkdir()
    assert files.choices(model)[0] == "demo"
    assert "mine" in files.choices(model) and "empty" not in files.choices(model)
    assert files.confined(model, "mine") == os.path.realpath(comfy_root / "models/VLM/mine")
    index = {"weight_map": {"a": "../../../outside/secret.safetensors"}}
    (comfy_root / "models/VLM/mine/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="names weights elsewhere"):
        files.confined(model, "mine")


def test_uploads_are_chosen_from_a_list(comfy: ComfyUI, comfy_root: Path) -> None:
    (comfy_root / "input" / "new.png").write_bytes(b"")
    info = comfy.object_info()["FopruLoadImage"]["input"]["required"]["path"]
    assert info[0] == "COMBO" and info[1]["image_upload"] is True and "new.png" in info[1]["options"]
    (comfy_root / "input" / "new.png").unlink()
    again = comfy.object_info()["FopruLoadImage"]["input"]["required"]["path"]
    assert "new.png" not in again[1]["options"]
