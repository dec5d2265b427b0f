"""``fopru-graph new``: files to begin with. They work as they are, and nothing that exists is overwritten."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path

from rich.markup import escape

from fopru_graph.commands.arguments import fail
from fopru_graph.errors import UserError
from fopru_graph.graph import Registry
from fopru_graph.graph.declare.node import snake_case
from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.terminal.console import say, simple_table, stdout_console
from fopru_graph.terminal.stdout import stdout

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*")
_PIPELINE = "fopru_rank"  # what new pipelines are copies of
_OTHERS = "baseline fopru_rank fastervlm fastv random"


def new_node(name: str, folder: Path, as_json: bool) -> None:
    """Write a scorer, its test and a pipeline with it into ``folder``, and print them and what to do next.

    Ends the program with exit code 2 if the name is bad or taken, and 1 if a file cannot be written.
    """
    stem = _stem(name, "node")
    type_name = "".join(part[:1].upper() + part[1:] for part in re.split("[_-]", name))
    _check_module(stem)
    if Registry.default().find(type_name) is not None:
        _refuse(
            f"there is a node type {type_name} already", f"`fopru-graph nodes {type_name}` shows it; choose another"
        )

    def of(template: str) -> str:
        text = files("fopru_graph.templates").joinpath(template).read_text(encoding="utf-8")
        return text.replace("MyScorer", type_name).replace("my_scorer", stem)

    node, test, pipeline = folder / f"{stem}.py", folder / f"test_{stem}.py", folder / f"{stem}.yaml"
    write_new_files({node: of("my_scorer.py"), test: of("test_my_scorer.py"), pipeline: _pipeline(stem, type_name)})
    described = {
        node: "the node; its rule is the function to change",
        test: "its test, for pytest",
        pipeline: "a pipeline with it",
    }
    _show(described, pipeline, f" --nodes {shlex.quote(str(node))}", as_json)


def new_pipeline(name: str, folder: Path, as_json: bool) -> None:
    """Write a pipeline into ``folder``, and print it and what to do next; it ends the program like `new_node`."""
    stem = _stem(name, "pipeline")
    pipeline = folder / f"{stem}.yaml"
    write_new_files({pipeline: _pipeline(stem, "Significance")})
    _show({pipeline: f"a pipeline, as yet like {_PIPELINE}"}, pipeline, "", as_json)


def _stem(name: str, what: str) -> str:
    """The name of the files."""
    if not _NAME.fullmatch(name):
        _refuse(f"{name!r} cannot be the name of a {what}", "write a letter, then letters and digits, e.g. key_norm")
    stem = snake_case(name.replace("-", "_"))
    if stem in shipped_pipelines():
        _refuse(f"a pipeline that ships is called {stem}", "choose a name that tables can tell from it")
    return stem


def _check_module(stem: str) -> None:
    """Refuse a name that Python, pytest or the loading of nodes would take for something else."""
    if keyword.iskeyword(stem):
        _refuse(f"{stem} is a word of Python's own", f"choose another name, e.g. {stem}_score")
    if stem == "conftest" or stem.startswith("test_"):
        _refuse(f"{stem}.py would be taken for a test", "choose a name that does not begin with test")
    found = None if stem in sys.stdlib_module_names else importlib.util.find_spec(stem)
    elsewhere = found is not None and found.origin is not None and Path(found.origin).parent != Path.cwd()
    if stem in sys.stdlib_module_names or elsewhere:
        _refuse(f"{stem}.py would hide the module {stem} from its test", f"choose another name, e.g. {stem}_score")


def _pipeline(name: str, scorer: str) -> str:
    text = shipped_pipelines()[_PIPELINE].read_text(encoding="utf-8")
    text = re.sub("^name: .*$", f"name: {name}", text, flags=re.MULTILINE)
    about = f"description: The quarter of the visual tokens with the highest scores of {scorer}."
    text = re.sub("^description: .*$", about, text, flags=re.MULTILINE)
    return text.replace("type: Significance", f"type: {scorer}")


def write_new_files(texts: dict[Path, str], option: str = "--to") -> None:
    """Write all files, or none; ends the program with exit code 2 if one is there already. ``option`` names the folder.

    Raises:
        UserError: one cannot be written.
    """
    if taken := [str(path) for path in texts if path.exists()]:
        _refuse(
            f"{taken[0]} is there already", f"choose another name, or another folder with {option}; nothing was written"
        )
    written: list[Path] = []
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as stream:
                written.append(path)
                stream.write(text)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        reason = f"{error.filename} cannot be written: {error.strerror or error}"
        raise UserError(reason, f"choose another folder with {option}") from error


def _show(described: dict[Path, str], pipeline: Path, nodes: str, as_json: bool) -> None:
    file = shlex.quote(str(pipeline))
    commands = [
        f"fopru-graph run {file}{nodes}",
        f"fopru-graph sweep {file} {_OTHERS}{nodes} --task scenes --ratio 0.25 --limit 20",
        "fopru-graph report fopru-eval",
    ]
    if as_json:
        stdout.json({"files": [str(path) for path in described], "next": commands})
        return
    out = stdout_console()
    table = simple_table("file", "")
    for path, about in described.items():
        table.add_row(escape(str(path)), f"[dim]{about}[/]")
    out.print(table)
    say(("\nnext", "bold dim"), to=out)
    for command in commands:
        say(command, to=out)


def _refuse(message: str, hint: str) -> None:
    fail(2, message, hint)
