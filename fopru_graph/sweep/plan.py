"""From the lists of a sweep to its cells: values between commas, their combinations, and the command of every cell."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import Configuration
from fopru_graph.graph import Executor, PipelineError, parse_value
from fopru_graph.results.cell import SUMMARY
from fopru_graph.sweep.jobs import Job

_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\"""")

Combination = tuple[tuple[str, ...], float | None]  # the options of --set, and the ratio


def split_values(text: str) -> list[str]:
    """The values between commas. One in quotes or brackets may hold commas itself; the quotes are then taken off.

    >>> split_values("0.5, [a, b], 'red, or blue?'")
    ['0.5', '[a, b]', 'red, or blue?']

    Raises:
        UserError: a quote or bracket is not closed, or there is nothing between two commas.
    """
    values = list(_pieces(text))
    if len(values) > 1 and "" in values:
        raise UserError(f"{text}: there is nothing between two commas", "write '' for an empty text")
    return [_bare(value) for value in values]


def _pieces(text: str) -> Iterator[str]:
    begin = 0
    while begin <= len(text):
        end = _end_of_value(text, begin)
        yield text[begin:end].strip()
        begin = end + 1


def _end_of_value(text: str, place: int) -> int:
    """Where the value that begins here ends: at a comma outside of quotes and brackets, or with the text."""
    depth, before = 0, ","
    while place < len(text) and (depth or text[place] != ","):
        char = text[place]
        if char in "\"'" and (before == "," or (depth and before in "[{:")):
            if not (quoted := _QUOTED.match(text, place)):
                raise UserError(f"{text}: a quote is not closed", "put the whole value into the other kind of quotes")
            place = quoted.end() - 1
        elif char in "[{" and (depth or before == ","):
            depth += 1
        elif char in "]}" and depth:
            depth -= 1
        before = before if char.isspace() else char
        place += 1
    if depth:
        raise UserError(f"{text}: a bracket is not closed", "put the value into quotes")
    return place


def _bare(value: str) -> str:
    """A value without its quotes; as it stands where it has none, or where something follows them."""
    if not _QUOTED.fullmatch(value):
        return value
    try:
        return str(parse_value(value))
    except PipelineError:
        return value


def combinations(sets: Sequence[str], ratios: Sequence[float] | None, zipped: bool = False) -> list[Combination]:
    """All combinations of the values of every ``--set`` and of the ratios; ``zipped``: the lists in step instead.

    In step, what has a single value keeps it.

    Raises:
        UserError: a ``--set`` is none or given twice, or lists that go in step differ in length.
    """
    axes: dict[str, list[Any]] = {}
    for option in sets:
        target, equals, text = option.partition("=")
        if not equals:
            raise UserError(f"--set {option}: there is no =", "write --set NODE.INPUT=VALUE,VALUE")
        if target in axes:
            raise UserError(f"--set {target} is given twice", f"write one list: --set {target}=VALUE,VALUE")
        axes[target] = [f"{target}={value}" for value in split_values(text)]
    axes["--ratio"] = list(ratios) if ratios is not None else [None]
    rows = zip(*_in_step(axes), strict=True) if zipped else itertools.product(*axes.values())
    return [(tuple(row[:-1]), row[-1]) for row in rows]


def _in_step(axes: Mapping[str, list[Any]]) -> list[list[Any]]:
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


def data_places(tasks: Sequence[str], options: Sequence[str]) -> dict[str, str]:
    """Where the records of a task are, by the task's name, from ``TASK=PATH`` or a path for all others.

    Raises:
        UserError: a path does not exist.
    """
    own = [option.partition("=") for option in options if option.partition("=")[0] in tasks and "=" in option]
    common = [option for option in options if "=" not in option or option.partition("=")[0] not in tasks]
    places = {task: path for path in common for task in tasks} | {task: path for task, _, path in own}
    for path in places.values():
        if not Path(path).exists():
            raise UserError(f"--data {path}: there is no such file or folder", f"tasks here: {', '.join(tasks)}")
    return places


@dataclass(frozen=True)
class CellOptions:
    """What all cells of a sweep have in common; ``extra`` are further options of ``fopru-graph eval``."""

    out: Path
    limit: int | None = None
    retry: bool = False
    extra: tuple[str, ...] = ()


def job_of(
    variant: Configuration, file: Path, sets: Sequence[str], task: str, data: str | None, options: CellOptions
) -> Job:
    """The cell of a pipeline with its settings on a task; its hash is of what is computed, not of how or where."""
    label = variant.folder(task)
    content = {
        "label": label,
        "graph": variant.graph.canonical(),
        "blocks": dict(Executor(variant.graph.registry).plan(variant.graph).flat.blocks),
        "ratio": variant.ratio,
        "task": task,
        "data": None if data is None else str(Path(data).resolve()),
        "limit": options.limit,
    }
    argv = [sys.executable, "-m", "fopru_graph", "eval", str(file), "--task", task]
    argv += ["--ratio", repr(variant.ratio)] if variant.ratio is not None else []
    argv += [part for option in sets for part in ("--set", option)]
    argv += ["--data", f"{task}={data}"] if data is not None else []
    argv += ["--limit", str(options.limit)] if options.limit is not None else []
    argv += ["--retry"] if options.retry else []
    argv += [*options.extra, "--out", str(options.out), "--json"]
    settings = {key: value for key, value in variant.settings.items() if key in {one.partition("=")[0] for one in sets}}
    facts = {"pipeline": variant.pipeline, "task": task, "ratio": variant.ratio, "settings": settings}
    text = json.dumps(content, sort_keys=True).encode()
    return Job(hashlib.sha256(text).hexdigest(), label, tuple(argv), facts)


def distinct(jobs: Sequence[Job]) -> list[Job]:
    """Every cell once, in order.

    Raises:
        UserError: two different cells would share a results folder.
    """
    by_label: dict[str, Job] = {}
    for job in jobs:
        other = by_label.setdefault(job.label, job)
        if other.hash != job.hash:
            raise UserError(
                f"two cells have the results folder {job.label}: {_command(other)} and {_command(job)}",
                "give each pipeline a name of its own (name: …); set ratios by --ratio or by --set, not by both",
            )
    return list(by_label.values())


def _command(job: Job) -> str:
    """The part of a cell's command that a user has written."""
    return " ".join(job.argv[4 : job.argv.index("--out")])


def row_of(job: Job, out: Path) -> dict[str, Any]:
    """One cell for people and for ``--json``: where it stands, and the accuracy that its summary has."""
    folder = out / job.label
    summary: dict[str, Any] = {}
    if job.state == "done":
        try:
            summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            summary = {}
    return {
        "label": job.label,
        **job.facts,
        "state": job.state,
        "rc": job.rc,
        "attempts": job.attempts,
        **{name: summary.get(name) for name in ("accuracy", "n", "errors")},
        "folder": str(folder),
    }
