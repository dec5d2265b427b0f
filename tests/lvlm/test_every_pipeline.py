"""Every shipped pipeline, as it is written, on every family of the zoo: a padded batch of two pictures of two sizes.

A pipeline joins by lying in the folder. What it cannot do stands in `REFUSALS`, and nothing else may be refused.
"""

from __future__ import annotations

import pytest

from fopru_graph import values
from fopru_graph.graph import Graph, GraphNode, NodeError, Ref
from tests import tiny
from tests.lvlm.tiny_bench import PIPELINES, TinyBench, check_counts, stages_of
from tests.lvlm.zoo import ZOO

PROMPTS = ("what?", "a longer question about it")
NO_CLS = sorted(ZOO.keys() - {"internvl", "llava", "llava_next"})
NO_LAYER_ABOVE = sorted(ZOO.keys() - {"llava", "llava_next"})
NO_VIDEO = ("gemma3", "idefics3", "llava", "llava_next", "mistral3", "paligemma")
REFUSALS = {  # pipeline → what is said, and by which families
    "fastervlm": ("has no CLS token", NO_CLS),
    "prumerge": ("encoder layer above", NO_LAYER_ABOVE),
    "prumerge_plus": ("encoder layer above", NO_LAYER_ABOVE),
}
# Without CLS all tokens give the same attention, 1 / N, so that rounding alone decides between them.
BY_ROUNDING = {"fopru_no_variance": NO_CLS}
ANOTHER_ORDER = {"fopru_no_reordering"}  # drops nothing at ratio one, but answers otherwise
STILL = {"downsample"}  # makes pictures smaller, not films


def by_the_hint(graph: Graph) -> Graph:
    """The pipeline on encoders without CLS token or layer above, as the refusals' hints say."""
    for name in graph.of_type("ClsAttention"):
        graph.put(GraphNode(name, "Significance", {"features": graph.node(name).inputs["features"]}))
    for above in graph.of_type("AttentionAbove"):
        for name, entry in graph.nodes.items():
            for key, value in entry.inputs.items():
                if value == Ref(above):
                    graph.set(f"{name}.{key}", graph.node(above).inputs["features"])
        graph.remove(above)
    return graph


@pytest.fixture(scope="module")
def zoo_name(row):
    return next(name for name, known in ZOO.items() if known is row)


@pytest.fixture(scope="module")
def bench(row, family):
    media = {
        "pictures": [tiny.image(i, *size) for i, size in enumerate(row.sizes[1:3])],
        "films": [film(row, 3, frames=4), film(row, 9, frames=6)],
    }
    alone = {f"{kind} {i}": medium for kind in media for i, medium in enumerate(media[kind])}
    return TinyBench(family, media | alone)


def film(row, seed: int, frames: int) -> values.Video:
    pictures = [tiny.image(seed + i, *row.sizes[0]).picture for i in range(frames)]
    return values.Video(tuple(pictures), f"film-{seed}")


def refusal(name: str, family: str, media: str) -> str | None:
    """What is said if this pipeline is refused on this family."""
    said, families = REFUSALS.get(name, ("", ()))
    if media == "films" and family in NO_VIDEO:
        return "takes no videos"
    return said if family in families else None


def same(a: values.Generation, i: int, b: values.Generation, j: int = 0) -> bool:
    """Whether two answers have the same tokens of the same probabilities."""
    return a.token_ids[i] == b.token_ids[j] and a.logprobs[i] == pytest.approx(b.logprobs[j], abs=1e-3)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_batch_is_each_alone_within_the_budget_and_at_ratio_one_nothing_is_dropped(zoo_name, bench, name):
    graph = PIPELINES[name]
    media = "films" if graph.of_type("LoadVideo") else "pictures"
    if said := refusal(name, zoo_name, media):
        with pytest.raises(NodeError, match=said) as refused:
            bench.answer(bench.graph(graph, media, PROMPTS))
        assert refused.value.hint and "\n" not in str(refused.value)
        if media == "films" and zoo_name in NO_VIDEO:
            return
        graph = by_the_hint(graph.copy())
    batch = bench.graph(graph, media, PROMPTS)
    together, _ = bench.answer(batch)
    for i, prompt in enumerate(PROMPTS):
        alone, features = bench.answer(bench.graph(graph, f"{media} {i}", prompt))
        if zoo_name not in BY_ROUNDING.get(name, ()):
            assert same(together, i, alone)
            assert together.kept[i][:, 1].tolist() == alone.kept[0][:, 1].tolist()
            own = together.each[i].report()
            assert own == {key: figure for key, figure in alone.report().items() if key in own}
        check_counts(name, batch, alone, features)
    stages = stages_of(batch)
    if stages and name not in ANOTHER_ORDER:
        for target, ratio in stages.items():
            batch.set(target, ratio)
        everything, _ = bench.answer(batch)
        whole, _ = bench.answer(bench.graph(PIPELINES["baseline"], media, PROMPTS))
        assert all(same(everything, i, whole, i) for i in range(len(PROMPTS)))
        assert everything.visual_per_layer == whole.visual_per_layer


@pytest.mark.parametrize("name", PIPELINES)
def test_a_cut_in_the_language_model_goes_behind_any_pipeline_and_films_in_front(zoo_name, bench, name):
    """What another pruner halves in the last layer has the same tokens before it."""
    graph = PIPELINES[name]
    still = name in STILL or (zoo_name in NO_VIDEO and not graph.of_type("LoadVideo"))
    media = "pictures" if still else "films"
    if said := refusal(name, zoo_name, media):
        if said == "takes no videos":
            return
        graph = by_the_hint(graph.copy())
    graph = bench.graph(graph, f"{media} 0", PROMPTS[0])
    before, features = bench.answer(graph)
    check_counts(name, graph, before, features)
    cut = graph.add("FastVPrune", layer=len(bench.family.layers) - 1, ratio=0.5)
    pruners = graph.node("generate").inputs.get("pruners", [])
    graph.set("generate.pruners", [*(pruners if isinstance(pruners, list) else [pruners]), cut])
    after, _ = bench.answer(graph)
    *earlier, last = before.visual_per_layer
    assert after.visual_per_layer == (*earlier, max(1, last // 2) if last else 0)
