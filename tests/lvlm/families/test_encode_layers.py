"""Attention of several encoder layers in one pass, on every family; and scorers that read the question."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.graph import PipelineError, Registry
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.encode_prompt import EncodePrompt
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.nodes.vision_encode import VisionEncode
from fopru_graph.pruning.attention import attention_means, cls_attention
from fopru_graph.values import ModelHandle
from tests import tiny
from tests.lvlm.zoo import ZOO

NODES = Path(__file__).parents[2] / "in_llm_nodes"


def pictures(row):
    return [tiny.image(i, *row.sizes[i % len(row.sizes)]) for i in range(2)]


def whole_layers(family):
    """The encoder layers that see whole pictures."""
    layers = range(len(family.tower_layers))
    return [i for i in layers if i in getattr(family.tower, "fullatt_block_indexes", layers)]


def test_every_layer_is_recorded_as_if_it_were_the_only_one(row, family):
    layers = whole_layers(family)
    features = family.encode_layers(pictures(row), layers)
    plain = family.encode(pictures(row))
    for tile, without in zip(features.tiles, plain.tiles, strict=True):
        assert torch.equal(tile.features, without.features) and not without.attention.others
        assert torch.equal(tile.attention.query, without.attention.query)
        assert {each.layer for each in (tile.attention, *tile.attention.others)} == {*layers, family.scored_layer}
        for layer in layers:
            attention = tile.attention.at(layer)
            assert (
                attention.query.shape == without.attention.query.shape and attention.prefix == without.attention.prefix
            )
    first, last = (features.tiles[0].attention.at(layer).query for layer in (layers[0], layers[-1]))
    assert len(layers) == 1 or not torch.allclose(first, last)


def test_layers_are_those_that_the_stock_tower_computes():
    family = tiny.llava(vision_layers=5, vision_feature_layer=-2)
    seen = {}
    for layer in (0, 2, 4):
        module = family.attention_module(layer)
        hook = module.k_proj.register_forward_hook(lambda _m, _i, out, layer=layer: seen.setdefault(layer, out))
        features = family.encode_layers([tiny.image(0)], [layer])
        hook.remove()
        keys = features.tiles[0].attention.at(layer).key.transpose(0, 1).flatten(1)
        assert torch.equal(keys, seen[layer][0])


def test_only_what_is_asked_for_runs():
    family = tiny.llava(vision_layers=6, vision_feature_layer=-3)
    for layers, last in (((), 3), ((1,), 3), ((-1,), 5)):
        ran: list[int] = []
        hooks = [
            layer.register_forward_hook(lambda *_, i=i, ran=ran: ran.append(i))
            for i, layer in enumerate(family.tower_layers)
        ]
        family.encode_layers([tiny.image()], layers)
        for hook in hooks:
            hook.remove()
        assert ran == list(range(last + 1)), layers


def test_a_layer_that_is_not_there_is_refused(family):
    with pytest.raises(UserError, match="no encoder layer 99"):
        family.encode_layers([tiny.image()], [99])
    tile = family.encode([tiny.image(0, 112, 112)]).tiles[0]
    with pytest.raises(UserError, match="was not recorded") as refused:
        tile.attention.at(99)
    assert "layers: [99]" in refused.value.hint and not family.taps


@pytest.mark.parametrize("share", [0.2, 0.333, 0.6, 0.95])
def test_a_share_of_the_depth_names_the_nearest_layer_that_sees_the_whole_picture(family, share):
    attention = family.encode_layers([tiny.image(0, 112, 112)], [share]).tiles[0].attention.at(share)
    depth, whole = len(family.tower_layers), whole_layers(family)
    wanted = min(depth - 1, math.floor(share * depth + 0.5))
    assert attention.layer in whole
    assert abs(attention.layer - wanted) == min(abs(layer - wanted) for layer in whole)


def test_scorers_read_the_layer_that_they_name():
    family = tiny.llava(vision_layers=6, vision_feature_layer=-2)
    picture = [tiny.image(0)]
    features = family.encode_layers(picture, [0.333, -1])
    for layer, number in ((0.333, 2), (-1, 5), (None, 4), (4, 4), (2, 2)):
        attention = features.tiles[0].attention.at(layer)
        assert attention.layer == number
        means = attention_means(attention.query, attention.key, attention.scale, attention.prefix)
        received = Significance()(features=features, layer=layer, direction="received")
        assert torch.equal(received.scores[0], means[1])
        assert torch.equal(ClsAttention()(features=features, layer=layer).scores[0], cls_attention(attention))
    for scorer in (Significance, ClsAttention):
        with pytest.raises(UserError, match=r"encoder layer 0\.5 was not recorded") as refused:
            scorer()(features=features, layer=0.5)
        assert "layers: [0.5]" in refused.value.hint


@pytest.mark.parametrize("layers", [[0.0], [1.0], [1.5], [-0.5]])
def test_what_is_no_share_of_the_depth_is_refused(layers):
    with pytest.raises(PipelineError, match="layers"):
        VisionEncode()(model=ModelHandle("tiny", tiny.llava()), image=tiny.image(), layers=layers)


def test_without_cls_the_attention_received_scores_if_asked_for(row, family):
    features = family.encode(pictures(row))
    received = Significance()(features=features, direction="received")
    if family.prefix:
        asked, plain = ClsAttention()(features=features, without_cls="received"), ClsAttention()(features=features)
        assert all(map(torch.equal, asked.scores, plain.scores)) and set(asked.direction_names) == {"cls"}
        assert not torch.allclose(asked.scores[0], received.scores[0])
        return
    with pytest.raises(UserError, match="no CLS token"):
        ClsAttention()(features=features)
    asked = ClsAttention()(features=features, without_cls="received")
    assert all(map(torch.equal, asked.scores, received.scores)) and set(asked.direction_names) == {"received"}


def test_a_layer_that_sees_windows_is_refused():
    row = ZOO["qwen2_5_vl"]
    family = row.build("sdpa")
    windowed = next(i for i in range(len(family.tower_layers)) if i not in family.tower.fullatt_block_indexes)
    with pytest.raises(UserError, match="in windows"):
        family.encode_layers([tiny.image(0, 448, 448)], [windowed])


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_vl"])
def test_a_scorer_before_the_language_model_may_read_the_question(name):
    registry = Registry()
    assert not registry.load_folder(NODES)
    similarity = registry.get("TextSimilarity").cls()
    row = ZOO[name]
    family = row.build("sdpa")
    model, shown = ModelHandle("tiny", family), pictures(row)

    def kept(prompts):
        features = family.encode(shown)
        scores = similarity(model=model, features=features, prompt=EncodePrompt()(model=model, prompt=prompts))
        selection = Reorder()(selection=RankPrune()(significance=scores, ratio=0.25))
        tokens = family.project(features, selection)
        assert generate(family, tokens, ["what?", "and a longer one?"], max_new_tokens=2).texts
        return [index.tolist() for index in selection.indices]

    both = kept(["what is that", "zzzz 0000"])
    split = sum(tile.image == 0 for tile in family.encode(shown).tiles)
    assert both == kept("what is that")[:split] + kept("zzzz 0000")[split:]
    assert kept("what is that") != kept("zzzz 0000")


@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "paligemma"])
def test_a_padded_batch_with_two_images_is_scored_by_each_images_own_question(name):
    registry = Registry()
    assert not registry.load_folder(NODES)
    similarity = registry.get("TextSimilarity").cls()
    row = ZOO[name]
    family = row.build("sdpa")
    model = ModelHandle("tiny", family)
    images = [tiny.image(i, *row.sizes[i % len(row.sizes)]) for i in range(3)]
    prompts = ["<image> or <image>?", "a longer question about this one: <image>"]

    def answer(shown, asked):
        features = family.encode(shown)
        scores = similarity(model=model, features=features, prompt=EncodePrompt()(model=model, prompt=asked))
        selection = Reorder()(selection=RankPrune()(significance=scores, ratio=0.25))
        kept = [index.tolist() for index in selection.indices]
        return kept, generate(family, family.project(features, selection), asked, max_new_tokens=3).token_ids

    kept, ids = answer(images, prompts)
    first, second = answer(images[:2], prompts[:1]), answer(images[2:], prompts[1:])
    assert kept == first[0] + second[0] and ids == first[1] + second[1]
    assert kept[:2] != answer(images[:2], ["zzzz <image><image>"])[0]


def test_a_question_that_says_nothing_is_refused():
    with pytest.raises(UserError, match="no question to encode"):
        EncodePrompt()(model=ModelHandle("tiny", tiny.llava()), prompt="<image>")
