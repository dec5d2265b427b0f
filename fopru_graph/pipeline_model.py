"""A pipeline as a function from pictures and a question to an answer with its figures, one sample at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import (
    CancelToken,
    Executor,
    Graph,
    GraphNode,
    MemoryCache,
    Node,
    Plan,
    Ref,
    Registry,
    RunResult,
    node,
)
from fopru_graph.graph.values import INPUTS
from fopru_graph.measure.pipelines import generating_node, name_of
from fopru_graph.measure.summary import NOT_TIMED, time_to_first_token

if TYPE_CHECKING:
    import PIL.Image

Pictures = Sequence[tuple[str, "PIL.Image.Image"]]  # each with an identity of its content

_SAMPLE = "SamplePictures"


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer: ``text``, what the generating node reports, and ``ttft_ms``, None where a part came from a cache."""

    text: str
    report: dict[str, Any]
    ttft_ms: float | None
    result: RunResult


class PipelineModel:
    """A pipeline that answers questions about pictures; its model is loaded once.

    The pipeline's only LoadImage node gives way to the sample's pictures, and the generating node gets its question.
    Consecutive questions about the same picture encode it once; nothing else is carried from one sample to the next, so
    that an answer does not depend on what was asked before.

    Args:
        graph: a valid pipeline; it is not changed.
        loaded: outputs of loading nodes by cache key, shared between pipelines; what is missing is added.
        cancel: ends a run early.

    Raises:
        UserError: the pipeline has not exactly one LoadImage node and one generating node at the top level.
        NodeError: the model cannot be loaded.
    """

    def __init__(
        self, graph: Graph, loaded: dict[str, dict[str, Any]] | None = None, cancel: CancelToken | None = None
    ) -> None:
        self._held: dict[str, values.Image] = {}
        self._cancel = cancel
        self._registry = _with_samples(graph.registry, self._held)
        self._graph = graph.copy(self._registry)
        self._source = _picture_node(self._graph)
        self._graph.put(_replaced(self._graph, self._source))
        plan = Executor(self._registry).plan(self._graph)
        self._target = generating_node(graph, plan)
        self._graph.node(self._target).cache = "never"  # so that the same question, asked again, has figures again
        self._encoders = [
            name
            for name, step in plan.steps.items()
            if name in graph and step.spec.type == "VisionEncode" and "together" not in graph.node(name).inputs
        ]
        asked = nx.descendants(plan.flat.links(), self._source)
        self._constant = frozenset(name for name in plan.steps if name not in asked)
        self._cache = MemoryCache(2 * len(plan.steps) + 8)  # the nodes of two samples: consecutive ones share a picture
        self._executor = Executor(self._registry, cache=self._cache)
        self._load(plan, {} if loaded is None else loaded)

    def _load(self, plan: Plan, loaded: dict[str, dict[str, Any]]) -> None:
        steps = [step for step in plan.steps.values() if step.spec.category == NOT_TIMED and step.spec.type != _SAMPLE]
        for step in steps:
            if step.key in loaded:
                self._cache.put(step.key, loaded[step.key])
            else:
                self._executor.run(self._graph, to=step.name, cancel=self._cancel)
                loaded[step.key] = self._cache.get(step.key) or {}
        found = (value for step in steps for value in loaded[step.key].values())
        handle = next((value for value in found if isinstance(value, values.ModelHandle)), None)
        if handle is None:
            raise UserError(f"{name_of(self._graph)}: no node loads a model", "give pipelines with a LoadModel node")
        self.handle = handle

    def answer(self, prompt: str, images: Pictures, max_new_tokens: int | None = None) -> Answered:
        """Ask one question about pictures, in their order.

        Raises:
            NodeError: a node failed on this sample.
            Cancelled: it was asked to stop.
        """
        self.handle.family.last_prompt = None  # else the answer's last digits could depend on the question before
        self._held.clear()
        self._held.update((key, values.Image(picture, key)) for key, picture in images)
        sets: dict[str, Any] = {f"{self._source}.keys": [key for key, _ in images]}
        sets |= dict.fromkeys((f"{name}.together" for name in self._encoders), len(images) > 1)
        sets[self._prompt_target()] = prompt
        if max_new_tokens is not None:
            sets[f"{self._target}.max_new_tokens"] = max_new_tokens
        result = self._executor.run(self._graph, to=self._target, sets=sets, cancel=self._cancel)
        self._sets = sets
        first = time_to_first_token(result, self._target, self._constant)
        return Answered(result["text"], result.record.nodes[self._target]["report"], first, result)

    def look(self) -> RunResult:
        """All values of the last answer's run, from the cache where they are there; for pictures of what was kept."""
        plan = self._executor.plan(self._graph, to=self._target, sets=self._sets)
        return self._executor.run(self._graph, targets=list(plan.steps), sets=self._sets, cancel=self._cancel)

    def _prompt_target(self) -> str:
        """What to set for a question: the pipeline's input that the generating node reads, or the node's own."""
        given = self._graph.node(self._target).inputs.get("prompt")
        if isinstance(given, Ref) and given.node == INPUTS and given.output:
            return given.output
        return f"{self._target}.prompt"


def _picture_node(graph: Graph) -> str:
    found = [name for name, entry in graph.nodes.items() if entry.type == "LoadImage"]
    if len(found) != 1:
        raise UserError(
            f"{name_of(graph)}: an evaluation puts its pictures in place of the one LoadImage node at the top level, "
            f"there are {len(found)}",
            "wire all pictures of a question through one LoadImage",
        )
    return found[0]


def _replaced(graph: Graph, name: str) -> GraphNode:
    return GraphNode(name, _SAMPLE, {"keys": []}, line=graph.node(name).line)


def _with_samples(registry: Registry, held: dict[str, values.Image]) -> Registry:
    """The node types, and one that hands out the pictures in ``held``."""

    @node(category=NOT_TIMED, cache="never")
    class SamplePictures(Node):
        """The pictures of the question that is asked: one, or a list of several."""

        def run(self, keys: list[str]) -> Any:
            pictures = [held[key] for key in keys]
            return pictures[0] if len(pictures) == 1 else pictures

    extended = Registry()
    extended.add(*(spec.cls for spec in registry.types().values()), SamplePictures)
    return extended
