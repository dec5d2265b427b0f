"""The part of a pipeline that prunes, run on a model, pictures and prompts that are there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Executor, Graph, GraphNode, Node, Ref, Registry, node
from fopru_graph.graph.values import INPUTS, linked_nodes, refs_in, with_ancestors
from fopru_graph.lvlm.inputs.positions import Numbering
from fopru_graph.measure.pipelines import at_ratio, name_of

_OF_THE_CALL = ("model", "image", "prompt", "max_new_tokens")
_READ = ("tokens", "pruners", "positions")  # inputs of LLMGenerate that say what is pruned, and how it is placed


class GenerationInputs(NamedTuple):
    """What a pipeline hands to its generating node: visual tokens, pruners inside the language model, positions."""

    tokens: values.VisualTokens
    pruners: list[values.InLLMPruner]
    positions: Numbering | None


class GivenPipeline:
    """A pipeline without its loading, encoding and answering: these are done where it is used.

    Args:
        pipeline: a file, the name of a shipped pipeline, or a graph, which is not changed.
        model: the loaded model, which stands for that of LoadModel.
        ratio: share of visual tokens that is left in the last layer; None for what the pipeline says.
        sets: values for `Graph.set`.

    Raises:
        UserError: the pipeline has not exactly one LLMGenerate, what it prunes follows from more than visual tokens,
            or it has no ratio to set.
        PipelineError: it is not valid, or has no input of such a name.
    """

    def __init__(
        self, pipeline: str | Path | Graph, model: values.ModelHandle, ratio: float | None, sets: Mapping[str, Any]
    ) -> None:
        graph = pipeline.copy() if isinstance(pipeline, Graph) else Graph.load(pipeline)
        for name, value in sets.items():
            if name in _OF_THE_CALL:
                raise UserError(f"{name} comes from the call of generate, not from the pipeline", "give it there")
            graph.set(name, value)
        self._inputs: Mapping[str, Any] = {}
        self._ids: Sequence[Sequence[int]] = ()
        part, self._target = self._pruning_part(graph, model)
        self._graph = part if ratio is None else at_ratio(part, ratio)
        self._executor = Executor(part.registry)

    def run(self, inputs: Mapping[str, Any], ids: Sequence[Sequence[int]]) -> GenerationInputs:
        """What is left of pictures that a stock processor prepared; for the arguments see `Family.encode_prepared`.

        Raises:
            NodeError: a node failed.
        """
        self._inputs, self._ids = inputs, ids
        try:
            handed: GenerationInputs = self._executor.run(self._graph, to=self._target)["output"]
        finally:
            self._inputs, self._ids = {}, ()
        return handed

    def _pruning_part(self, graph: Graph, model: values.ModelHandle) -> tuple[Graph, str]:
        """The nodes that say what is kept, and the name of the one that hands it over."""

        @node(category="load", cache="never")
        class GivenModel(Node):
            """The model that is there."""

            def run(self) -> values.ModelHandle:
                return model

        @node(category="encode", cache="never")
        class GivenPictures(Node):
            """The pictures of a call, encoded."""

            def run(self, model: values.ModelHandle, layers: list[int | float] | None = None) -> values.VisionFeatures:
                features: values.VisionFeatures = model.family.encode_prepared(
                    pipeline._inputs, pipeline._ids, layers or ()
                )
                return features

        @node(category="generate", cache="never")
        class HandOver(Node):
            """What a generating node would get."""

            def run(self, tokens: values.VisualTokens, pruners: Any = None, positions: Any = None) -> Any:
                cuts = [cut for given in pruners or () for cut in (given if isinstance(given, list) else [given])]
                return GenerationInputs(tokens, cuts, positions)

        pipeline = self
        graph = graph.flat()
        target = _answering(graph)
        registry = Registry()
        registry.add(*(spec.cls for spec in graph.registry.types().values()), GivenModel, GivenPictures, HandOver)
        part = graph.copy(registry)
        given = graph.node(target)
        handed = {name: given.inputs[name] for name in _READ if name in given.inputs}
        part.put(GraphNode(target, HandOver.__name__, handed, line=given.line))
        part.outputs.clear()
        part.output("given", Ref(target))
        for name, entry in graph.nodes.items():
            if entry.type == "LoadModel":
                part.put(GraphNode(name, GivenModel.__name__, {}, line=entry.line))
            elif entry.type == "VisionEncode":
                _check_picture(graph, name)
                read: dict[str, Any] = {key: entry.inputs[key] for key in ("model", "layers") if key in entry.inputs}
                part.put(GraphNode(name, GivenPictures.__name__, read, line=entry.line))
        read_by = {name: linked_nodes(entry.inputs, entry.inputs) for name, entry in part.nodes.items()}
        needed = with_ancestors([target], lambda name: read_by.get(name, ()))
        for name in part.nodes.keys() - needed:
            part.remove(name)
        _check_question(part, given.inputs.get("prompt"))
        return part, target


def _answering(graph: Graph) -> str:
    """The one LLMGenerate of a graph."""
    names = [name for name, entry in graph.nodes.items() if _category(graph, entry) == "generate"]
    if len(names) != 1 or graph.node(names[0]).type != "LLMGenerate":
        kinds = ", ".join(graph.node(name).type for name in names) or "no node"
        raise UserError(
            f"{name_of(graph)} answers by {kinds}, so nothing says what is kept for one answer",
            "give a pipeline that ends in one LLMGenerate",
        )
    return names[0]


def _category(graph: Graph, entry: GraphNode) -> str | None:
    spec = graph.registry.find(entry.type)
    return spec.category if spec is not None else None


def _check_picture(graph: Graph, encoder: str) -> None:
    """Refuse what changes pictures before they are encoded, and films: a call gives pixels of whole pictures."""
    sources = linked_nodes(graph.node(encoder).inputs, ["image"])
    other = [graph.node(name).type for name in sources if graph.node(name).type != "LoadImage"]
    if other:
        raise UserError(
            f"{name_of(graph)}: {encoder} reads {', '.join(other)}, and a processor gives the pixels of whole pictures",
            "choose a pipeline that prunes what VisionEncode makes of LoadImage",
        )


def _check_question(part: Graph, prompt: Any) -> None:
    """Refuse nodes that read the question's own text."""
    for name, entry in part.nodes.items():
        if any(ref == prompt and ref.node == INPUTS for _, ref in refs_in(list(entry.inputs.values()))):
            raise UserError(
                f"{name_of(part)}: {name} reads the question, which token ids do not tell from the chat template",
                "choose a pipeline that does not read it, or ask by PipelineModel",
            )
