"""Layers of cuts as shares of the depth, and what pruners read counted from their cut."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.families.capture_qk import Attention
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.values import InLLMPruner
from tests import tiny
from tests.lvlm.zoo import ZOO, everything

PROMPTS = ["what?", "a longer question"]


def counts(family, layer, pictures=2):
    cut = InLLMPruner(last_token_attention, layer, 0.5)
    tokens = everything(family, [tiny.image(i) for i in range(pictures)])
    return generate(family, tokens, PROMPTS[:pictures], [cut], max_new_tokens=2).visual_per_layer


def test_a_share_of_the_depth_is_a_layer():
    family = tiny.llava(layers=6)
    assert counts(family, 0.5) == counts(family, 3) == (32, 32, 32, 16, 16, 16)


@pytest.mark.parametrize(("layers", "share", "layer"), [(4, 0.25, 1), (8, 0.25, 2), (4, 0.01, 1), (3, 0.99, 2)])
def test_a_share_serves_models_of_any_depth(layers, share, layer):
    seen = counts(tiny.llava(layers=layers), share)
    assert seen.index(16) == layer and len(seen) == layers


def test_a_share_waits_until_the_last_visual_features_are_added():
    family = ZOO["qwen3_vl"].build("sdpa")
    assert family.first_cut == 2
    assert counts(family, 0.1, 1) == counts(family, 2, 1)
    with pytest.raises(UserError, match="adds visual features up to layer 1"):
        counts(family, 1, 1)


@pytest.mark.parametrize("share", [1.0, 2.5, -0.5, 0.0])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(UserError, match="no share of the depth"):
        counts(tiny.llava(), share)


def test_what_is_read_is_on_the_device_of_the_cut():
    """Layers may lie on several devices: here those above the cut lie on one that holds no numbers."""
    family = tiny.llava()
    prompt = build_prompt(family, PROMPTS, everything(family, [tiny.image(0), tiny.image(1)]))
    seen = []

    def look(view):
        seen.append(view.hidden_after(-2).device)
        return torch.zeros(view.places.shape)

    cuts = Cuts(family, [InLLMPruner(look, 2, 0.5, reads=(-2,))], prompt)
    cuts.read(0, prompt.embeds)
    heads = torch.zeros(len(PROMPTS), 4, prompt.embeds.shape[1], 8)
    cuts.cut(2, Attention(heads, heads, heads, 1.0, None), prompt.embeds.to("meta"))
    assert seen == [torch.device("meta")]


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "paligemma"])
def test_what_is_read_counts_from_the_cut(name, loop):
    """−2 is the layer below the one below the cut; at layer 1 that is what layer 0 gets."""
    family = ZOO[name].build("sdpa")
    tokens = everything(family, [tiny.image(0, 64, 64), tiny.image(1, 64, 64)])
    views = {}

    def look(view):
        views[view.layer] = view.hidden_after(-2), view.hidden_after(-1), view.hidden, view.places
        return torch.arange(view.places.shape[1]).expand_as(view.places).float()

    cuts = [InLLMPruner(look, layer, 0.5, reads=(-1, -2)) for layer in (3, 1)]
    cuts.append(InLLMPruner(look, 0.8, 1.0, reads=(2, -1, -2)))
    generate(family, tokens, PROMPTS, cuts, max_new_tokens=1, loop=loop)
    prompt = build_prompt(family, PROMPTS, tokens)
    assert torch.equal(views[1][0], prompt.embeds)
    real = prompt.attention_mask.bool()
    assert not torch.equal(views[1][0][real], views[1][1][real])
    assert all(torch.equal(before, hidden) for _, before, hidden, _ in views.values())
    assert sorted(views) == [1, 3, 4] and views[4][0].shape == views[4][2].shape
