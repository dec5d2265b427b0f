"""What ships besides FoPru and FastV, as functions from pictures to visual tokens, for every family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import embed_texts
from fopru_graph.nodes.add_uniform import AddUniform
from fopru_graph.nodes.attention_above import AttentionAbove
from fopru_graph.nodes.average_dropped import AverageDropped
from fopru_graph.nodes.blind import Blind
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.diversity_prune import DiversityPrune
from fopru_graph.nodes.downsample import Downsample
from fopru_graph.nodes.mass_prune import MassPrune
from fopru_graph.nodes.merge_dropped import MergeDropped
from fopru_graph.nodes.outlier_prune import OutlierPrune
from fopru_graph.nodes.random_score import RandomScore
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reconstruction_score import ReconstructionScore
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.nodes.spatial_pool import SpatialPool
from fopru_graph.nodes.text_relevance import TextRelevance
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


def pool(family: Family, images: Sequence[Image]) -> VisualTokens:
    pooled = SpatialPool()(features=family.encode(images), ratio=0.25)
    return family.project(pooled.features, pooled.selection)


def downsample(family: Family, images: Sequence[Image]) -> VisualTokens:
    return family.project(family.encode(Downsample()(image=list(images), ratio=0.5)), None)


def blind(family: Family, images: Sequence[Image]) -> VisualTokens:
    return Blind()(tokens=family.project(family.encode(images), None))


def apet(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.encode(images)
    selection = RankPrune()(significance=ReconstructionScore()(features=features, basis=2), ratio=0.25)
    mixed = AverageDropped()(features=features, selection=selection)
    return family.project(mixed.features, mixed.selection)


def cdpruner(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.projected(family.encode(images))
    relevance = TextRelevance()(features=features, question=embed_texts(family, ["what?"]))
    selection = DiversityPrune()(features=features, gain="determinant", significance=relevance)
    return family.project(features, Reorder()(selection=selection))


def divprune(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.projected(family.encode(images))
    selection = DiversityPrune()(features=features, gain="farthest", over="image")
    return family.project(features, Reorder()(selection=selection))


def otprune(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.projected(family.encode(images))
    selection = DiversityPrune()(features=features, gain="transport")
    return family.project(features, Reorder()(selection=selection))


def scope(family: Family, images: Sequence[Image]) -> VisualTokens:
    features = family.encode(images)
    saliency = ClsAttention()(features=features, without_cls="received")
    selection = DiversityPrune()(features=features, gain="coverage", significance=saliency)
    return family.project(features, Reorder()(selection=selection))


# Methods that only choose tokens, as the rank strategy does: of the batches of the matrix the hardest is enough.
CHOOSING = {"cdpruner", "divprune", "otprune", "scope"}

METHODS: dict[str, Callable[[Family, Sequence[Image]], VisualTokens]] = {
    "apet": apet,
    "cdpruner": cdpruner,
    "divprune": divprune,
    "otprune": otprune,
    "scope": scope,
    "prumerge_without_cls": prumerge_without_cls,
    "prumerge_plus": prumerge_plus,
    "random": scored(RandomScore()),
    "cls": scored(ClsAttention()),
    "mass": mass,
    "pool": pool,
    "downsample": downsample,
    "blind": blind,
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
