"""Notes the widgets of all nodes and the example workflows on ComfyUI's canvas: ``python tools/comfy_widgets.py``.

A stored workflow holds the values of a node's widgets by position alone. So a new input goes behind the others, and
one that was released is neither moved nor removed: this refuses to note such a change, and a test fails of it.
Workflows are added for pipelines that have none; those that were released stay as they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from fopru_graph.comfy.pack import example
from fopru_graph.comfy.plan import plans
from fopru_graph.graph import Registry
from fopru_graph.graph.shipped import shipped_pipelines

RELEASED = Path(__file__).resolve().parent.parent / "tests" / "comfy" / "released" / "widgets.json"
WORKFLOWS = RELEASED.with_name("workflows.jsonl")
HINT = "put new inputs behind the others in the signature of run, and keep released ones where they are"
Widgets: TypeAlias = Mapping[str, Sequence[str]]  # the names of a node's widgets in their order


def present() -> Widgets:
    """The widgets of today's nodes."""
    return {name: [slot.name for slot in plan.widgets] for name, plan in sorted(plans(Registry.default()).items())}


def moves(released: Widgets, today: Widgets) -> list[str]:
    """A sentence for every released widget that is no longer where it was."""
    told = []
    for node, names in released.items():
        if node not in today:
            told.append(f"the node {node} was released and is gone")
            continue
        for position, name in enumerate(names):
            if list(today[node][position : position + 1]) != [name]:
                now = f"is now {today[node].index(name)}" if name in today[node] else "is gone"
                told.append(f"{node}: widget {position} was released as {name}, which {now}")
    return told


def workflows() -> dict[str, dict[str, Any]]:
    """The nodes of the released workflows, as far as reading their values needs them, by pipeline."""
    lines = WORKFLOWS.read_text(encoding="utf-8").splitlines() if WORKFLOWS.exists() else []
    return {noted["pipeline"]: noted for noted in map(json.loads, lines)}


def _noted(name: str, file: Path, registry: Registry) -> dict[str, Any]:
    kept = ("id", "type", "widgets_values", "widgets_values_named")
    nodes = example(file, registry)["nodes"]
    return {"pipeline": name, "nodes": [{key: node[key] for key in kept} for node in nodes]}


def main() -> int:
    """Note today's widgets and new workflows, or say which widgets moved and note nothing."""
    today = present()
    if told := moves(json.loads(RELEASED.read_text(encoding="utf-8")) if RELEASED.exists() else {}, today):
        print("\n".join((*told, HINT)), file=sys.stderr)
        return 1
    lines = (f"{json.dumps(node)}: {json.dumps(names)}" for node, names in today.items())
    RELEASED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    released, registry = workflows(), Registry.default()
    new = {n: _noted(n, file, registry) for n, file in shipped_pipelines().items() if n not in released}
    noted = sorted((released | new).items())
    WORKFLOWS.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for _, each in noted), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
