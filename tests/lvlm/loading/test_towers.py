"""The tower's own facts decide what its tokens are; what cannot be served is refused before weights load."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.llava import Llava
from fopru_graph.lvlm.families.registry import served_families, served_family
from fopru_graph.lvlm.families.towers import check_tower
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.nodes.cls_attention import ClsAttention
from tests import tiny
from tests.lvlm.zoo.rows import IMAGE_ID, LANGUAGE, SIGLIP, finish, parts

TOWERS = {
    "clip": transformers.CLIPVisionConfig,
    "siglip": transformers.SiglipVisionConfig,
    "pixtral": transformers.PixtralVisionConfig,
    "dinov2": transformers.Dinov2Config,
    "internvl": transformers.InternVLVisionConfig,
}
KINDS = {
    "llava": transformers.LlavaConfig,
    "llava_next": transformers.LlavaNextConfig,
    "llava_onevision": transformers.LlavaOnevisionConfig,
    "internvl": transformers.InternVLConfig,
    "mistral3": transformers.Mistral3Config,
}


def saved(folder, kind: str, tower: str, **changes):
    """A folder with a config.json; its weights are no weights, so that a refusal must come before them."""
    KINDS[kind](vision_config=TOWERS[tower](), text_config=transformers.LlamaConfig(), **changes).save_pretrained(
        folder
    )
    (folder / "model.safetensors").write_text("none")
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "tower", "strategy", "says"),
    [
        ("llava", "siglip", "default", "drops its first patch"),
        ("llava", "clip", "full", "keeps its CLS token among the patches"),
        ("llava_next", "siglip", "default", "drops its first patch"),
        ("llava_next", "clip", "full", "keeps its CLS token among the patches"),
        ("llava_onevision", "siglip", "default", "drops its first patch"),
        ("llava_onevision", "clip", "full", "keeps its CLS token among the patches"),
        ("internvl", "internvl", "full", "keeps its CLS token among the patches"),
        ("llava", "pixtral", "full", "a 'pixtral' vision tower in a 'llava' model is not supported"),
        ("llava", "dinov2", "default", "a 'dinov2' vision tower in a 'llava' model is not supported"),
        ("mistral3", "clip", None, "a 'clip_vision_model' vision tower in a 'mistral3' model is not supported"),
    ],
)
def test_a_tower_that_cannot_be_read_right_is_refused_from_config_json(tmp_path, kind, tower, strategy, says):
    changes = {} if strategy is None else {"vision_feature_select_strategy": strategy}
    with pytest.raises(UserError, match=says) as refused:
        load_model(saved(tmp_path, kind, tower, **changes), device="cpu")
    assert str(tmp_path) in refused.value.message and "\n" not in refused.value.message and refused.value.hint


@pytest.mark.parametrize("layer", [0, -13, 13, [-2, 30]])
def test_a_layer_that_the_tower_does_not_have_is_refused_from_config_json(tmp_path, layer):
    with pytest.raises(UserError, match="does not name the output of one of 12 encoder layers"):
        load_model(saved(tmp_path, "llava", "clip", vision_feature_layer=layer), device="cpu")


def test_a_vision_config_without_its_type_is_read_as_transformers_reads_it(tmp_path):
    folder = saved(tmp_path, "llava", "clip", vision_feature_select_strategy="full")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["vision_config"]["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="'clip_vision_model' tower keeps its CLS token"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("card", served_families(), ids=lambda card: card.family)
def test_every_family_serves_the_tower_that_transformers_gives_it(card):
    check_tower(card.load(), transformers.AutoConfig.for_model(card.family), "x")


def siglip_llava() -> Llava:
    config = transformers.LlavaConfig(
        vision_config=transformers.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=transformers.Qwen2Config(**LANGUAGE),
        image_token_id=IMAGE_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    check_tower(served_family("llava", "x"), config, "x")
    side = {"height": SIGLIP["image_size"], "width": SIGLIP["image_size"]}
    images = transformers.CLIPImageProcessorPil(size=side, do_center_crop=False)
    return Llava(finish(transformers.LlavaForConditionalGeneration, config, "sdpa"), parts(images))


def test_siglip_with_all_its_patches_is_served_as_stock_serves_it_and_has_no_cls():
    family, picture = siglip_llava(), tiny.image()
    pixels = family.processor.image_processor([picture.picture], return_tensors="pt")["pixel_values"]
    features = family.encode([picture])
    (tile,) = features.tiles
    assert tile.grid == (4, 4) and len(tile.features) == 16 and tile.attention.prefix == 0
    stock = family.model.get_image_features(pixel_values=pixels).pooler_output
    assert torch.allclose(family.project(features, None).embeddings[0], stock[0], atol=1e-5)
    with pytest.raises(UserError, match="no CLS token"):
        ClsAttention()(features=features)
