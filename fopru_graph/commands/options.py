"""The options that several commands share, each declared once: name, type, default, bounds and help.

`option_groups` collects them, by command, into dataclasses; `expand_options` shows the fields of one to Typer. Imports
nothing heavy: `fopru-graph --help` reads it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from fopru_graph.commands.completion import pipeline_names, task_names
from fopru_graph.commands.shipped import find_pipeline, find_pipelines

FileArgument = Annotated[
    Path,
    typer.Argument(
        help="a pipeline's file (YAML, or JSON of ComfyUI), or the name of one that ships",
        callback=find_pipeline,
        autocompletion=pipeline_names,
        show_default=False,
    ),
]
OptionalFileArgument = Annotated[
    Path | None,
    typer.Argument(
        help="a pipeline's file (YAML, or JSON of ComfyUI), or the name of one that ships",
        callback=lambda path: path and find_pipeline(path),
        autocompletion=pipeline_names,
        show_default=False,
    ),
]
_FILES = typer.Argument(
    metavar="FILE…",
    help="pipelines to compare: files, or names of those that ship",
    callback=find_pipelines,
    autocompletion=pipeline_names,
    show_default=False,
)
FilesArgument = Annotated[list[Path], _FILES]
OptionalFilesArgument = Annotated[list[Path] | None, _FILES]
NodesOption = Annotated[
    list[Path] | None, typer.Option("--nodes", help="folder or file with nodes of your own (is run)")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON for machines")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="set a pipeline input, or NODE.INPUT=VALUE; texts as typed, the rest is YAML, as all is after NAME:=VALUE",
    ),
]
WithoutOption = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="NODE", help="disable a node: its input of its output's type passes on instead"),
]
WriteOption = Annotated[Path | None, typer.Option("--output", "-o", help="file to write; stdout without it")]
TaskOption = Annotated[
    str,
    typer.Option(
        "--task",
        help="names or YAML files of tasks between commas; `fopru-graph tasks` lists them",
        autocompletion=task_names,
    ),
]
RatioOption = Annotated[
    str | None, typer.Option(help="shares of the visual tokens to keep; without it each file as it is written")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="[TASK=]PATH", help="records of your own: a JSONL or parquet file, or a folder"),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="only the first so many samples of each task")]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="make results anew that are of another configuration, e.g. of an edited node")
]
EvalOutOption = Annotated[Path, typer.Option(help="folder for results; what is there already is not done again")]

BatchOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="questions that are answered together, in batches of equal work")
]


def changes_of(sets: list[str] | None, without: list[str] | None) -> list[str]:
    """``--set`` and ``--without`` as what ``--set`` takes."""
    return [*(sets or ()), *(f"{name}.enabled=false" for name in without or ())]


class Changing:
    """Options of a command that changes pipelines before it uses them."""

    sets: list[str] | None
    without: list[str] | None

    @property
    def changes(self) -> list[str]:
        """See `changes_of`."""
        return changes_of(self.sets, self.without)


def expand_options(command: Callable[..., int | None]) -> Callable[..., None]:
    """The command as Typer reads it: a parameter typed as a dataclass becomes one option for each of its fields.

    The number that ``command`` returns is the exit code; None is 0.

    >>> @app.command()
    ... @expand_options
    ... def bench(options: BenchOptions, model: ModelOptions) -> int: ...
    """
    groups: dict[str, type[Any]] = {}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if is_dataclass(group := parameter.annotation):
            groups[parameter.name] = group
            shown += _parameters(group)
        else:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        if code := command(**values):
            raise typer.Exit(code)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    call.__signature__ = inspect.Signature(shown)
    return call


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    types = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=types[field.name],
        )
        for field in fields(group)
    ]
