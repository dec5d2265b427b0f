"""The examples of the documentation are clean for type checkers, as users have them: mypy --strict and pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fopru_graph import nodes
from fopru_graph.graph import Registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^( *)```python\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
# Blocks that need what no test installs.
NOT_HERE = re.compile(r"^\s*(?:from|import) (?:vllm|sglang|ray|daft|pyspark)\b", re.MULTILINE)
# Slow to follow, or without types.
UNTYPED = ("torch", "transformers", "networkx", "matplotlib", "accelerate", "psutil", "av", "openai")
THEIRS = "GenerativePreTrainedModel"  # what pyright wants of the `generate` of transformers, and none of its models has
# Mistakes that both must find, each in a line of its own: they do see the package's types.
MISTAKES = """\
from fopru_graph import aks
from fopru_graph.nodes import RankPrun
from fopru_graph import ask
number: int = ask("photo.jpg", "what is it?").text
ask(3, "what is it?")
ask("photo.jpg", "what is it?", pipeline=3)
"""
WRONG_LINES = [1, 2, 4, 5, 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The examples as files, beside the package as a wheel installs it."""
    folder = tmp_path_factory.mktemp("examples")
    package = folder / "site" / "fopru_graph"
    package.mkdir(parents=True)
    for path in [*(ROOT / "fopru_graph").iterdir(), ROOT / "nodes", ROOT / "pipelines"]:
        (package / path.name).symlink_to(path)
    code = folder / "code"
    code.mkdir()
    for page in PAGES:
        for number, (_, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
            if NOT_HERE.search(text):
                continue
            named = re.match(r"# ([\w/-]+\.py)\n", text)  # a block that is a file begins with its name
            path = code / (named[1] if named else f"{page.stem}_{number}.py")
            path = path if not path.exists() else code / f"{page.stem}_{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")
    (code / "mistakes.py").write_text(MISTAKES)
    return folder


def test_the_examples_are_clean_and_mistakes_are_found(folder):
    (folder / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nmypy_path = site\n[mypy-fopru_graph.*]\nfollow_imports = silent\n"
        f"[mypy-{','.join(f'{name}.*' for name in UNTYPED)}]\nfollow_imports = skip\nignore_missing_imports = True\n"
    )
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"include": ["code"], "extraPaths": ["site"], "typeCheckingMode": "standard"})
    )
    files = sorted(str(path.relative_to(folder)) for path in (folder / "code").rglob("*.py"))
    assert len(files) > 20
    beside = Path(sys.executable).parent
    commands = {
        "mypy": [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            "mypy.ini",
            "--output=json",
            *files,
        ],
        "pyright": [str(beside / "basedpyright"), "--pythonpath", sys.executable, "--outputjson"],
    }
    running = {
        name: subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    printed = {name: process.communicate(timeout=300) for name, process in running.items()}
    mypy = [json.loads(line) for line in printed["mypy"][0].splitlines()]
    found = {"mypy": [(Path(each["file"]).name, each["line"], each["message"]) for each in mypy]}
    found["pyright"] = [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in json.loads(printed["pyright"][0])["generalDiagnostics"]
        if THEIRS not in each["message"]
    ]
    for checker, problems in found.items():
        assert [problem for problem in problems if problem[0] != "mistakes.py"] == [], checker
        assert sorted({line for _, line, _ in problems}) == WRONG_LINES, (checker, problems, printed[checker][1])


def test_what_editors_know_of_nodes_is_what_there_is():
    types = Registry.default().types()
    text = (ROOT / "nodes" / "__init__.py").read_text(encoding="utf-8")
    told = dict(re.findall(r"^    from (\S+) import (\w+) as \w+$", text, re.MULTILINE))
    own = {name: spec for name, spec in types.items() if spec.cls.__module__.startswith("fopru_graph.nodes.")}
    assert told == {spec.cls.__module__: name for name, spec in own.items()}
    for name, spec in own.items():
        assert getattr(nodes, name) is spec.cls
    assert set(told.values()) <= set(dir(nodes))
    for wrong in ("rank_prune_", "RankPrun", "rankprune", "Node", "_FILES_"):
        assert not hasattr(nodes, wrong)
