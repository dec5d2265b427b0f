"""The identity of a cell: everything that its rows follow from, by content.

The engine's plan gives each node's part (`fopru_graph.graph.plan`): type, inputs, files and models by content, source.
Here they come together with the task, its data and the versions. An evaluation refuses to add rows to a folder of
another identity, and a sweep takes a cell as done only where its summary has the expected one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

import networkx as nx

from fopru_graph.graph import Plan
from fopru_graph.identity import digest, source_of, versions


def cell_identity(
    plan: Plan, target: str, *, task: str, scorer: str, functions: Iterable[Any], data: str
) -> dict[str, Any]:
    """What the rows of a cell are of, as JSON; ``key`` stands for all of it.

    Args:
        plan: of the pipeline as it answers the samples.
        target: the node that answers.
        task: name of the benchmark.
        scorer: name and version of the rule that judges answers.
        functions: the task's own, whose source counts.
        data: identity of the records.
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
        "task": {"name": task, "scorer": scorer, "code": [source.key() for source in sources]},
        "data": data,
        "files": dict(sorted(files.items())),
        "nodes": {name: dict(step.made_of) for name, step in steps.items()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(parts))
    return {"key": digest(plain)} | plain


def summary_identity(identity: Mapping[str, Any], pictures: Iterable[str]) -> str:
    """What a whole cell is of: its identity, and the pictures of its samples by content, in their order."""
    return digest([identity["key"], list(pictures)])


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What differs between two identities, as the end of a sentence; None where nothing does."""
    if before.get("key") == now["key"]:
        return None
    for part in (name for name in now if name != "key"):
        if before.get(part) != now[part]:
            path, was, is_now = _first(before.get(part), now[part], (part,))
            return f"{'.'.join(path)} was {_short(was)}, now it is {_short(is_now)}"
    return "their keys differ"


def _first(before: Any, now: Any, path: tuple[str, ...]) -> tuple[tuple[str, ...], Any, Any]:
    """The first place, in the order of ``now``, where two JSON values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*now, *before]):
            if before.get(key) != now.get(key):
                return _first(before.get(key), now.get(key), (*path, key))
    return path, before, now


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"
