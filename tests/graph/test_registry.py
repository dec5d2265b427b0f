from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fopru_graph.graph import Graph, Node, PipelineError, Registry, node
from tests.graph import toys

ROOT = Path(__file__).parents[2]
GOOD = '''
from __future__ import annotations
from fopru_graph.graph import Node, node

@node(category="mine")
class {name}(Node):
    """A node of one's own."""
    def run(self, x: int = 1) -> int:
        return x
'''


def problems(registry: Registry, type_name: str) -> list[tuple[str, str]]:
    graph = Graph.loads(f"format: 1\nnodes:\n  n: {{type: {type_name}}}\noutputs: {{n: $n}}\n", registry)
    return [(problem.code, problem.message) for problem in graph.problems()]


def test_a_folder_of_files_and_packages(tmp_path):
    (tmp_path / "one.py").write_text(GOOD.format(name="One"))
    (tmp_path / "_hidden.py").write_text("raise SystemExit")
    (tmp_path / "notes.txt").write_text("no node")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("from .two import Two\n")
    (tmp_path / "pack" / "two.py").write_text(GOOD.format(name="Two"))
    registry = Registry()
    assert registry.load_folder(tmp_path) == []
    assert list(registry.types()) == ["One", "Two"]
    graph = Graph(registry=registry)
    graph.output("x", graph.Two(x=4))
    assert graph.run()["x"] == 4


def test_a_single_file(tmp_path):
    (tmp_path / "one.py").write_text(GOOD.format(name="One"))
    registry = Registry()
    registry.load_folder(tmp_path / "one.py")
    assert list(registry.types()) == ["One"]
    with pytest.raises(PipelineError, match="no folder or file"):
        registry.load_folder(tmp_path / "two.py")


@pytest.mark.parametrize("text", ["import no_such_module\n", "raise SystemExit(3)\n", "def broken(:\n", "1 / 0\n"])
def test_a_use_of_a_type_whose_file_fails_shows_that_error(tmp_path, text):
    (tmp_path / "bad.py").write_text(GOOD.format(name="Bad") + text)
    line = len((tmp_path / "bad.py").read_text().splitlines())
    (tmp_path / "good.py").write_text(GOOD.format(name="Good"))
    registry = Registry()
    [failure] = registry.load_folder(tmp_path)
    assert (failure.types, failure.source) == (("Bad",), str(tmp_path / "bad.py"))
    assert str(failure) == f"{tmp_path / 'bad.py'}:{line} failed to load: {failure.summary}"
    [(code, message)] = problems(registry, "Bad")
    assert code == "pack-failed"
    assert failure.error.strip() in message
    assert f"{tmp_path / 'bad.py'}:{line}" in message
    assert problems(registry, "Good") == []


def test_a_package_that_fails_is_located_in_the_module_that_failed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "pack").mkdir(parents=True)
    (tmp_path / "mine" / "pack" / "__init__.py").write_text("from .two import Two\n")
    text = GOOD.format(name="Two") + "import json\njson.loads('')\n"
    (tmp_path / "mine" / "pack" / "two.py").write_text(text)
    registry = Registry()
    [failure] = registry.load_folder("mine")
    assert failure.where == f"mine/pack/two.py:{len(text.splitlines())}"
    [(code, message)] = problems(registry, "Two")
    assert code == "pack-failed" and failure.where in message


def test_the_tests_of_a_pack_are_not_loaded_with_it(tmp_path):
    for name in ("test_one.py", "conftest.py"):
        (tmp_path / name).write_text("raise SystemExit")
    (tmp_path / "one.py").write_text(GOOD.format(name="One"))
    assert Registry().load_folder(tmp_path) == []


def test_a_file_that_fails_does_not_hide_a_type_that_is_there(tmp_path, registry):
    (tmp_path / "bad.py").write_text("1 / 0\n" + GOOD.format(name="Load"))
    assert len(registry.load_folder(tmp_path)) == 1
    assert problems(registry, "Load") == []


def test_a_wrong_declaration_in_a_folder_is_a_pack_failure(tmp_path):
    (tmp_path / "bad.py").write_text(GOOD.format(name="Bad").replace("x: int = 1", "x"))
    registry = Registry()
    [failure] = registry.load_folder(tmp_path)
    assert "parameter 'x' has no annotation" in failure.summary


def test_the_same_type_from_two_files_is_refused_naming_both(tmp_path):
    (tmp_path / "one.py").write_text(GOOD.format(name="Same"))
    (tmp_path / "two.py").write_text(GOOD.format(name="Same"))
    registry = Registry()
    assert len(registry.load_folder(tmp_path)) == 1
    [(code, message)] = problems(registry, "Same")
    assert code == "pack-failed"
    assert "one.py" in message
    assert "two.py" in message


def test_adding_another_class_of_the_same_name_is_refused(registry):
    @node(category="toy")
    class Load(Node):
        """Another one."""

        def run(self) -> int:
            return 1

    with pytest.raises(PipelineError, match="defined twice"):
        registry.add(Load)
    assert registry.get("Load").cls is toys.Load
    registry.add(toys.Load)


def test_a_path_that_is_given_twice_is_loaded_once(tmp_path):
    (tmp_path / "one.py").write_text(GOOD.format(name="One"))
    registry = Registry()
    assert registry.load_folder(tmp_path) == []
    first = registry.get("One").cls
    assert registry.load_folder(tmp_path / "one.py") == registry.load_folder(tmp_path) == []
    assert registry.get("One").cls is first


def test_the_same_file_under_two_names_is_refused():
    other = Registry()
    other.load_module(toys)
    assert "already loaded as tests.graph.toys" in other.load_folder(toys.__file__)[0].error
    assert "Load" in other.types()


def test_only_classes_defined_in_a_module_belong_to_it(tmp_path):
    (tmp_path / "one.py").write_text(GOOD.format(name="One") + "from tests.graph.toys import Load\n")
    registry = Registry()
    registry.load_folder(tmp_path)
    assert list(registry.types()) == ["One"]


@pytest.mark.parametrize("package", [False, True], ids=["a file", "a module of a package"])
def test_a_new_registry_sees_the_present_text_of_a_file(tmp_path, monkeypatch, package):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    folder = tmp_path / "pack" if package else tmp_path
    folder.mkdir(exist_ok=True)
    if package:
        (folder / "__init__.py").write_text("from .part import *\n")
    for name in ("First", "Other"):  # of one size, and of one second: to Python's byte code the same text
        (folder / "part.py").write_text(GOOD.format(name=name))
        os.utime(folder / "part.py", (1, 1))
        registry = Registry()
        registry.load_folder(tmp_path)
        assert list(registry.types()) == [name]
        assert not list(tmp_path.rglob("__pycache__"))


def test_suggestions_and_unknown_types(registry):
    assert registry.unknown("Scoer").hint == "did you mean 'Score'?"
    assert registry.unknown("load").hint == "did you mean 'Load'?"
    with pytest.raises(PipelineError, match="no node type 'Nope'"):
        registry.get("Nope")


def test_the_default_registry_loads_without_torch():
    """The built-in nodes, entry points, a validation and a run, in a fresh process."""
    script = """
import sys
from fopru_graph.graph import Graph, Registry
registry = Registry.default()
types = registry.types()
graph = Graph.loads("format: 1\\nnodes: {a: {type: Nope}}\\noutputs: {a: $a}\\n", registry)
assert [problem.code for problem in graph.problems()] == ["unknown-type"], graph.problems()
assert not registry.failures, registry.failures
assert "torch" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, cwd="/", check=True)


def test_entry_points_name_a_module_or_a_class(tmp_path, monkeypatch):
    from importlib.metadata import EntryPoint

    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_pack").mkdir()
    (tmp_path / "broken_pack" / "__init__.py").write_text("from .part import Broken\n")
    (tmp_path / "broken_pack" / "part.py").write_text(GOOD.format(name="Broken") + "1 / 0\n")
    points = [
        EntryPoint("toys", "tests.graph.toys", "fopru_graph.nodes"),
        EntryPoint("gone", "no_such_module", "fopru_graph.nodes"),
        EntryPoint("broken", "broken_pack", "fopru_graph.nodes"),
        EntryPoint("odd", "tests.graph.toys:note", "fopru_graph.nodes"),
        EntryPoint("one", "tests.graph.toys:Load", "fopru_graph.nodes"),
    ]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    registry = Registry()
    registry._load_entry_points()
    assert registry.get("Load").cls is toys.Load
    gone, broken, odd = registry.failures
    assert str(gone).startswith("entry point gone = no_such_module failed to load: ModuleNotFoundError")
    part = tmp_path / "broken_pack" / "part.py"
    assert broken.where == f"entry point broken = broken_pack ({part}:{len(part.read_text().splitlines())})"
    assert odd.where == "entry point odd = tests.graph.toys:note"
    [(code, message)] = problems(registry, "Broken")
    assert code == "pack-failed" and broken.where in message
    hint = registry.unknown("Nope").hint
    assert gone.source in hint and odd.source in hint and "broken" not in hint


def test_the_environment_names_folders_and_files_of_nodes(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "one.py").write_text(GOOD.format(name="One"))
    (tmp_path / "two.py").write_text(GOOD.format(name="Two"))
    (tmp_path / "bad.py").write_text(GOOD.format(name="Bad") + "1 / 0\n")
    paths = ["", *(str(tmp_path / name) for name in ("mine", "gone", "bad.py", "two.py", "mine"))]
    monkeypatch.setenv("FOPRU_GRAPH_NODES", os.pathsep.join(paths))
    registry = Registry.default()
    assert {"One", "Two", "RankPrune"} <= set(registry.types())
    assert registry.load_folder(tmp_path / "mine") == []
    gone, bad = registry.failures
    assert str(gone) == f"FOPRU_GRAPH_NODES failed to load: there is no folder or file {tmp_path / 'gone'}"
    assert bad.types == ("Bad",)
    assert str(tmp_path / "mine") in registry.packs
    assert [code for code, _ in problems(registry, "Bad")] == ["pack-failed"]


def test_importing_the_engine_imports_no_torch():
    script = "import sys, fopru_graph.graph; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_pipes_and_broken_links_in_a_folder_are_failures_and_only_its_packs_are_read(tmp_path):
    (tmp_path / ".venv").mkdir()
    os.mkfifo(tmp_path / ".venv" / "not_ours.py")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    failures = Registry().load_folder(tmp_path)
    assert [Path(failure.source).name for failure in failures] == ["gone.py", "pipe.py"]
    assert failures[1].summary == f"{tmp_path}/pipe.py is no regular file"


def test_a_second_thread_waits_until_all_types_are_there():
    registry, begun, go_on, found = Registry(), threading.Event(), threading.Event(), []

    def load() -> None:
        begun.set()
        assert go_on.wait(60)
        registry.add(toys.Load)

    registry._pending = [load]
    threads = [threading.Thread(target=lambda: found.append(registry.find("Load"))) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.2)
    assert found == []
    go_on.set()
    for thread in threads:
        thread.join()
    assert found == [toys.Load.spec] * 2
