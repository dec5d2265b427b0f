"""The version, the short form of --help, and what the shell completes, by the protocol that Typer's scripts speak."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

import fopru_graph
from fopru_graph.cli import app
from tests.test_cli import invoke, python


def completed(line: str) -> list[str]:
    """What bash offers for the last word of a line; it is empty after a blank."""
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    said = {"_FOPRU_GRAPH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    result = CliRunner().invoke(app, [], env=said, prog_name="fopru-graph")
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.split()


def test_the_version_is_told():
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"fopru-graph {fopru_graph.__version__}\n")


def commands() -> list[tuple[str, ...]]:
    group = typer.main.get_command(app)
    inner = [(name, each) for name, command in group.commands.items() for each in getattr(command, "commands", ())]
    return [(), *((name,) for name in group.commands), *inner]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_h_is_help_everywhere(command):
    short, long = invoke(*command, "-h"), invoke(*command, "--help")
    assert short.exit_code == 0 and "Usage" in short.stdout
    assert short.stdout == long.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fopru-graph ben", ["bench"]),
        ("fopru-graph run fopru_r", ["fopru_rank", "fopru_row"]),
        ("fopru-graph bench fopru_rank fopru_f", ["fopru_fastv"]),
        ("fopru-graph draw fopru_f", ["fopru_fastv"]),
        ("fopru-graph nodes Fast", ["FastVPrune"]),
        ("fopru-graph eval fopru_rank --task scenes,po", ["scenes,pope"]),
        ("fopru-graph run fopru_rank --dtype b", ["bfloat16"]),
        ("fopru-graph compare a.png --pipelines fastv,fopru_fa", ["fastv,fopru_fastv"]),
        ("fopru-graph cache cl", ["clear"]),
        ("fopru-graph run ./fopru", []),  # the shell goes on with files
    ],
)
def test_the_shell_completes(line, offered):
    assert completed(line) == offered


def test_files_of_the_folder_are_completed_beside_shipped_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fopru_mine.yaml").write_text("")
    assert completed("fopru-graph run fopru_m") == ["fopru_mass", "fopru_mine.yaml"]


def test_a_line_that_is_not_finished_is_not_judged():
    assert "--set" in completed("fopru-graph run no-such-pipeline --se")


def test_completing_imports_no_torch():
    code = (
        "import os, sys; from fopru_graph.cli import main\n"
        "os.environ.update(_FOPRU_GRAPH_COMPLETE='complete_bash', COMP_WORDS='fopru-graph nodes Fast')\n"
        "os.environ['COMP_CWORD'] = '2'\n"
        "sys.argv = ['fopru-graph']\n"
        "try: main()\n"
        "finally: print({'torch', 'transformers'} & set(sys.modules))"
    )
    assert python("-c", code).stdout == "FastVPrune\nset()\n"


def test_bash_completes_after_the_script_was_installed(tmp_path):
    script = tmp_path / ".bash_completions" / "fopru-graph.sh"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    (tmp_path / "fopru-graph").write_text(f"#!{sys.executable}\nfrom fopru_graph.cli import main\nmain()\n")
    (tmp_path / "fopru-graph").chmod(0o755)
    typed = (
        f"./fopru-graph --install-completion bash >&2; source {script}; complete -p fopru-graph;"
        "COMP_WORDS=(./fopru-graph run fopru_r); COMP_CWORD=2; _fopru_graph_completion ./fopru-graph;"
        'echo "${COMPREPLY[*]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", typed], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "fopru_rank fopru_row"
    assert str(Path(".bash_completions/fopru-graph.sh")) in (tmp_path / ".bashrc").read_text()
