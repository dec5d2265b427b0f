"""``ask``: a question about a picture, in one call, with the model kept for the next one."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph.answer import Answer
from fopru_graph.graph import CancelToken, Event, Executor, Graph, NodeText, Registry
from fopru_graph.measure.pipelines import at_ratio
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.streaming import Stream

if TYPE_CHECKING:
    from fopru_graph.lvlm.inputs.pictures import Picture

_MOST = 4  # pipelines that are kept, all of one model
Events = Callable[[Event], None]


class Ask:
    """Answers questions about pictures; ``fopru_graph.ask`` is one of these, for the whole process.

    Examples:
        >>> from fopru_graph import ask
        >>> answer = ask("demo:street-sign", "what does the text say ?", ratio=0.25)
        >>> answer.text, answer.figures["visual_tokens"]["kept"]
        ('stop', 64)

    The last model stays loaded, with the pipelines that were asked last; `clear` gives the memory back. Threads may
    ask at the same time: a model answers one question after the other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registry: Registry | None = None
        self._loaded: dict[str, dict[str, Any]] = {}  # the model's node by its cache key
        self._models: OrderedDict[tuple[str, int], PipelineModel] = OrderedDict()

    def __call__(
        self,
        image: Picture | Sequence[Picture],
        prompt: str,
        *,
        model: str | None = None,
        pipeline: str | Path | Graph = "fopru_rank",
        ratio: float | None = None,
        max_new_tokens: int | None = None,
        on_event: Events | None = None,
        cancel: CancelToken | None = None,
        **sets: Any,
    ) -> Answer:
        """Ask a question about a picture, or about several.

        Args:
            image: a path, ``demo:NAME``, the bytes of a file, a PIL picture, an array or a tensor (see `to_picture`),
                or a list of these.
            prompt: the question; ``<image>`` marks where several pictures stand in it.
            model: ``demo``, a folder, or a name of the hub; None for what the pipeline says, which is ``demo`` in those
                that ship.
            pipeline: the name of one that ships, the path of a YAML file, or a `Graph`.
            ratio: share of the visual tokens that is left in the last layer, in (0, 1]; None: what the pipeline says.
            max_new_tokens: most tokens of the answer; None for what the pipeline says.
            on_event: called with the events of the run; `NodeText` has the answer piece by piece.
            cancel: ends the run early when another thread sets it.
            **sets: values of other inputs, ``positions="original"``, or of nodes, ``**{"prune.over": "all"}``.

        Raises:
            UserError: the picture cannot be read, there is no such pipeline, or it has no ratio to set.
            PipelineError: the pipeline is not valid, or has no input of that name.
            NodeError: a node failed, e.g. because there is no such model.
            Cancelled: ``cancel`` was set.
        """
        ready = self._model(pipeline, model, ratio, sets)
        return ready.answer(prompt, image, max_new_tokens, on_event=on_event, cancel=cancel)

    def stream(
        self,
        image: Picture | Sequence[Picture],
        prompt: str,
        *,
        model: str | None = None,
        pipeline: str | Path | Graph = "fopru_rank",
        ratio: float | None = None,
        max_new_tokens: int | None = None,
        **sets: Any,
    ) -> Stream:
        """The answer piece by piece, by ``for`` or ``async for``; the arguments are those of a call.

        What a call would raise, iterating raises. Whoever stops iterating stops the work.
        """

        def work(put: Callable[[str], None], cancel: CancelToken) -> Answer:
            def on_event(event: Event) -> None:
                if isinstance(event, NodeText):
                    put(event.chunk)

            ready = self._model(pipeline, model, ratio, sets)
            return ready.answer(prompt, image, max_new_tokens, on_event=on_event, cancel=cancel)

        return Stream(work)

    def clear(self) -> None:
        """Forget the model and all that was computed with it; its memory is free once no answer holds on to it."""
        with self._lock:
            self._models.clear()
            self._loaded.clear()

    def _model(
        self, pipeline: str | Path | Graph, model: str | None, ratio: float | None, sets: dict[str, Any]
    ) -> PipelineModel:
        """The pipeline, ready to answer: one that was used before, or a new one."""
        graph = self._opened(pipeline)
        for name, value in ({} if model is None else {"model": model}).items() | sets.items():
            graph.set(name, value)
        if ratio is not None:
            graph = at_ratio(graph, ratio)
        with self._lock:
            key = json.dumps(graph.flat().canonical(), sort_keys=True), id(graph.registry)
            if key not in self._models:
                self._make_room(graph)
                self._models[key] = PipelineModel(graph, self._loaded)
            self._models.move_to_end(key)
            return self._models[key]

    def _opened(self, pipeline: str | Path | Graph) -> Graph:
        if isinstance(pipeline, Graph):
            return pipeline.copy()
        with self._lock:
            self._registry = self._registry or Registry.default()
        return Graph.load(pipeline, self._registry)

    def _make_room(self, graph: Graph) -> None:
        """Before another model is loaded the one that was goes."""
        steps = Executor(graph.registry).plan(graph).steps.values()
        if not any(step.key in self._loaded for step in steps if step.spec.type == "LoadModel"):
            self._models.clear()
            self._loaded.clear()
        while len(self._models) >= _MOST:
            self._models.popitem(last=False)


ask = Ask()
