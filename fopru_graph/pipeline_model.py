"""A pipeline as a function from pictures and questions to answers with their figures, one by one or as a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import networkx as nx

from fopru_graph import values
from fopru_graph.answer import Answer
from fopru_graph.answering import picture_node, with_given_pictures
from fopru_graph.batches import prompt_sockets, takes_batches
from fopru_graph.errors import UserError
from fopru_graph.graph import (
    CancelToken,
    Event,
    Executor,
    Graph,
    MemoryCache,
    Ref,
    RunResult,
)
from fopru_graph.graph.values import INPUTS
from fopru_graph.lvlm.inputs.chat import MARKER
from fopru_graph.measure.pipelines import generating_node, load_models, name_of
from fopru_graph.measure.timing import time_to_first_token

if TYPE_CHECKING:
    import PIL.Image

    from fopru_graph.lvlm.inputs.pictures import Picture

    Asked = Picture | tuple[str, PIL.Image.Image]

# Pruning inside the language model puts hooks into it, so a model answers one question at a time.
_ALONE: WeakKeyDictionary[values.ModelHandle, threading.RLock] = WeakKeyDictionary()


class PipelineModel:
    """A pipeline that answers questions about pictures; its model is loaded once.

    Examples:
        >>> from fopru_graph import Graph, PipelineModel
        >>> model = PipelineModel(Graph.load("pipelines/fopru_rank.yaml"))
        >>> answer = model.answer("what does the text say ?", ["demo:street-sign"])
        >>> answer.text, answer.report["visual_tokens"]["kept"]
        ('stop', 64)

    The pictures take the place of the pipeline's LoadImage node, the question that of its prompt. Consecutive questions
    about the same pictures encode them once. Nothing else is carried over, so that an answer does not depend on the
    questions before. Threads may share it, and pipelines of one model: questions wait for each other.

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
        generating: the name of the node that answers, with ``block/`` before it where it stands in a sub-graph.
    """

    def __init__(
        self, graph: Graph, loaded: dict[str, dict[str, Any]] | None = None, cancel: CancelToken | None = None
    ) -> None:
        self._cancel = cancel
        self._pictures: dict[str, values.Image] = {}
        graph = graph.flat()
        self._source = picture_node(graph)
        self._graph = with_given_pictures(graph, self._source, self._pictures)
        registry = self._graph.registry
        plan = Executor(registry).plan(self._graph)
        self.generating = generating_node(graph, plan)
        self._graph.node(self.generating).cache = "never"  # so that a repeated question has figures too
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
        self._alone = _ALONE.setdefault(handle, threading.RLock())

    def answer(
        self,
        prompt: str,
        pictures: Asked | Sequence[Asked],
        max_new_tokens: int | None = None,
        *,
        sets: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        cancel: CancelToken | None = None,
    ) -> Answer:
        """Ask a question about pictures, or about none, which then is one to the language model alone.

        Args:
            prompt: the question; ``<image>`` marks where pictures stand, as in a pipeline's prompt.
            pictures: in their order; each of any kind that `to_picture` takes, or a pair of an RGB picture of PIL and,
                in front of it, an identity of its content, which saves hashing its pixels. A single picture needs no
                list.
            max_new_tokens: most tokens of the answer; None for what the pipeline says.
            sets: values of other inputs for this question, as in `Graph.set`: ``ratio``, or of nodes, ``prune.over``.
                Not those of nodes that load the model.
            on_event: called with the events of the run; `NodeText` has the answer piece by piece.
            cancel: ends this run early, in place of the one that the class was given.

        Raises:
            UserError: a picture cannot be read, or there is none and the pipeline cannot do without.
            PipelineError: ``sets`` names no input, or gives it a value that it does not take.
            NodeError: a node failed.
            Cancelled: the run was cancelled.
        """
        given = _listed(pictures)
        images = [_identified(picture) for picture in given]
        with self._alone:
            self._pictures.clear()
            given_sets = {**(sets or {}), **dict.fromkeys(self._prompt_targets(), prompt)}
            result = self._run(images, given_sets, len(images) > 1, max_new_tokens, on_event, cancel)
        ttft_ms = time_to_first_token(result, self.generating, self._constant)
        report = result.record.nodes[self.generating]["report"]
        return Answer(result["text"], report, ttft_ms, result, partial(self._values, given, result))

    def answers(
        self,
        questions: Sequence[tuple[str, Asked]],
        max_new_tokens: int | None = None,
        *,
        sets: Mapping[str, Any] | None = None,
    ) -> list[Answer]:
        """Ask several questions, each about one picture, in one run of the pipeline; answers in their order.

        They are those that `answer` gives but for rounding. Pipelines that take no batch (see `batches`) answer one by
        one.

        Args:
            questions: prompts and pictures as for `answer`. All in one batch: the caller chooses how many fit.
            max_new_tokens: most tokens of each answer; None for what the pipeline says.
            sets: values of other inputs for all questions, as for `answer`.

        Raises:
            UserError: a picture cannot be read.
            PipelineError: as for `answer`.
            NodeError: a node failed; one question can fail a batch.
            Cancelled: the run was cancelled.
        """
        if len(questions) < 2 or not (self._takes_batches(sets) if sets else self.batches):
            return [self.answer(prompt, [picture], max_new_tokens, sets=sets) for prompt, picture in questions]
        answers: dict[int, Answer] = {}
        with self._alone:
            self._pictures.clear()
            for named in (False, True):  # the images of a batch go by its markers if there are any, else one to each
                places = [at for at, (prompt, _) in enumerate(questions) if (MARKER in prompt) == named]
                if places:
                    batch = [questions[at] for at in places]
                    answers |= zip(places, self._batch(batch, max_new_tokens, sets or {}), strict=True)
        return [answers[at] for at in range(len(questions))]

    def _batch(
        self, questions: Sequence[tuple[str, Asked]], max_new_tokens: int | None, sets: Mapping[str, Any]
    ) -> list[Answer]:
        images = [_identified(picture) for _, picture in questions]
        sockets = prompt_sockets(self._graph, self._prompt_targets())
        prompts = dict.fromkeys(sockets, [prompt for prompt, _ in questions])
        result = self._run(images, {**sets, **prompts}, False, max_new_tokens)
        report = result.record.nodes[self.generating]["report"]
        shared = {key: figure for key, figure in report.items() if key != "each"}
        each = report.get("each") or [{}]  # of a single question, which the other ones' markers have left alone
        return [
            Answer(text, shared | figures, None, result, place=place)
            for place, (text, figures) in enumerate(zip(result["text"], each, strict=True))
        ]

    def _run(
        self,
        images: Sequence[tuple[str, values.Image]],
        sets: dict[str, Any],
        together: bool,
        max_new_tokens: int | None,
        on_event: Callable[[Event], None] | None = None,
        cancel: CancelToken | None = None,
    ) -> RunResult:
        self._pictures.update(images)
        self.handle.family.last_prompt = None  # else the last digits could depend on the question before
        sets = sets | {f"{self._source}.keys": [key for key, _ in images]}
        sets |= dict.fromkeys((f"{name}.together" for name in self._encoders), together)
        if not images:
            sets |= self._without_pictures()
        if max_new_tokens is not None:
            sets[f"{self.generating}.max_new_tokens"] = max_new_tokens
        cancel = cancel or self._cancel
        result = self._executor.run(self._graph, to=self.generating, sets=sets, on_event=on_event, cancel=cancel)
        self._last = result
        return result

    def _without_pictures(self) -> dict[str, None]:
        """The inputs that the generating node is not to get where there is no picture to prune."""
        given = self._graph.node(self.generating).inputs
        if "tokens" not in given:
            raise UserError(f"{name_of(self._graph)} answers questions about pictures only", "give a picture")
        return {f"{self.generating}.{key}": None for key in ("tokens", "pruners") if key in given}

    def last_run(self) -> RunResult:
        """The values of all nodes of the last run, e.g. to draw what was kept; cached nodes do not run again."""
        return self._all_values(self._last)

    def _all_values(self, result: RunResult) -> RunResult:
        others = result.plan.keys.taken(result.plan.roots) - {self.generating}
        seen = self._executor.run(result.plan.graph, targets=sorted(others), cancel=self._cancel)
        return replace(seen, by_node={**seen.by_node, **result.by_node}, plan=result.plan)

    def _values(self, given: Sequence[Asked], result: RunResult) -> RunResult:
        """The values of all nodes for an earlier question, whose answer was ``result``."""
        images = [_identified(picture) for picture in given]
        if [key for key, _ in images] != result.plan.steps[self._source].inputs["keys"]:
            raise UserError("the picture has changed since it was asked about", "ask again")
        with self._alone:
            self._pictures.update(images)
            return self._all_values(result)

    def seen_size(self, answer: Answer | None = None) -> tuple[int, int]:
        """(width, height) of a question's first picture as the model's preprocessing made it.

        Args:
            answer: one of the last call; None for the last question.

        Raises:
            UserError: the pipeline encodes its pictures inside of another node, which does not tell.
        """
        if not self._encoders:
            raise UserError("the pipeline has no VisionEncode node that tells the size of its pictures", None)
        result, place = (self._last, 0) if answer is None else (answer.result, answer.place)
        run = self._executor.run(result.plan.graph, targets=self._encoders[:1], cancel=self._cancel)
        features = next(iter(run.by_node[self._encoders[0]].values()))
        tile = next(number for number, tile in enumerate(features.tiles) if tile.image == place)
        _, height, width = features.pixels[tile].shape
        return width, height

    @cached_property
    def batches(self) -> bool:
        """Whether several questions can go through the pipeline at once, see `takes_batches`."""
        return self._takes_batches()

    def _takes_batches(self, sets: Mapping[str, Any] | None = None) -> bool:
        plan = self._executor.plan(self._graph, to=self.generating, sets=sets)
        return takes_batches(plan, self._source, self.generating, self._prompt_targets())

    def _prompt_targets(self) -> list[str]:
        """Where the question goes: the pipeline input that the generating node reads, or the node's own input.

        A sub-graph's prompt goes to every node in it that holds the same text.
        """
        given = self._graph.node(self.generating).inputs.get("prompt")
        if isinstance(given, Ref) and given.node == INPUTS and given.output:
            return [given.output]
        block = self.generating.rpartition("/")[0]
        inside = [(name, entry.inputs) for name, entry in self._graph.nodes.items() if name.startswith(f"{block}/")]
        texts = [(f"{name}.{key}", value) for name, inputs in inside for key, value in inputs.items()]
        same = [target for target, value in texts if isinstance(value, str) and value == given]
        return list(dict.fromkeys([*same, f"{self.generating}.prompt"]))


def _listed(pictures: Asked | Sequence[Asked]) -> Sequence[Asked]:
    """The pictures as a sequence; a text and bytes are one picture."""
    several = isinstance(pictures, Sequence) and not isinstance(pictures, str | bytes | bytearray | memoryview)
    return cast("Sequence[Asked]", pictures if several else [pictures])


def _identified(picture: Asked) -> tuple[str, values.Image]:
    """A picture with an identity of its content, by which the engine caches what is computed from it."""
    from fopru_graph.lvlm.inputs.pictures import digest, to_picture

    if isinstance(picture, tuple):
        key, pixels = picture
        return key, values.Image(pixels, key)
    image = to_picture(picture)
    return digest(image), image
