"""One ratio means one thing: the share of real visual tokens that every pipeline keeps of pictures cut into tiles.

``python -m tests.test_budgets`` prints the table of docs/models.md.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from fopru_graph.nodes.mass_prune import MassPrune
from fopru_graph.nodes.merge_dropped import MergeDropped
from fopru_graph.nodes.outlier_prune import OutlierPrune
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.row_prune import RowPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.nodes.spatial_pool import SpatialPool
from tests import tiny
from tests.lvlm.test_every_pipeline import refusal
from tests.lvlm.tiny_bench import PIPELINES, TinyBench, stages_of
from tests.lvlm.zoo.llava_onevision import build

FAMILIES = {
    "llava_next": lambda: tiny.llava(anyres=True, grid=(24, 24), layers=4, vision_layers=2, seed=1),
    "llava_onevision": lambda: build(ratio="anyres_max_9", size=27 * 14),
    "llava_onevision, shrunk": lambda: build(ratio="anyres_max_2", size=27 * 14),
}
PICTURES = {"1:1": (600, 600), "16:9": (1280, 720), "10:1": (1000, 100), "1:10": (100, 1000)}


@cache
def bench(family: str) -> TinyBench:
    """A model with a context that holds every picture."""
    made = FAMILIES[family]()
    made.language_model.config.max_position_embeddings = 16384
    return TinyBench(made, {name: tiny.image(0, *size) for name, size in PICTURES.items()})


def kept_shares(family: str, picture: str, ratio: float = 0.25) -> dict[str, float]:
    """The share of the picture's visual tokens that the last layer sees, by pipeline that takes a ratio."""
    shares = {}
    for name, pipeline in PIPELINES.items():
        if pipeline.of_type("LoadVideo") or ("onevision" in family and refusal(name, "llava_onevision", "pictures")):
            continue
        graph = bench(family).graph(pipeline, picture, "what?")
        stages = stages_of(graph, ratio)
        if stages and name != "downsample":
            for target, value in stages.items():
                graph.set(target, value)
            generation, _ = bench(family).answer(graph)
            shares[name] = generation.visual_per_layer[-1] / generation.encoded
    return shares


@pytest.mark.parametrize(
    ("family", "picture"),
    [("llava_next", "16:9"), ("llava_next", "1:10"), ("llava_onevision", "10:1"), ("llava_onevision, shrunk", "1:1")],
)
def test_every_method_keeps_a_quarter(family, picture):
    shares = kept_shares(family, picture)
    assert {"fopru_rank", "fopru_row", "fastv", "fopru_fastv", "random", "spatial_pool"} <= shares.keys()
    assert all(0.24 <= share <= 0.26 for share in shares.values()), shares


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_a_number_of_tokens_is_exact(name, picture):
    family = FAMILIES[name]()
    features = family.encode([tiny.image(0, *PICTURES[picture])])
    scores = Significance()(features=features)
    tokens = family.project(features, RankPrune()(significance=scores, tokens=160, over="image"))
    assert len(tokens.embeddings[0]) - len(tokens.newlines[0]) == 160
    rows = family.project(features, RowPrune()(significance=scores, tokens=160, over="image"))
    kept = len(rows.embeddings[0]) - len(rows.newlines[0])
    assert 160 - max(width for _, width in scores.grids) < kept <= 160


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_whatever_is_selected_or_merged_enters_the_language_model(name):
    family = FAMILIES[name]()
    features = family.encode([tiny.image(0, *PICTURES["10:1"])])
    scores = Significance()(features=features)
    outliers = OutlierPrune()(significance=scores)
    merged = MergeDropped()(features=features, selection=outliers, significance=scores)
    pooled = SpatialPool()(features=features, ratio=0.25)
    massive = MassPrune()(significance=scores, mass=0.5)
    for chosen, given in (
        (merged.selection, merged.features),
        (pooled.selection, pooled.features),
        (massive, features),
    ):
        assert family.project(given, chosen).counts == (sum(map(len, chosen.indices)),)
    assert sum(map(len, merged.selection.indices)) == sum(map(len, outliers.indices)) + len(features.tiles)


if __name__ == "__main__":
    print("| family | " + " | ".join(PICTURES) + " |\n|---|" + "---|" * len(PICTURES))
    for family in FAMILIES:
        shares = [kept_shares(family, picture).values() for picture in PICTURES]
        cells = [f"{min(found):.1%} … {max(found):.1%}" for found in shares]
        print(f"| {family} | " + " | ".join(cells) + " |")
