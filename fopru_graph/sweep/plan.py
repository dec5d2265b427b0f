"""The plan of a sweep: values between commas, their combinations, and the cells that they make."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import Configuration
from fopru_graph.evaluation.task import Task
from fopru_graph.evaluation.tasks import get_task
from fopru_graph.graph import PipelineError, expand, parse_value
from fopru_graph.sweep.cells import Cell

_QUOTED = re.compile(r"""'(?:[^']|'')*+'|"(?:[^"\\]|\\.)*+\"""")
_NESTED = re.compile(
    r"""(?<=[\[{:,])\s*(?:'(?:[^']|'')*+(?:'|$)|"(?:[^"\\]|\\.)*+(?:"|$))"""
)  # quoted, within brackets

Combination = tuple[tuple[str, ...], float | None]  # the options of --set, and the ratio


def split_values(text: str) -> list[str]:
    """The values between commas. A value in quotes or brackets may hold commas itself; its quotes are taken off.

    >>> split_values("0.5, [a, b], 'red, or blue?'")
    ['0.5', '[a, b]', 'red, or blue?']

    Raises:
        UserError: a quote or bracket is not closed, or there is nothing between two commas.
    """
    values = [""]
    for piece in text.split(","):
        values[-1] += piece
        if _is_whole(values[-1].strip()):
            values.append("")
        else:
            values[-1] += ","
    if values.pop():
        raise UserError(f"{text}: a quote or bracket is not closed", "put the whole value into (other) quotes")
    values = [value.strip() for value in values]
    if len(values) > 1 and "" in values:
        raise UserError(f"{text}: there is nothing between two commas", "write '' for an empty text")
    return [_bare(value) for value in values]


def _is_whole(value: str) -> bool:
    """Whether the quote or bracket that a value begins with is closed in it."""
    if value.startswith(("'", '"')):
        return _QUOTED.match(value) is not None
    if value.startswith(("[", "{")):
        rest = _NESTED.sub("", value)
        return rest.count("[") + rest.count("{") <= rest.count("]") + rest.count("}")
    return True


def _bare(value: str) -> str:
    """A value without its quotes; unchanged if it has none, or if something follows them."""
    if not _QUOTED.fullmatch(value):
        return value
    try:
        return str(parse_value(value))
    except PipelineError:
        return value


def combinations(sets: Sequence[str], ratios: Sequence[float] | None, zipped: bool = False) -> list[Combination]:
    """All combinations of the values of every ``--set`` and of the ratios.

    ``zipped``: the first values together, then the second, and so on; a single value goes with each of them.

    Raises:
        UserError: a ``--set`` has no ``=`` or is given twice, or zipped lists differ in length.
    """
    axes: dict[str, list[Any]] = {}
    for option in sets:
        name, equals, text = option.partition("=")
        target = name.removesuffix(":")
        if not equals:
            raise UserError(f"--set {option}: there is no =", "write --set NODE.INPUT=VALUE,VALUE")
        if target in axes:
            raise UserError(f"--set {target} is given twice", f"write one list: --set {target}=VALUE,VALUE")
        axes[target] = [f"{name}={value}" for value in split_values(text)]
    axes["--ratio"] = list(ratios) if ratios is not None else [None]
    combined = zip(*_zippable(axes), strict=True) if zipped else itertools.product(*axes.values())
    return [(tuple(sets), ratio) for *sets, ratio in combined]


def _zippable(axes: Mapping[str, list[Any]]) -> list[list[Any]]:
    """The lists, each as long as the longest."""
    lists = {name: len(values) for name, values in axes.items() if len(values) > 1}
    if not lists:
        raise UserError("--zip: there are no lists to walk in step", "write e.g. --set NODE.INPUT=1,2 --ratio 1,0.5")
    if len(set(lists.values())) > 1:
        lengths = ", ".join(f"{name} has {count}" for name, count in lists.items())
        raise UserError(
            f"--zip walks lists of the same length: {lengths} values", "leave out --zip for all combinations"
        )
    count = next(iter(lists.values()))
    return [values * count if len(values) == 1 else values for values in axes.values()]


def data_paths(tasks: Sequence[str], options: Sequence[str]) -> dict[str, str]:
    """The path of each task's records, from ``TASK=PATH``, or from a path for all tasks that have none.

    Raises:
        UserError: a path does not exist.
    """
    paths: dict[str, str] = {}
    for_one: dict[str, str] = {}
    for option in options:
        task, equals, path = option.partition("=")
        if equals and task in tasks:
            for_one[task] = path
        else:
            paths = dict.fromkeys(tasks, option)
    paths |= for_one
    for path in paths.values():
        if not Path(path).exists():
            raise UserError(f"--data {path}: there is no such file or folder", f"tasks here: {', '.join(tasks)}")
    return paths


@dataclass(frozen=True)
class CommonOptions:
    """What all cells of a sweep have in common; ``extra`` are further options of ``fopru-graph eval``."""

    out: Path
    limit: int | None = None
    retry: bool = False
    extra: tuple[str, ...] = ()


def cell_of(
    configuration: Configuration, file: Path, sets: Sequence[str], task: Task, data: str | None, common: CommonOptions
) -> Cell:
    """The cell of a pipeline on a task. ``sets`` are the values of ``--set`` that it has, for its command."""
    # -P: no Python file of the current folder takes the place of a module.
    argv = [sys.executable, "-P", "-m", "fopru_graph", "eval", str(file), "--task", task.reference]
    argv += ["--ratio", repr(configuration.ratio)] if configuration.ratio is not None else []
    argv += [part for option in sets for part in ("--set", option)]
    argv += ["--data", f"{task.name}={data}"] if data is not None else []
    argv += ["--limit", str(common.limit)] if common.limit is not None else []
    argv += ["--retry"] if common.retry else []
    argv += [*common.extra, "--out", str(common.out), "--json"]
    targets = {option.partition("=")[0].removesuffix(":") for option in sets}
    settings = {key: value for key, value in configuration.settings.items() if key in targets}
    return Cell(
        configuration.folder(task.name),
        tuple(argv),
        request_of(configuration, task, data, common.limit),
        partial(expected_identity, configuration, task.reference, data, common.limit),
        {"pipeline": configuration.pipeline, "task": task.name, "ratio": configuration.ratio, "settings": settings},
    )


def request_of(configuration: Configuration, task: Task, data: str | None, limit: int | None) -> str:
    """Digest of what is asked for: pipeline, ratio, task, data by path, limit. Unlike an identity it loads no torch."""
    content = {
        "label": configuration.folder(task.name),
        "graph": configuration.graph.canonical(),
        "blocks": dict(expand(configuration.graph)[0].blocks),
        "ratio": configuration.ratio,
        "task": task.facts,
        "data": None if data is None else str(Path(data).resolve()),
        "limit": limit,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def expected_identity(configuration: Configuration, task: str, data: str | None, limit: int | None) -> str:
    """The identity that the cell's summary must have; ``task`` is a name or a file.

    Loads torch, and reads weights, data and pictures once.
    """
    from fopru_graph.evaluation.runner import finished_identity, identity_of

    opened = get_task(task)
    records = opened.open(data, limit)
    return finished_identity(identity_of(configuration.graph, opened, records), records)


def distinct(cells: Sequence[Cell]) -> list[Cell]:
    """Every cell once, in order.

    Raises:
        UserError: two different cells would share a results folder.
    """
    by_label: dict[str, Cell] = {}
    for cell in cells:
        other = by_label.setdefault(cell.label, cell)
        if other.request != cell.request:
            raise UserError(
                f"two cells have the results folder {cell.label}: {_options(other)} and {_options(cell)}",
                "give each pipeline a name of its own (name: …); set ratios by --ratio or by --set, not by both",
            )
    return list(by_label.values())


def _options(cell: Cell) -> str:
    """The part of a cell's command that a user has written."""
    return " ".join(cell.argv[cell.argv.index("eval") + 1 : cell.argv.index("--out")])
