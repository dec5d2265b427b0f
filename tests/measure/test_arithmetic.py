"""The operations that are charged, against those that torch counts while the real code runs."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from fopru_graph.graph import Graph, Registry
from fopru_graph.measure.arithmetic import Workload, first_token_flops
from fopru_graph.measure.pipelines import benched_pipelines
from fopru_graph.nodes.attention_above import AttentionAbove
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.merge_dropped import MergeDropped
from fopru_graph.nodes.random_score import RandomScore
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Video
from tests import tiny
from tests.lvlm.zoo import ZOO
from tests.test_cli import PIPELINES

VIDEOS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "smolvlm", "llava_onevision")


@pytest.fixture(scope="module")
def families():
    """Families of the zoo by name; eager attention, because torch does not count its fused kernels on a CPU."""
    built = {}

    def family(name):
        if name not in built:
            built[name] = ZOO[name].build("eager")
        return built[name]

    return family


def counted(run):
    with FlopCounterMode(display=False) as counter:
        result = run()
    return result, counter.get_total_flops()


def charged(family, features, kept, *scoring):
    report = features.report()
    work = Workload(
        report["tower_tokens"], sum(report["tile_tokens"]), kept, [1], scoring, projects_all=report["projected"]
    )
    return first_token_flops(family.model_sizes(), work)


def check_encoding(family, images):
    features, encoding = counted(lambda: family.encode(images))
    scores = RandomScore()(features=features)
    selection = RankPrune()(significance=scores, ratio=0.5)
    tokens, projecting = counted(lambda: family.project(features, selection))
    flops = charged(family, features, sum(tokens.counts))
    # Only whole windows are charged; those at the edges of a picture are smaller.
    assert flops["encode"] + flops["project"] == pytest.approx(encoding + projecting, rel=0.005)


@pytest.mark.parametrize("size", [(64, 64), (96, 40), (224, 224)])
@pytest.mark.parametrize("name", ZOO)
def test_pictures_of_every_family_are_charged_as_torch_counts_them(families, name, size):
    check_encoding(families(name), [tiny.image(0, *size)])


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_are_charged_as_torch_counts_them(families, name):
    frames = tuple(tiny.image(number, 64, 64).picture for number in range(4))
    check_encoding(families(name), [Video(frames, "video")])


def test_a_prompt_whose_tokens_all_see_each_other_is_charged_all_pairs(families):
    sizes = {name: families(name).model_sizes() for name in ("llava", "paligemma")}
    pairs = {"llava": 100 * 101 // 2, "paligemma": 100 * 100}
    for name, size in sizes.items():
        prefill = first_token_flops(size, Workload([], 0, 0, [100]))["prefill"]
        matrices = 2 * 100 * size.layer_weights + 2 * size.head_weights
        assert prefill - matrices == 4 * size.query_width * pairs[name]


def test_what_scores_and_merges_is_charged_as_torch_counts_it(families):
    family = families("llava")
    features = family.encode([tiny.image()])

    def kind(node):
        return type(node).attention_work

    for node in (RandomScore(), ClsAttention()):
        _, found = counted(lambda node=node: node(features=features))
        assert charged(family, features, 16, kind(node))["score"] == found
    scores, found = counted(lambda: Significance()(features=features))
    assert charged(family, features, 16, "map")["score"] == pytest.approx(found, rel=0.1)  # CLS has a row there
    _, found = counted(lambda: AttentionAbove()(model=Handle(family), features=features))
    assert charged(family, features, 16, kind(AttentionAbove()))["score"] == found
    selection = RankPrune()(significance=scores, ratio=0.5)
    _, found = counted(lambda: MergeDropped()(features=features, selection=selection, significance=scores))
    merging = 2 * 9 * 16 * 32  # one product of the merged tokens' weights with the features, linear in what is merged
    assert charged(family, features, 8, kind(MergeDropped()))["select"] == pytest.approx(found - merging, rel=0.15)


class Handle:
    """As much of a model handle as a node asks for."""

    def __init__(self, family):
        self.family = family


@pytest.mark.parametrize(
    ("name", "works"),
    [
        ("baseline", set()),
        ("random", set()),
        ("fastervlm", {"row"}),
        ("fopru_rank", {"map"}),
        ("prumerge", {"layer", "row", "similarity"}),
        ("apet", {"similarity"}),
        ("cdpruner", {"projector", "similarity"}),
        ("scope", {"row", "similarity"}),
        ("spatial_pool", set()),
        ("fastv", set()),
    ],
)
def test_shipped_pipelines_are_charged_what_their_scorers_compute(name, works):
    graph = Graph.load(PIPELINES / f"{name}.yaml", Registry.default())
    for benched in benched_pipelines(graph, [0.5]):
        assert set(benched.scoring) - {"none"} == works
