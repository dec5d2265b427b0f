"""Installs every extra of pyproject.toml into an environment of its own and exercises it: ``make extras``.

What an extra needs changes without this repository. So pip takes the newest versions that fit, as it does for a user,
and not those of constraints.txt. Needs the network, and minutes an extra.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "extras"
PYTEST = ("python", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider")
MAP_TESTS = (*(f"tests/scale/test_{part}.py" for part in ("tables", "worker", "engines")), "tests/test_cli_map.py")
# Programs of the environment of each extra.
EXERCISES: dict[str, tuple[tuple[str, ...], ...]] = {
    "eval": ((*PYTEST, "tests/evaluation/records"),),
    "map": ((*PYTEST, *MAP_TESTS),),
    "ray": ((*PYTEST, "tests/scale/test_ray.py"),),
    "slurm": ((*PYTEST, "tests/sweep"),),
    "video": ((*PYTEST, "tests/lvlm/inputs/test_film.py"),),
    "lmms-eval": ((*PYTEST, "tests/evaluation/test_lmms_eval.py"),),
    "serve": ((*PYTEST, *(f"tests/server/test_{part}.py" for part in ("guard", "chat_pictures", "serve_command"))),),
    "canvas-test": ((*PYTEST, "tests/server/test_browser.py"),),
    "docs": (("mkdocs", "build", "--strict", "-d", str(FOLDER / "site")),),
    "dev": (
        ("ruff", "check", "."),
        ("mypy",),
        ("lint-imports",),
        (*PYTEST, "-n", "2", "tests/graph", "tests/results", "tests/server", "tests/sweep", "tests/test_packaging.py"),
    ),
}


def exercise(extra: str, torch: str) -> str | None:
    """Install an extra and run what uses it; returns what went wrong, or None."""
    folder = FOLDER / extra
    shutil.rmtree(folder, ignore_errors=True)
    programs = folder / "bin"
    pip = (str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check")
    steps: list[tuple[str, ...]] = [
        (sys.executable, "-m", "venv", str(folder)),
        (*pip, torch),
        (*pip, "-e", f".[{extra}]"),
        (str(programs / "pip"), "check"),
        (*pip, "pytest"),
        *((str(programs / program), *arguments) for program, *arguments in EXERCISES[extra]),
    ]
    for step in steps:
        print(f"{extra}: {' '.join(step)}", flush=True)
        if said := _failure(step):
            return f"{' '.join(step)}\n{said}"
    return None


def _failure(command: Sequence[str]) -> str | None:
    """The end of what a command says if it fails; a test that lacks a package exercises nothing."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.stdout[-4000:] if done.returncode or "could not import" in done.stdout else None


def main() -> int:
    """Exercise the extras of the command line, or all; returns the number of those that fail."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", help=f"of {', '.join(extras)}; default: all")
    parser.add_argument("--torch", default="torch", help="a pip requirement, installed first")
    given = parser.parse_args()
    if unknown := set(given.extras) - set(extras):
        parser.error(f"there is no extra {', '.join(sorted(unknown))}")
    failures = {extra: exercise(extra, given.torch) for extra in given.extras or extras}
    for extra, failure in failures.items():
        print(f"{extra}: {'works' if failure is None else f'FAILS at {failure}'}")
    return sum(failure is not None for failure in failures.values())


if __name__ == "__main__":
    sys.exit(main())
