"""A pipeline as it answers questions about pictures that are given to it, before any model is loaded."""

from __future__ import annotations

from typing import Any

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Executor, Graph, GraphNode, Node, Plan, Registry, node
from fopru_graph.measure.pipelines import generating_node, name_of
from fopru_graph.measure.timing import NOT_TIMED


def answering_plan(graph: Graph) -> tuple[Plan, str]:
    """The plan by which a `PipelineModel` of ``graph`` answers, and its generating node; no model is loaded.

    A model on ``cuda:3`` answers as one on ``cuda``, so the number of the device is left out.

    Raises:
        UserError: see `PipelineModel`.
    """
    graph = graph.flat()
    answering = with_given_pictures(graph, picture_node(graph), {})
    for entry in answering.nodes.values():
        if entry.type == "LoadModel" and isinstance(device := entry.inputs.get("device"), str):
            answering.set(f"{entry.name}.device", device.partition(":")[0])
    plan = Executor(answering.registry).plan(answering)
    return plan, generating_node(graph, plan)


def picture_node(graph: Graph) -> str:
    """The one node of a flat graph whose picture is that of the question.

    Raises:
        UserError: there is none, or more than one.
    """
    names = [name for name, entry in graph.nodes.items() if entry.type == "LoadImage" and entry.enabled]
    if len(names) != 1:
        raise UserError(
            f"{name_of(graph)}: an evaluation puts its pictures in place of the one LoadImage node, there "
            f"{'are ' + str(len(names)) if names else 'is none'}",
            "wire all pictures of a question through one LoadImage",
        )
    return names[0]


def with_given_pictures(graph: Graph, source: str, pictures: dict[str, values.Image]) -> Graph:
    """A copy of the graph in which the node ``source`` gives pictures out of ``pictures``, by their keys."""

    @node(category=NOT_TIMED, cache="never")
    class GivenPictures(Node):
        """The pictures of a question: a picture, or a list of several."""

        def run(self, keys: list[str]) -> Any:
            images = [pictures[key] for key in keys]
            return images[0] if len(images) == 1 else images

    registry = Registry()
    registry.add(*(spec.cls for spec in graph.registry.types().values()), GivenPictures)
    copy = graph.copy(registry)
    copy.put(GraphNode(source, GivenPictures.__name__, {"keys": []}, line=graph.node(source).line))
    return copy
