"""A pipeline as a workflow of ComfyUI's canvas: the nodes of its API prompt with places, sizes and links by number.

Sub-pipelines are subgraphs; a value of the pipeline that several widgets show is a node of its own, linked to all.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from fopru_graph.comfy.canvas_nodes import PRIMITIVES
from fopru_graph.comfy.header import KEY, Header
from fopru_graph.comfy.levels import nodes_of
from fopru_graph.comfy.plan import plans
from fopru_graph.comfy.prompt import Prompt, prompt_of
from fopru_graph.comfy.writer import Writer
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, PipelineError, Ref
from fopru_graph.graph.values import INPUTS

CANVAS = "canvas"  # in a pipeline's `ui`: where nodes stand


def workflow_of(graph: Graph) -> dict[str, Any]:
    """The workflow of a pipeline; reading it gives the same pipeline.

    Raises:
        PipelineError, UserError: as `prompt_of`.
    """
    prompt = prompt_of(graph)
    whole, off = _with_disabled(graph, prompt)
    canvas = graph.ui.get(CANVAS) if isinstance(graph.ui, dict) else None
    writer = Writer(plans(graph.registry), graph.name, off)
    found = writer.workflow(with_primitives(whole, graph), canvas if isinstance(canvas, dict) else {})
    found["extra"] = {KEY: Header.of(graph).to_json()}
    return found


def _with_disabled(graph: Graph, prompt: Prompt) -> tuple[Prompt, Set[str]]:
    """The prompt with the pipeline's disabled nodes, and which they are: a canvas shows what it bypasses."""
    if all(entry.enabled for entry in graph.nodes.values()):
        return prompt, frozenset()
    every = graph.copy()
    for entry in every.nodes.values():
        entry.enabled = True
    try:
        whole = prompt_of(every)
    except (PipelineError, UserError):  # it is only valid without them, so they are left out
        return prompt, frozenset()
    return whole, whole.keys() - prompt.keys()


def keep_places(graph: Graph, positions: Mapping[str, tuple[float, float]]) -> None:
    """Note in the pipeline's ``ui`` where nodes stand, by their ids, if that is not where `workflow_of` puts them."""
    try:
        written = workflow_of(graph)
    except (PipelineError, UserError):  # told when it is checked or exported
        return
    automatic = {name: node.position for name, node in nodes_of(written).items()}
    moved = {
        name.replace(":", "/"): list(position)
        for name, position in positions.items()
        if name in automatic and position != automatic[name]
    }
    if moved:
        others = graph.ui if isinstance(graph.ui, dict) else {}
        known = others.get(CANVAS) if isinstance(others.get(CANVAS), dict) else {}
        graph.ui = others | {CANVAS: {**(known or {}), **moved}}


def with_primitives(prompt: Prompt, graph: Graph) -> Prompt:
    """The prompt, with a node for each pipeline input that several widgets show.

    Fractions stay in each widget: ComfyUI's node for them shows one digit behind the point, 0.3 for 0.25.
    """
    found, known = dict(prompt), plans(graph.registry)
    for name in graph.inputs:
        uses = uses_of(graph, name, prompt)
        kinds = {known[prompt[node]["class_type"]].slot(key).kind for node, key in uses}
        values = [prompt[node]["inputs"][key] for node, key in uses]
        if (
            len(uses) < 2
            or len(kinds) > 1
            or not kinds <= PRIMITIVES.keys() - {"float"}
            or values != values[:1] * len(values)
        ):
            continue
        title = name
        while title in found:
            title += "_input"
        type_name, _ = PRIMITIVES[kinds.pop()]
        held: Prompt = {title: {"inputs": {"value": values[0]}, "class_type": type_name, "_meta": {"title": title}}}
        found = held | found
        for node, key in uses:
            found[node] = found[node] | {"inputs": found[node]["inputs"] | {key: [title, 0]}}
    return found


def uses_of(graph: Graph, name: str, prompt: Prompt) -> list[tuple[str, str]]:
    """The inputs of nodes on the canvas, those in sub-pipelines left out, that an input of the pipeline fills."""
    return [
        (entry.name, key)
        for entry in graph.nodes.values()
        for key, value in entry.inputs.items()
        if value == Ref(INPUTS, name) and entry.name in prompt
    ]
