"""SGLang: the item has the keys and shapes that its engine reads, and its positions are the pipeline's."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.serving import sglang
from fopru_graph.serving.engines import SGLANG
from tests.serving.engine import STEPS, answer, handed_over, kept

TWO = "<image> or <image>, which is it?"


@pytest.mark.parametrize("positions", [None, "renumbered", "rebased", "row"])
def test_qwens_item_carries_any_positions_and_means_the_pipelines_answer(family_of, positions):
    family = family_of("qwen2_5_vl")
    tokens = kept(family, count=2)
    tensors = safetensors.torch.load(sglang.item(handed_over(family, tokens, TWO, positions)))
    ids, feature, grids = tensors["input_ids"], tensors["feature"], tensors["image_grid_thw"]
    assert (ids == family.image_token_id).sum() == len(feature) == sum(tokens.counts)
    assert grids.tolist() == [[t, h * family.merge_side, w * family.merge_side] for t, h, w in tokens.grids]
    places, delta = tensors["mrope_positions"], tensors["mrope_position_delta"]
    assert places.shape == (3, len(ids)) and places.dtype == torch.int64
    assert delta.shape == (1, 1) and len(ids) + int(delta) == int(places.max()) + 1
    if positions != "row":  # which LLMGenerate does not have
        told = answer(family, ids.tolist(), feature, places)
        expected = generate(family, tokens, [TWO], max_new_tokens=STEPS, positions=positions)
        assert told == expected.token_ids[0]


def test_gemmas_item_has_three_axes_and_is_counted_from_0(family_of, tmp_path):
    family = family_of("gemma3")
    tokens = kept(family)
    (tmp_path / "item").write_bytes(sglang.item(handed_over(family, tokens)))
    with safe_open(tmp_path / "item", "pt") as file:
        assert file.metadata()["format"] == "precomputed_embedding"
        assert sorted(file.keys()) == ["feature", "input_ids"]
        ids, feature = file.get_tensor("input_ids"), file.get_tensor("feature")
    assert feature.shape == (1, sum(tokens.counts), family.language_model.config.hidden_size)
    told = answer(family, ids.tolist(), feature[0], torch.arange(len(ids))[None])
    assert told == generate(family, tokens, ["what?"], max_new_tokens=STEPS).token_ids[0]
    with pytest.raises(UserError, match="one after the other, and these have original"):
        sglang.item(handed_over(family, tokens, positions="original"))


@pytest.mark.parametrize("name", sorted(SGLANG.refuses))
def test_other_families_are_refused_with_the_reason(family_of, name):
    family = family_of(name)
    reason = SGLANG.refuses[name].partition(" (")[0]
    with pytest.raises(UserError, match=reason):
        sglang.item(handed_over(family, kept(family)))
