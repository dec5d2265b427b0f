"""Source of a node type: every file it comes from changes its key, nothing else does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import pytest

from fopru_graph.graph import Registry
from fopru_graph.identity import source_of

PACK = {
    "__init__.py": "from .scale import Scale\n",
    "base.py": """
        from fopru_graph.graph import Node
        class Scaled(Node):
            def scaled(self, value):
                return 2 * value
    """,
    "helper.py": "from . import deeper\ndef shift(value):\n    return value + deeper.STEP\n",
    "deeper.py": "STEP = 1\n",
    "unrelated.py": "NOTHING = 0\n",
    "scale.py": """
        from __future__ import annotations
        from fopru_graph.graph import node
        from .base import Scaled
        FACTOR = 3
        def times(value):
            return value * FACTOR
        @node(category="test")
        class Scale(Scaled):
            \"\"\"Scale a number.\"\"\"
            def run(self, value: float = 1.0) -> float:
                from .helper import shift
                return times(shift(self.scaled(value)))
    """,
}


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return write(tmp_path / "mine")


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, text in PACK.items():
        indent = " " * 8 if text.startswith("\n") else ""
        (folder / name).write_text(text.replace("\n" + indent, "\n").lstrip("\n"))
    return folder


def loaded(folder: Path) -> type:
    registry = Registry()
    assert registry.load_folder(folder) == []
    return registry.get("Scale").cls


def key(folder: Path) -> object:
    return source_of(loaded(folder)).key()


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> object:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
        return key(folder)

    return change


@pytest.mark.parametrize(
    "change",
    [
        edit("scale.py", "value * FACTOR", "FACTOR * value"),
        edit("scale.py", "FACTOR = 3", "FACTOR = 4"),
        edit("base.py", "2 * value", "2.5 * value"),
        edit("helper.py", "value + ", "value - "),
        edit("deeper.py", "STEP = 1", "STEP = 2"),
    ],
    ids=["its own file", "a constant", "a base class", "a helper that run imports", "what the helper imports"],
)
def test_every_file_it_comes_from_changes_its_key(pack, change):
    before = key(pack)
    assert change(pack) != before


def test_what_it_does_not_come_from_does_not_matter(pack, tmp_path):
    before = key(pack)
    (pack / "unrelated.py").write_text("SOMETHING = 1\n")
    (pack / "further.py").write_text("")
    os.utime(pack / "scale.py", (1, 1))
    assert key(pack) == before
    shutil.copytree(pack, tmp_path / "elsewhere" / "mine")
    assert key(tmp_path / "elsewhere" / "mine") == before


def test_the_files_are_named(pack):
    assert sorted(source_of(loaded(pack)).files) == [
        "mine", "mine.base", "mine.deeper", "mine.helper", "mine.scale",
    ]  # fmt: skip


def test_a_global_that_was_set_changes_the_key_until_it_is_set_back(pack):
    cls = loaded(pack)
    space = sys.modules[cls.__module__].__dict__
    before = source_of(cls).key()
    for value in (4, 3.0, "3", (3,), {"a": 3}):
        space["FACTOR"] = value
        assert source_of(cls).key() != before
    space["FACTOR"] = 3
    assert source_of(cls).key() == before


def test_a_function_that_was_replaced_changes_the_key(pack):
    cls = loaded(pack)
    space = sys.modules[cls.__module__].__dict__
    before, old = source_of(cls).key(), space["times"]
    space["times"] = FunctionType((lambda value: value).__code__, space, "times")
    assert source_of(cls).key() != before
    space["times"] = old
    assert source_of(cls).key() == before


def test_what_is_loaded_counts_and_not_what_was_written_since(pack):
    cls = loaded(pack)
    cls().scaled(1)
    before = source_of(cls).key()
    (pack / "base.py").write_text("raise ValueError\n")  # loaded: the old text is what runs
    assert source_of(cls).key() == before
    (pack / "helper.py").write_text("def shift(value):\n    return value\n")  # not loaded yet: the new text will run
    assert source_of(cls).key() != before


def test_without_any_file_the_byte_code_counts():
    code = (
        "from fopru_graph.graph import Node, node\n"
        "from fopru_graph.identity import digest, source_of\n"
        "def helper(x: int) -> int:\n    return x in {'a', 'b', 'c'} or x + %d\n"
        "@node(category='test')\n"
        "class Mine(Node):\n    def run(self, x: int) -> int:\n        return helper(x)\n"
        "print(digest(source_of(Mine).key()))\n"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", code % step], capture_output=True, text=True, check=True).stdout
        for step in (1, 1, 2)
    ]
    assert outputs[0] == outputs[1] != outputs[2]


def test_a_file_beside_a_lone_file_is_of_its_pack(tmp_path):
    (tmp_path / "beside.py").write_text("STEP = 1\n")
    (tmp_path / "lone.py").write_text(
        "from fopru_graph.graph import Node, node\nimport json, beside\n"
        "@node(category='test')\nclass Lone(Node):\n    def run(self, x: int) -> int:\n        return x + beside.STEP\n"
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from fopru_graph.graph import Registry\nfrom fopru_graph.identity import source_of\n"
        "registry = Registry(); registry.load_folder(sys.argv[1] + '/lone.py')\n"
        "print(*sorted(source_of(registry.get('Lone').cls).files))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["beside", "lone"]


def test_built_in_nodes_come_from_what_they_import():
    files = source_of(Registry.default().get("RankPrune").cls).files
    assert {"fopru_graph.nodes.rank_prune", "fopru_graph.nodes._inputs", "fopru_graph.values"} <= set(files)
    assert any(name.startswith("fopru_graph.pruning.") for name in files)
    assert not any(name.startswith(("fopru_graph.commands", "fopru_graph.report")) for name in files)
