"""What was kept as text and as one picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.pictures.kept_map import final_masks, kept_overlay, mask_text, whole_mask
from tests import tiny


def test_a_character_shows_two_rows_and_a_large_grid_is_pooled():
    mask = np.array([[1, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]], bool)
    assert mask_text(mask) == ["█·▄▀", "·▀··"]
    assert mask_text(np.eye(4, dtype=bool), 2) == ["░░"]
    assert mask_text(np.ones((4, 8), bool), 4) == ["████"]
    shaded = mask_text(np.random.default_rng(0).random((50, 75)) < 0.25, 36)
    assert len(shaded) == 9 and {len(line) for line in shaded} == {25}


def test_tiles_lie_as_in_the_picture_and_masks_are_what_the_last_layer_saw():
    family = tiny.llava(anyres=True)
    features = family.encode([tiny.image(3, 64, 64)])
    tokens = family.project(features, RankPrune()(significance=Significance()(features=features), ratio=0.25))
    generation = generate(family, tokens, ["what?"], max_new_tokens=1)
    masks = final_masks(features, generation)
    assert [mask.shape for mask in masks] == [(4, 4)] * 5 and sum(mask.sum() for mask in masks) == 20
    assert (whole_mask(features, generation) == masks[0]).all()
    overlay = kept_overlay(features, generation)
    assert overlay.size == (560, 1120)
    black = kept_overlay(
        replace(features, pixels=(features.pixels[0], *(torch.zeros_like(p) - 9 for p in features.pixels[1:]))),
        generation,
    )
    below = np.asarray(black)[570:, :].astype(int)
    assert np.asarray(black)[:560].std() > 20 > np.median(below), "the tiles are below the overview"


def test_an_answer_without_visual_tokens_has_an_empty_mask():
    family = tiny.llava()
    features = family.encode([tiny.image(0)])
    generation = generate(family, family.project(features, None), ["what?"], max_new_tokens=1)
    assert final_masks(features, generation)[0].all()
    assert not final_masks(features, replace(generation, kept=()))[0].any()
