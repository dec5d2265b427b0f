"""What ships besides FoPru and FastV, as functions from pictures to visual tokens, for every family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fopru_graph.lvlm.families.family import Family
from fopru_graph.nodes.add_uniform import AddUniform
from fopru_graph.nodes.attention_above import AttentionAbove
from fopru_graph.nodes.average_dropped import AverageDropped
from fopru_graph.nodes.blind import Blind
from fopru_graph.nodes.budget import Budget
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.downsample import Downsample
from fopru_graph.nodes.holov_prune import HoloVPrune
from fopru_graph.nodes.mass_prune import MassPrune
from fopru_graph.nodes.merge_dropped import MergeDropped
from fopru_graph.nodes.outlier_prune import OutlierPrune
from fopru_graph.nodes.random_score import RandomScore
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.nodes.spatial_pool import SpatialPool
from fopru_graph.nodes.tile_budget import TileBudget
from fopru_graph.nodes.window_prune import WindowPrune
from fopru_graph.values import Image, ModelHandle, Selection, VisionFeatures, VisualTokens
from fopru_graph.values import Significance as Scores


def merged(family: Family, features: VisionFeatures, selection: Selection, scores: Scores) -> VisualTokens:
    mixed = MergeDropped()(features=features, selection=selection, significance=scores)
    return family.project(mixed.features, mixed.selection)


def prumerge_without_cls(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.encode(images)
    scores = Significance()(features=features)
    return merged(family, features, OutlierPrune()(significance=scores), scores)


def prumerge(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = AttentionAbove()(model=ModelHandle("tiny", family), features=family.encode(images))
    scores = ClsAttention()(features=features, heads="joint")
    return merged(family, features, OutlierPrune()(significance=scores), scores)


def prumerge_plus(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.encode(images)
    scores = Significance()(features=features)
    few = RankPrune()(significance=scores, tokens=1)  # of the few tokens here more would leave none to merge
    return merged(family, features, AddUniform()(selection=few), scores)


def scored(scorer: Callable[..., Scores]) -> Callable[[Family, Sequence[Image]], VisualTokens]:
    def tokens(family: Family, images: Sequence[Image]) -> VisualTokens:
        features = family.encode(images)
        selection = RankPrune()(significance=scorer(features=features), ratio=0.25)
        return family.project(features, Reorder()(selection=selection))

    return tokens


def mass(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.encode(images)
    selection = MassPrune()(significance=Significance()(features=features), mass=0.5)
    return family.project(features, Reorder()(selection=selection))


def hired_holov(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.encode(images)
    scores = ClsAttention()(features=features, without_cls="received")
    budget = TileBudget()(significance=scores, ratio=0.5)
    selection = HoloVPrune()(features=features, significance=scores, budget=budget, chunks=3)
    return family.project(features, Reorder()(selection=selection))


def vscan(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.encode(images)
    scores = ClsAttention()(features=features, without_cls="received")
    budget = Budget()(features=features, ratio=0.5)
    start = WindowPrune()(significance=scores, budget=budget.part, windows=2)
    selection = RankPrune()(significance=scores, budget=budget.whole, start=start)
    mixed = AverageDropped()(features=features, selection=Reorder()(selection=selection))
    return family.project(mixed.features, mixed.selection)


def pool(family: Family, images: Sequence[Image]) -> VisualTokens:
    pooled = SpatialPool()(features=family.encode(images), ratio=0.25)
    return family.project(pooled.features, pooled.selection)


def downsample(family: Family, images: Sequence[Image]) -> VisualTokens:
    return family.project(family.encode(Downsample()(image=list(images), ratio=0.5)), None)


def blind(family: Family, images: Sequence[Image]) -> VisualTokens:
    return Blind()(tokens=family.project(family.encode(images), None))


METHODS: dict[str, Callable[[Family, Sequence[Image]], VisualTokens]] = {
    "prumerge_without_cls": prumerge_without_cls,
    "prumerge_plus": prumerge_plus,
    "random": scored(RandomScore()),
    "cls": scored(ClsAttention()),
    "mass": mass,
    "hired_holov": hired_holov,
    "pool": pool,
    "downsample": downsample,
    "blind": blind,
    "vscan": vscan,
}


def has_cls(family: Family) -> bool:
    """Whether the tower has a CLS token that scores."""
    return family.prefix > 0


def digest(tokens: VisualTokens | VisionFeatures) -> list[torch.Tensor]:
    """Copies of all tensors that a node could change in what it is given."""
    if isinstance(tokens, VisualTokens):
        groups = [tokens.embeddings, tokens.origin, tokens.keep_positions, *tokens.deepstack]
    else:
        attentions = [(tile.attention.query, tile.attention.key) for tile in tokens.tiles]
        groups = [(tile.features, *tile.deepstack) for tile in tokens.tiles] + attentions + [tokens.pixels]
    return [one.clone() for group in groups for one in group]
