"""The identity of a cell: everything that its rows follow from, by content.

The engine's plan gives each node's part (`fopru_graph.graph.plan`): type, inputs, files and models by content, source.
Here they come together with the task, its data and the versions. An evaluation refuses to add rows to a folder of
another identity, and a sweep takes a cell as done only where its summary has the expected one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

import networkx as nx

from fopru_graph.graph import Plan
from fopru_graph.identity import digest, source_of, versions


def cell_identity(
    plan: Plan, target: str, *, task: Mapping[str, Any], functions: Iterable[Any], data: str
) -> dict[str, Any]:
    """What the rows of a cell are of, as JSON; ``key`` stands for all of it.

    Args:
        plan: of the pipeline as it answers the samples.
        target: the node that answers.
        task: the benchmark: its name, scorer and further values that answers and scores follow from.
        functions: the task's functions, whose source counts.
        data: digest of the records; that of their picture files stands in the rows and in `summary_identity`.
    """
    graph = nx.DiGraph((parent, name) for name, step in plan.steps.items() for parent in step.parents)
    needed = nx.ancestors(graph, target) | {target} if target in graph else {target}
    steps = {name: step for name, step in plan.steps.items() if name in needed}
    sources = [source_of(function) for function in functions if isinstance(function, FunctionType)]
    files = {file: known for source in sources for file, known in source.files.items()}
    for step in steps.values():
        files |= source_of(step.spec.cls).files
    parts = {
        "versions": dict(versions()),
        "task": {**task, "code": [source.key() for source in sources]},
        "data": data,
        "source": dict(sorted(files.items())),
        "pipeline": {name: dict(step.made_of) for name, step in steps.items()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(parts))
    return {"key": digest(plain)} | plain


def summary_identity(identity: Mapping[str, Any], picture_files: Iterable[Sequence[str]]) -> str:
    """What a finished cell is of: its identity, and the digests of each sample's picture files, in their order."""
    return digest([identity["key"], [list(files) for files in picture_files]])


def difference(before: Any, now: Mapping[str, Any]) -> str | None:
    """What differs between two identities, as a part of a sentence; None if nothing does."""
    before = before if isinstance(before, dict) else {}
    if before.get("key") == now["key"]:
        return None
    parts = [part for part in now if part != "key" and before.get(part) != now[part]]
    path, was, is_now = _first(before.get(parts[0]), now[parts[0]], (parts[0],)) if parts else (("key",), "", "")
    return f"{', '.join(parts)} differ; {'.'.join(path)} was {_short(was)}, now it is {_short(is_now)}"


def _first(before: Any, now: Any, path: tuple[str, ...]) -> tuple[tuple[str, ...], Any, Any]:
    """The first place, in the order of ``now``, where two JSON values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *before]):
            if before.get(key) != now.get(key):
                return _first(before.get(key), now.get(key), (*path, key))
    return path, before, now


def _short(value: Any) -> str:
    """A value for a message; of the engine's pairs of type and value the value."""
    match value:
        case ["int" | "float", str(number)]:
            return number
        case ["str" | "bool" | "NoneType", plain]:
            value = plain
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"
