"""A pipeline as a function from pictures and a question to an answer with its figures, one question at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
from fopru_graph.measure.pipelines import generating_node, load_models, name_of
from fopru_graph.measure.timing import NOT_TIMED, time_to_first_token

if TYPE_CHECKING:
    import PIL.Image

    Picture = str | Path | PIL.Image.Image | tuple[str, PIL.Image.Image]


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a question.

    ``report`` holds the figures of the generating node (see `values.Generation.report`), ``ttft_ms`` the time to first
    token, None where a part of it came from the cache.
    """

    text: str
    report: dict[str, Any]
    ttft_ms: float | None
    result: RunResult


class PipelineModel:
    """A pipeline that answers questions about pictures; its model is loaded once.

    >>> from fopru_graph import Graph, PipelineModel
    >>> model = PipelineModel(Graph.load("pipelines/fopru_rank.yaml"))
    >>> answer = model.answer("what does the text say ?", ["demo:street-sign"])
    >>> answer.text, answer.report["visual_tokens"]["kept"]
    ('stop', 64)

    The pictures take the place of the pipeline's LoadImage node, the question that of its prompt. Consecutive questions
    about the same pictures encode them once. Nothing else is carried over, so that an answer does not depend on the
    questions before.

    Args:
        graph: a valid pipeline; it is not changed.
        loaded: outputs of loading nodes by cache key. Give several pipelines the same dictionary, and they share their
            models; what is missing is added.
        cancel: ends a run early.

    Raises:
        UserError: the pipeline has not exactly one LoadImage node and one generating node, in sub-graphs or not.
        NodeError: the model cannot be loaded.

    Attributes:
        handle: the loaded model, a `values.ModelHandle`.
    """

    def __init__(
        self, graph: Graph, loaded: dict[str, dict[str, Any]] | None = None, cancel: CancelToken | None = None
    ) -> None:
        self._cancel = cancel
        self._pictures: dict[str, values.Image] = {}
        graph = graph.flat()
        self._source = _picture_node(graph)
        self._graph = _with_given_pictures(graph, self._source, self._pictures)
        registry = self._graph.registry
        plan = Executor(registry).plan(self._graph)
        self._target = generating_node(graph, plan)
        self._graph.node(self._target).cache = "never"  # so that a repeated question has figures too
        self._encoders = [
            name
            for name, step in plan.steps.items()
            if step.spec.type == "VisionEncode" and "together" not in graph.node(name).inputs
        ]
        self._constant = frozenset(plan.steps) - nx.descendants(plan.flat.links(), self._source)
        loaded = {} if loaded is None else loaded
        handle = load_models(self._graph, plan, loaded, cancel)
        if handle is None:
            raise UserError(f"{name_of(graph)}: no node loads a model", "give pipelines with a LoadModel node")
        self.handle = handle
        cache = MemoryCache(2 * len(plan.steps) + 8)  # the nodes of two questions: consecutive ones share a picture
        for step in plan.steps.values():
            if step.key in loaded:
                cache.put(step.key, loaded[step.key])
        self._executor = Executor(registry, cache=cache)

    def answer(self, prompt: str, pictures: Picture | Sequence[Picture], max_new_tokens: int | None = None) -> Answer:
        """Ask a question about pictures.

        Args:
            prompt: the question; ``<image>`` marks where pictures stand, as in a pipeline's prompt.
            pictures: in their order; each a path (or ``demo:NAME``), a PIL picture, or a pair of an RGB picture and, in
                front of it, an identity of its content, which saves hashing its pixels. A single picture needs no list.
            max_new_tokens: most tokens of the answer; None for what the pipeline says.

        Raises:
            UserError: a picture cannot be read.
            NodeError: a node failed.
            Cancelled: the run was cancelled.
        """
        if isinstance(pictures, str) or not isinstance(pictures, Sequence):
            pictures = [pictures]
        images = [_identified(picture) for picture in pictures]
        self._pictures.clear()
        self._pictures.update(images)
        self.handle.family.last_prompt = None  # else the last digits could depend on the question before
        sets: dict[str, Any] = {f"{self._source}.keys": [key for key, _ in images]}
        sets |= dict.fromkeys((f"{name}.together" for name in self._encoders), len(images) > 1)
        sets |= dict.fromkeys(self._prompt_targets(), prompt)
        if max_new_tokens is not None:
            sets[f"{self._target}.max_new_tokens"] = max_new_tokens
        result = self._executor.run(self._graph, to=self._target, sets=sets, cancel=self._cancel)
        self._sets, self._evaluated = sets, result.plan.keys.taken(result.plan.roots)
        ttft_ms = time_to_first_token(result, self._target, self._constant)
        return Answer(result["text"], result.record.nodes[self._target]["report"], ttft_ms, result)

    def last_run(self) -> RunResult:
        """The values of all nodes for the last question, e.g. to draw what was kept; cached nodes do not run again."""
        return self._executor.run(
            self._graph, targets=sorted(self._evaluated), sets=self._sets, cancel=self._cancel
        )  # fmt: skip

    def seen_size(self) -> tuple[int, int]:
        """(width, height) of the last question's first picture as the model's preprocessing made it.

        Raises:
            UserError: the pipeline encodes its pictures inside of another node, which does not tell.
        """
        if not self._encoders:
            raise UserError("the pipeline has no VisionEncode node that tells the size of its pictures", None)
        result = self._executor.run(self._graph, targets=self._encoders[:1], sets=self._sets, cancel=self._cancel)
        features = next(iter(result.by_node[self._encoders[0]].values()))
        _, height, width = features.pixels[0].shape
        return width, height

    def _prompt_targets(self) -> list[str]:
        """Where the question goes: the pipeline input that the generating node reads, or the node's own input.

        A sub-graph's prompt goes to every node in it that holds the same text.
        """
        given = self._graph.node(self._target).inputs.get("prompt")
        if isinstance(given, Ref) and given.node == INPUTS and given.output:
            return [given.output]
        block = self._target.rpartition("/")[0]
        inside = [(name, entry.inputs) for name, entry in self._graph.nodes.items() if name.startswith(f"{block}/")]
        texts = [(f"{name}.{key}", value) for name, inputs in inside for key, value in inputs.items()]
        same = [target for target, value in texts if isinstance(value, str) and value == given]
        return list(dict.fromkeys([*same, f"{self._target}.prompt"]))


def _identified(picture: Picture) -> tuple[str, values.Image]:
    """A picture with an identity of its content, by which the engine caches what is computed from it."""
    import PIL.Image

    from fopru_graph.lvlm.inputs.images import load_image

    if isinstance(picture, tuple):
        key, pixels = picture
        return key, values.Image(pixels, key)
    if isinstance(picture, str | Path):
        image = load_image(str(picture))
    elif isinstance(picture, PIL.Image.Image):
        image = values.Image(picture.convert("RGB"), "the picture")
    else:
        raise UserError(
            f"a picture is a path or a PIL picture, not {type(picture).__name__}",
            "give e.g. 'photo.jpg' or PIL.Image.open(…)",
        )
    width, height = image.picture.size
    return hashlib.sha256(f"{width}x{height}:".encode() + image.picture.tobytes()).hexdigest(), image


def _picture_node(graph: Graph) -> str:
    names = [name for name, entry in graph.nodes.items() if entry.type == "LoadImage" and entry.enabled]
    if len(names) != 1:
        raise UserError(
            f"{name_of(graph)}: an evaluation puts its pictures in place of the one LoadImage node, there "
            f"{'are ' + str(len(names)) if names else 'is none'}",
            "wire all pictures of a question through one LoadImage",
        )
    return names[0]


def answering_plan(graph: Graph) -> tuple[Plan, str]:
    """The plan by which a `PipelineModel` of ``graph`` answers, and its generating node; no model is loaded.

    A model on ``cuda:3`` answers as one on ``cuda``, so the number of the device is left out.

    Raises:
        UserError: see `PipelineModel`.
    """
    graph = graph.flat()
    answering = _with_given_pictures(graph, _picture_node(graph), {})
    for entry in answering.nodes.values():
        if entry.type == "LoadModel" and isinstance(device := entry.inputs.get("device"), str):
            answering.set(f"{entry.name}.device", device.partition(":")[0])
    plan = Executor(answering.registry).plan(answering)
    return plan, generating_node(graph, plan)


def _with_given_pictures(graph: Graph, source: str, pictures: dict[str, values.Image]) -> Graph:
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
