"""What is shipped is what lies in the folders, imports go one way, and the light commands load no torch."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fopru_graph

ROOT = Path(__file__).resolve().parent.parent
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = CONFIG["tool"]["setuptools"]["packages"]
MAPPED = {"nodes": "fopru_graph.nodes", "pipelines": "fopru_graph.pipelines"}
NODES = sorted(file.stem for file in (ROOT / "nodes").glob("[!_]*.py"))
PIPELINES = sorted(str(file.relative_to(ROOT / "pipelines")) for file in (ROOT / "pipelines").rglob("*.yaml"))
HEAVY = {"torch", "transformers", "accelerate", "matplotlib"}


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter from the repository's root, without plug-ins that import on their own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def folders() -> Iterator[tuple[str, Path]]:
    """Package name and folder of everything that holds Python files and is to be installed."""
    for name, folder in MAPPED.items():
        yield folder, ROOT / name
    for folder in (ROOT / "fopru_graph", *sorted((ROOT / "fopru_graph").rglob("*"))):
        if folder.is_dir() and any(folder.glob("*.py")):
            yield ".".join(folder.relative_to(ROOT).parts), folder


# The list of packages


def test_package_list_equals_the_folders() -> None:
    assert sorted(PACKAGES) == sorted(name for name, _ in folders())
    assert [name for name, folder in folders() if not (folder / "__init__.py").is_file()] == []


def test_the_rooms_of_the_architecture_page_are_the_folders() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## The rooms")[2].partition("## ")[0]
    rooms = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(rooms) == sorted(f"{folder.relative_to(ROOT).as_posix()}/" for _, folder in folders())


def test_mapped_folders_are_flat() -> None:
    for name, target in MAPPED.items():
        assert CONFIG["tool"]["setuptools"]["package-dir"][target] == name
        assert [path for path in (ROOT / name).glob("*/*.py") if path.parent.name != "__pycache__"] == []


def test_package_data_is_there() -> None:
    for package, patterns in CONFIG["tool"]["setuptools"]["package-data"].items():
        folder = dict(folders())[package]
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package} ships {pattern}, but there is none"


def test_one_version() -> None:
    version = CONFIG["project"]["version"]
    assert fopru_graph.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    assert all([spec.operator for spec in pin.specifier] == ["=="] and pin.url is None for pin in pins)
    for text in CONFIG["project"]["dependencies"] + CONFIG["project"]["optional-dependencies"]["dev"]:
        asked = Requirement(text)
        assert asked.specifier.contains(versions[canonicalize_name(asked.name)]), text


# Imports


def imports(file: Path) -> Iterator[str]:
    """Full names of all modules and names that a file imports, those inside functions included."""
    for item in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(item, ast.Import):
            yield from (alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom) and item.level == 0:
            yield from (f"{item.module}.{alias.name}" for alias in item.names)


def test_only_the_command_line_and_the_nodes_import_nodes() -> None:
    """What import-linter cannot see, because `fopru_graph.nodes` lies in another folder than its name says."""
    found = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "fopru_graph").rglob("*.py")
        if any(f"{name}.".startswith(("fopru_graph.nodes.", "nodes.")) for name in imports(file))
    }
    assert found <= {os.path.join("fopru_graph", "cli.py")}


@pytest.mark.parametrize("name", NODES)
def test_a_node_file_imports_absolutely_and_no_peer_of_the_command_line(name: str) -> None:
    for imported in imports(ROOT / "nodes" / f"{name}.py"):
        assert not f"{imported}.".startswith(("nodes.", "fopru_graph.cli.", "fopru_graph.demo."))


def test_every_node_file_is_importable_and_light() -> None:
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(f'fopru_graph.nodes.{name}')\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), 'nodes' in sys.modules)"
    )
    done = python(code, *NODES)
    assert (done.stdout, done.returncode) == ("[] False\n", 0), done.stderr
    assert NODES


@pytest.mark.parametrize(
    "module",
    [f"fopru_graph{part}" for part in ("", ".graph", ".values", ".errors", ".cli", ".server.app")],
)
def test_light_modules_load_no_torch(module: str) -> None:
    done = python(f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))")
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["nodes"], ["validate", "pipelines/fopru_fastv.yaml"], ["validate", "pipelines/vscan.yaml"]],
)
def test_light_commands_load_no_torch(arguments: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('HEAVY', sorted({HEAVY!r} & set(sys.modules))))\n"
        "from fopru_graph.cli import main\n"
        "sys.argv[0] = 'fopru-graph'\n"
        "main()"
    )
    done = python(code, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("HEAVY []\n"), done.stdout


# Make


@pytest.fixture
def make(tmp_path: Path) -> Iterator[list[str]]:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    return ["make", "--no-print-directory", f"VENV={tmp_path / 'venv'}"]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # Without the variables of the make that may be running these tests.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_an_old_python_is_refused_before_anything_is_made(tmp_path: Path, make: list[str]) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = run([*make, "demo", f"PYTHON={old}"])
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert "Python 3.10.1" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_torch_is_installed_first_and_nothing_twice(tmp_path: Path, make: list[str]) -> None:
    planned = [line for line in run([*make, "-n", "demo"]).stdout.splitlines() if "pip install" in line]
    assert len(planned) == 2
    assert all("-c " in line for line in planned)
    assert planned[0].endswith("'torch==2.13.0'")
    assert planned[1].endswith("-e .")
    (stamp,) = (line[6:] for line in run([*make, "-n", "demo"]).stdout.splitlines() if line.startswith("touch "))
    Path(stamp).parent.mkdir()
    Path(stamp).touch()
    assert run([*make, "-n", "demo"]).stdout.splitlines() == [
        f"{tmp_path / 'venv'}/bin/fopru-graph run pipelines/fopru_fastv.yaml"
    ]
    assert "'torch==2.11.0'" in run([*make, "-n", "demo", "TORCH=torch==2.11.0"]).stdout


# Wheel and sdist


def shipped() -> set[str]:
    """What a wheel has to hold, as installed paths."""
    found = set()
    for package, folder in folders():
        patterns = ["*.py", *CONFIG["tool"]["setuptools"]["package-data"].get(package, [])]
        found |= {
            f"{package.replace('.', '/')}/{file.relative_to(folder).as_posix()}"
            for pattern in patterns
            for file in folder.glob(pattern)
        }
    return found


def test_wheel_and_sdist_hold_everything(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "dist", "*.egg-info", "tests")
    shutil.copytree(ROOT, source, ignore=ignored)
    # --no-isolation: nothing is downloaded. The wheel is built from the sdist, so it shows that the sdist is complete.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
        assert any(name.endswith("licenses/LICENSE") for name in opened.namelist())
    assert names == shipped()
    with tarfile.open(archive) as sources:
        held = {name.partition("/")[2] for name in sources.getnames()}
    assert {f"nodes/{name}.py" for name in NODES} | {f"pipelines/{name}" for name in PIPELINES} <= held


# Documentation


def test_the_scorer_of_the_contributors_guide_works(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = (block.partition("```")[0] for block in text.split("```python\n")[1:])
    assert len(example.splitlines()) <= 30
    (tmp_path / "feature_norm.py").write_text(example, encoding="utf-8")
    code = (
        "import sys, torch\n"
        "from fopru_graph import values\n"
        "sys.path.append(sys.argv[1])\n"
        "from feature_norm import FeatureNorm\n"
        "tile = values.Tile(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), (1, 2), 0, None)\n"
        "scored = FeatureNorm()(features=values.VisionFeatures((tile, tile), ()))\n"
        "print([scores.tolist() for scores in scored.scores], scored.grids, scored.direction_names)"
    )
    done = python(code, str(tmp_path))
    assert done.stdout == "[[5.0, 1.0], [5.0, 1.0]] ((1, 2), (1, 2)) ('feature_norm', 'feature_norm')\n", done.stderr


# Extras


def test_every_extra_is_exercised() -> None:
    spec = importlib.util.spec_from_file_location("extras", ROOT / "tools" / "extras.py")
    assert spec is not None and spec.loader is not None
    extras = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extras)
    assert set(extras.EXERCISES) == set(CONFIG["project"]["optional-dependencies"])
    for command in (command for commands in extras.EXERCISES.values() for command in commands):
        assert all((ROOT / part).exists() for part in command if part.startswith("tests/"))


def test_lmms_eval_gets_a_filelock_that_it_can_use() -> None:
    required = map(Requirement, CONFIG["project"]["optional-dependencies"]["lmms-eval"])
    (filelock,) = (requirement for requirement in required if requirement.name == "filelock")
    assert "4.2.12" in filelock.specifier and "4.3.1" not in filelock.specifier


def test_no_text_tells_to_install_from_an_index_that_does_not_have_the_package() -> None:
    rooms = [ROOT / name for name in ("docs", "fopru_graph", "nodes", "pipelines", "tools")]
    files = [*ROOT.glob("*"), *(path for room in rooms for path in room.rglob("*"))]
    texts = [
        path for path in files if path.suffix in (".md", ".py", ".toml", ".txt", ".yaml") or path.name == "Makefile"
    ]
    wrong = re.compile(r"pip install [^\n`]*\bfopru[-_]graph")
    assert [path for path in texts if wrong.search(path.read_text(encoding="utf-8"))] == []
