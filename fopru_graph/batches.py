"""Which pipelines take several questions at once, and where in them the questions go."""

from __future__ import annotations

from collections.abc import Sequence

from fopru_graph import values
from fopru_graph.graph import GraphNode, Plan, Ref
from fopru_graph.graph.annotations import compatible
from fopru_graph.graph.model import Model
from fopru_graph.graph.values import INPUTS, refs_in

MARKER = "<image>"  # marks where pictures stand in a prompt


def prompt_sockets(graph: Model, targets: Sequence[str]) -> list[str]:
    """The inputs of nodes, ``NODE.INPUT``, that get the question.

    Args:
        graph: a pipeline without sub-graphs.
        targets: where the question goes: such inputs, or pipeline inputs by their names.
    """
    wired = {Ref(INPUTS, target) for target in targets}
    reading = [f"{name}.{key}" for name, entry in graph.nodes.items() for key in _inputs_that_are(entry, wired)]
    return [*(target for target in targets if "." in target), *reading]


def _inputs_that_are(entry: GraphNode, wired: set[Ref]) -> list[str]:
    return [key for key, value in entry.inputs.items() if isinstance(value, Ref) and value in wired]


def takes_batches(plan: Plan, source: str, target: str, targets: Sequence[str]) -> bool:
    """Whether a pipeline gives each question of a batch the answer that it has alone.

    Not where a node takes one picture or one question only, where answers are sampled, which draws for all of a batch
    in turn, or where the generating node keeps no figures of each answer.

    Args:
        plan: up to the node ``target``, which generates.
        source: the node that gives the pictures.
        targets: where the question goes, see `prompt_sockets`.
    """
    graph, step = plan.flat, plan.steps[target]
    asked, wired = set(prompt_sockets(graph, targets)), {Ref(INPUTS, name) for name in targets}
    for name, node_step in plan.steps.items():
        for key, value in graph.nodes[name].inputs.items():
            refs = {ref for _, ref in refs_in(value)}
            kind = node_step.spec.inputs[key].annotation
            if f"{name}.{key}" in asked:
                fits = compatible(list[str], kind)
            elif any(ref.node == source for ref in refs):
                fits = isinstance(value, Ref) and compatible(list[values.Image], kind)
            else:
                fits = not refs & wired
            if not fits:
                return False
    has_figures = any(socket.annotation is values.Generation for socket in step.spec.outputs.values())
    return has_figures and not step.inputs.get("temperature")
