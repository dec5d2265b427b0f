"""The node pack: what the registry asks of it, what it must not do, and that writing it loses nothing."""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

import fopru_graph
from fopru_graph.comfy import pack
from fopru_graph.comfy.blueprints import blueprints
from fopru_graph.comfy.pack import link_colours, write_pack
from fopru_graph.comfy.plan import plans
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, Registry
from fopru_graph.graph.shipped import shipped_pipelines

REGISTRY = Registry.default()
ROOT = Path(__file__).resolve().parents[2]
COMFY = ROOT / "fopru_graph" / "comfy"
FORBIDDEN = {"subprocess", "socket", "urllib", "http", "requests", "aiohttp", "httpx", "ctypes", "pip", "pty"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder custom_nodes that holds the pack."""
    folder = tmp_path_factory.mktemp("comfy") / "custom_nodes"
    write_pack(folder, REGISTRY)
    return folder


@pytest.fixture(scope="module")
def ours(written: Path) -> Path:
    """The pack's folder."""
    return written / "fopru_graph"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of one file beside the static ones: for what does not depend on the examples."""
    monkeypatch.setattr(pack, "shipped_pipelines", dict)
    monkeypatch.setattr(pack, "blueprints", lambda registry: {})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is in it


def test_it_holds_all_pipelines_laid_out_and_nothing_unexpected(ours: Path) -> None:
    assert {path.name for path in ours.iterdir()} == {
        "LICENSE", "README.md", "__init__.py", "example_workflows", "icon.png", "pyproject.toml", "subgraphs", "web",
    }  # fmt: skip
    assert {path.stem for path in (ours / "example_workflows").iterdir()} == set(shipped_pipelines())
    assert {path.stem for path in (ours / "subgraphs").iterdir()} == set(blueprints(REGISTRY))
    for file in ours.rglob("*.json"):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", file.parent.name) and file.stat().st_size < 2**20
        assert json.loads(file.read_text(encoding="utf-8"))["nodes"]
    for file in (ours / "example_workflows").iterdir():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", file.name), "a template's address takes no other letters"


def test_an_example_is_read_back_as_its_pipeline(ours: Path) -> None:
    assert Graph.load(ours / "example_workflows" / "fopru_fastv.json", REGISTRY) == Graph.load("fopru_fastv", REGISTRY)


def test_the_registry_accepts_its_pyproject(ours: Path) -> None:
    config = tomllib.loads((ours / "pyproject.toml").read_text(encoding="utf-8"))
    project, comfy = config["project"], config["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,98}", project["name"]) and "comfyui" not in project["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"]) and project["version"] == fopru_graph.__version__
    assert (ours / project["license"]["file"]).is_file() and (ours / project["readme"]).is_file()
    assert project["urls"]["Repository"].startswith("https://")
    (needed,) = map(Requirement, project["dependencies"])
    assert needed.name == "fopru-graph" and needed.specifier.contains(fopru_graph.__version__)
    assert comfy["PublisherId"] and comfy["DisplayName"] and Version(comfy["requires-comfyui"].removeprefix(">="))
    assert (ours / comfy["Icon"]).is_file()
    assert all((ours / name).is_dir() for name in comfy["includes"])


def test_the_licence_is_ours(ours: Path) -> None:
    assert (ours / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "GPL-3.0" in (ours / "README.md").read_text(encoding="utf-8")


def test_the_icon(ours: Path) -> None:
    with Image.open(ours / "icon.png") as icon:
        assert icon.size == (400, 400) and icon.format == "PNG"
    assert (ours / "icon.png").stat().st_size < 50_000


def test_no_place_is_left_to_fill_in(ours: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in ours.rglob("*") if path.suffix != ".png" and path.is_file()]
    assert [text for text in texts if "@VERSION@" in text or str(ROOT) in text] == []


def test_every_link_type_of_ours_has_a_colour_of_its_own(ours: Path) -> None:
    colours = link_colours(plans(REGISTRY))
    assert len(set(colours.values())) == len(colours) > 5
    assert all(re.fullmatch(r"FOPRU_[A-Z_]+", name) for name in colours)
    assert {out.type for plan in plans(REGISTRY).values() for out in plan.outputs} - set(colours) <= {
        "*", "IMAGE", "STRING", "INT", "FLOAT", "BOOLEAN",
    }  # fmt: skip
    assert json.dumps(colours, indent=2) in (ours / "web" / "table.js").read_text(encoding="utf-8")


# What it must not do


def syntax(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imported(tree: ast.Module) -> Iterator[str]:
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            yield from (alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            yield item.module or ""
            yield from (f"{item.module}.{alias.name}" for alias in item.names)


def modules_of(start: Path) -> dict[Path, ast.Module]:
    """A file and all modules of our room that it imports, with what they import of it."""
    found: dict[Path, ast.Module] = {}
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found[file] = syntax(file)
        for name in imported(found[file]):
            if name.startswith("fopru_graph.comfy."):
                path = COMFY / (name.split(".")[2] + ".py")
                waiting += [path] if path.is_file() else []
    return found


def test_no_program_no_network_no_route_and_no_text_that_runs(ours: Path) -> None:
    files = modules_of(ours / "__init__.py")
    for file in COMFY.glob("*.py"):
        files |= modules_of(file)
    assert len(files) > 8
    for file, tree in files.items():
        assert {name.partition(".")[0] for name in imported(tree)} & FORBIDDEN == set(), file
        called = {item.func for item in ast.walk(tree) if isinstance(item, ast.Call)}
        names = {item.id for item in called if isinstance(item, ast.Name)}
        attributes = {item.attr for item in ast.walk(tree) if isinstance(item, ast.Attribute)}
        assert names & {"eval", "exec", "compile", "__import__"} == set(), file
        assert attributes & {"routes", "add_routes", "add_static", "system", "popen", "execv", "spawnv"} == set(), file


@pytest.mark.parametrize(
    "code", ["import subprocess", "from urllib import request", "def late():\n    import socket", "import http.client"]
)
def test_the_walk_sees_what_it_looks_for(code: str) -> None:
    assert {name.partition(".")[0] for name in imported(ast.parse(code))} & FORBIDDEN


def test_the_canvas_script_loads_nothing_from_elsewhere(ours: Path) -> None:
    for file in (ours / "web").iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?:|fetch\(|XMLHttpRequest|WebSocket|eval\(|new Function|innerHTML|fetchApi", text)


# Writing it


def test_two_writings_are_equal(written: Path, ours: Path, tmp_path: Path) -> None:
    paths = write_pack(tmp_path, REGISTRY)
    assert contents(tmp_path / "fopru_graph") == contents(ours)
    assert sorted(paths) == sorted(path for path in (tmp_path / "fopru_graph").rglob("*") if path.is_file())
    assert [path.name for path in written.iterdir()] == ["fopru_graph"]


@pytest.mark.usefixtures("small")
def test_an_earlier_pack_is_replaced_whole(tmp_path: Path) -> None:
    write_pack(tmp_path, REGISTRY)
    (tmp_path / "fopru_graph" / "web" / "old.js").write_text("")
    (tmp_path / "fopru_graph" / "__pycache__").mkdir()
    write_pack(tmp_path, REGISTRY)
    assert not (tmp_path / "fopru_graph" / "web" / "old.js").exists()
    assert os.listdir(tmp_path) == ["fopru_graph"]


@pytest.mark.usefixtures("small")
def test_other_folders_beside_it_stay(tmp_path: Path) -> None:
    (tmp_path / "another_pack").mkdir()
    (tmp_path / "fopru_graph").mkdir()  # empty
    write_pack(tmp_path, REGISTRY)
    assert sorted(os.listdir(tmp_path)) == ["another_pack", "fopru_graph"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["foreign", "other project", "broken", "file", "link"])
def test_what_is_no_pack_of_ours_is_refused_and_left(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "fopru_graph"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.mkdir()
        (target / "mine.py").write_text("mine")
        project = {"other project": '[project]\nname = "another"\n[tool.comfy]\n', "broken": "project = 1"}
        if kind in project:
            (target / "pyproject.toml").write_text(project[kind])
    before = contents(tmp_path)
    with pytest.raises(UserError) as refused:
        write_pack(tmp_path, REGISTRY)
    assert refused.value.hint and str(target) in refused.value.message
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("small")
def test_what_stands_beside_an_earlier_pack_is_not_lost(tmp_path: Path) -> None:
    write_pack(tmp_path, REGISTRY)
    (tmp_path / "fopru_graph" / ".git").mkdir()
    with pytest.raises(UserError, match=r"holds \.git beside an earlier pack"):
        write_pack(tmp_path, REGISTRY)
    assert (tmp_path / "fopru_graph" / ".git").is_dir()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("failing", [1, 2])
def test_a_failure_leaves_the_earlier_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    write_pack(tmp_path, REGISTRY)
    (tmp_path / "fopru_graph" / "README.md").write_text("earlier")
    calls = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(28, "No space left on device")
        os.replace(source, target)

    monkeypatch.setattr(pack.os, "rename", rename)
    with pytest.raises(UserError, match=r"fopru_graph: cannot be written: No space left on device"):
        write_pack(tmp_path, REGISTRY)
    assert (tmp_path / "fopru_graph" / "README.md").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["fopru_graph"]


@pytest.mark.usefixtures("small")
def test_a_place_that_is_no_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        write_pack(tmp_path / "file", REGISTRY)
