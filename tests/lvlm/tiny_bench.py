"""Shipped pipelines on a tiny model in place of their own, with pictures and questions that a test gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch

from fopru_graph import values
from fopru_graph.graph import Executor, Graph, GraphNode, MemoryCache, Node, Ref, Registry, node, plan
from fopru_graph.lvlm.families.family import Family
from fopru_graph.measure.pipelines import settings_of

PIPELINES = {path.stem: Graph.load(path) for path in sorted(Path("pipelines").rglob("*.yaml"))}
IN_LINES = {"fopru_row", "spatial_pool"}  # keep whole rows, or a token for each of some windows


class TinyBench:
    """Runs pipelines on one tiny model; what they share, such as the encoded pictures, runs once."""

    def __init__(self, family: Family, media: Mapping[str, Any]) -> None:
        given = {"model": values.ModelHandle("tiny", family), **media}

        @node(category="load")
        class Given(Node):
            """What the test has made in place of what a file holds."""

            def run(self, key: str) -> Any:
                return given[key]

        self.family = family
        self.encoded: dict[int, list[torch.Tensor]] = {}
        self.registry = Registry()
        self.registry.add(*(spec.cls for spec in Graph().registry.types().values()), Given)
        self.executor = Executor(self.registry, cache=MemoryCache(10_000))

    def graph(self, graph: Graph, media: str, prompt: str | Sequence[str]) -> Graph:
        """The pipeline with this model, these pictures and this question in place of its own."""
        copy = graph.copy(self.registry)
        keys = {"LoadModel": "model", "LoadImage": media, "LoadVideo": media}
        for name, entry in list(copy.nodes.items()):
            if entry.type in keys:
                copy.put(GraphNode(name, "Given", {"key": keys[entry.type]}))
            for key, value in entry.inputs.items():
                if isinstance(value, Ref) and value == Ref("inputs", "prompt"):
                    copy.set(f"{name}.{key}", prompt if isinstance(prompt, str) else list(prompt))
        for name in ("model", "image", "video"):  # no more read; a video has no default
            if name in copy.inputs:
                copy.set(name, "given")
        copy.set("generate.max_new_tokens", 2)
        copy.set("generate.logprobs", True)
        return copy

    def answer(self, graph: Graph) -> tuple[values.Generation, values.VisionFeatures]:
        """What is generated, and the encoded pictures, which all pipelines share and none may change."""
        self.family.forget()  # no prefix of the question before
        (encode,) = graph.of_type("VisionEncode")
        known = self.executor.run(graph, targets=["generate", encode]).by_node
        features = known[encode]["output"]
        before = self.encoded.setdefault(id(features), digest(features))
        assert all(map(torch.equal, before, digest(features)))
        return known["generate"]["generation"], features


def digest(features: values.VisionFeatures) -> list[torch.Tensor]:
    """Copies of all tensors that a node could change in encoded pictures."""
    groups = [(t.features, *t.deepstack, t.attention.query, t.attention.key) for t in features.tiles]
    return [tensor.clone() for group in groups for tensor in group]


def check_counts(name: str, graph: Graph, alone: values.Generation, features: values.VisionFeatures) -> None:
    """No layer sees more tokens than the one before, and the last one as many as the ratios say, tile by tile."""
    layers = alone.visual_per_layer
    assert alone.encoded == sum(features.counts) >= alone.projected == layers[0]
    assert sorted(layers, reverse=True) == list(layers)
    longest = max(max(tile.grid) for tile in features.tiles) if name in IN_LINES else 1
    if stages_of(graph) and name != "downsample":
        ratios = ratios_of(graph)
        cuts = len(set(layers)) - 1  # each rounds the tokens of a sample
        rounding = len(ratios) * len(features.tiles) * longest + cuts
        assert abs(layers[-1] - prod(ratios) * alone.encoded) <= rounding


def ratios_of(graph: Graph) -> list[float]:
    """What each stage of a shipped pipeline keeps, as it is written or wired."""
    ratios = []
    steps = plan(graph, to="generate").steps
    for step in steps.values():
        ratio = step.inputs.get("ratio")
        if step.spec.category != "prune" or ratio is None or step.inputs.get("budget") is not None:
            continue
        if isinstance(ratio, Ref):
            given = steps[ratio.node].inputs
            ratio = given["otherwise"] if given["ratio"] is None else given["ratio"] ** (1 / given["stages"])
        if not any(step.name in of.read_by({"pruner"} & of.inputs.keys()) for of in steps.values()):
            ratios.append(ratio)
    return ratios


def stages_of(graph: Graph, ratio: float = 1.0) -> Mapping[str, float]:
    """What gives the pipeline a ratio, as `settings_of` finds it: nothing for what has none."""
    return settings_of(graph, plan(graph, to="generate"), [ratio])[0].inputs
