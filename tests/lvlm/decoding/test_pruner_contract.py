"""What a pruner inside the language model sees, and what it may return: a budget's order, its own choice, a merge."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.graph import Registry
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.segments import fits_segments
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.values import InLLMPruner
from tests import tiny
from tests.lvlm.zoo import ZOO, everything

NODES = Path(__file__).parents[2] / "in_llm_nodes"
PROMPTS = ["<image> or <image>?", "a longer question about this one: <image>"]
FAMILIES = ("llava", "qwen2_vl", "paligemma")
PRUNERS = ("TextGuidedPrune", "VariationPrune", "MergePrune", "AboveMeanPrune", "DartPrune", "SparseVLMPrune")


def pruner(name, **inputs):
    registry = Registry.default()
    assert not registry.load_folder(NODES)
    return registry.get(name).cls()(**inputs)


@pytest.fixture(scope="module", params=FAMILIES)
def row(request):
    return ZOO[request.param]


def images(row):
    return [tiny.image(i, *row.sizes[i % len(row.sizes)]) for i in range(3)]


@pytest.mark.parametrize("file", sorted(NODES.glob("*.py")), ids=lambda file: file.stem)
def test_each_is_a_file_of_at_most_thirty_lines(file):
    assert len(file.read_text().splitlines()) <= 30


@pytest.mark.parametrize("name", PRUNERS)
def test_a_padded_batch_with_two_images_is_pruned_as_its_samples_in_every_loop(row, family, name):
    pictures = images(row)
    cuts = [InLLMPruner(last_token_attention, row.first, 0.75), pruner(name, layer=row.first + 1)]
    alone = [
        generate(family, everything(family, shown), [prompt], cuts, max_new_tokens=4)
        for prompt, shown in zip(PROMPTS, (pictures[:2], pictures[2:]), strict=True)
    ]
    whole = generate(family, everything(family, pictures), PROMPTS, cuts[:1], max_new_tokens=4)
    for loop in ("thin", "segments", "static") if fits_segments(family) else ("thin",):
        batch = generate(family, everything(family, pictures), PROMPTS, cuts, max_new_tokens=4, loop=loop)
        assert batch.token_ids == tuple(answer.token_ids[0] for answer in alone)
        assert batch.visual_per_layer[-1] == sum(answer.visual_per_layer[-1] for answer in alone)
        assert 0 < batch.visual_per_layer[-1] < whole.visual_per_layer[-1]


@pytest.mark.parametrize("name", ["DartPrune", "SparseVLMPrune"])
def test_a_chain_of_one_cut_is_that_cut_with_the_chain_s_budget(name):
    family, tokens = ZOO["llava"].build("sdpa"), everything(ZOO["llava"].build("sdpa"), images(ZOO["llava"]))
    chain = pruner("Schedule", pruner=pruner(name, tokens=1), layers=[2], ratio=0.6)
    kept = [generate(family, tokens, PROMPTS, cuts).kept for cuts in (chain, [pruner(name, layer=2, ratio=0.6)])]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*kept, strict=True))


def seen_by(family, pictures, reads=(0,), loop="auto", before=()):
    """The view of a pruner at layer 3 that keeps everything."""
    views = []

    def look(view):
        views.append((view, *(view.hidden_after(layer) for layer in reads)))
        return torch.zeros_like(view.places, dtype=torch.float32)

    cuts = [*before, InLLMPruner(look, 3, 1.0, reads=reads)]
    generate(family, everything(family, pictures), PROMPTS, cuts, max_new_tokens=1, loop=loop)
    return views[0]


@pytest.mark.parametrize("loop", ["thin", "segments"])
def test_the_view_is_what_the_stock_model_computes(row, family, loop):
    pictures = images(row)
    prompt = build_prompt(family, PROMPTS, everything(family, pictures))
    view, after_first = seen_by(family, pictures, (0,), loop)
    states = family.decoder(
        inputs_embeds=prompt.embeds.clone(),
        attention_mask=prompt.attention_mask,
        position_ids=prompt.positions,
        output_hidden_states=True,
        **family.prefill_inputs(prompt),
    ).hidden_states
    real = prompt.attention_mask.bool()
    assert (view.hidden - states[3])[real].abs().max() < 1e-4
    assert (after_first - states[1])[real].abs().max() < 1e-4
    assert torch.equal(view.embeds, prompt.embeds)
    assert torch.equal(view.visual, prompt.visual) and torch.equal(view.text, real & ~prompt.visual)
    assert view.visual_counts == tuple(view.visual.sum(1)) and view.text_counts == tuple(view.text.sum(1))
    assert torch.equal(view.places, torch.arange(real.shape[1]).expand_as(view.places))
    counts = [len(tokens) for tokens in everything(family, pictures).embeddings]
    assert view.image[0][view.visual[0]].tolist() == [0] * counts[0] + [1] * counts[1]
    assert view.image[1][view.visual[1]].tolist() == [0] * counts[2]
    assert (view.image[~view.visual] == -1).all()
    assert view.value.shape == view.key.shape and view.query.shape[2] == real.shape[1]


@pytest.mark.parametrize("loop", ["thin", "segments"])
def test_behind_a_cut_everything_is_of_the_tokens_that_are_left(row, family, loop):
    pictures = images(row)
    whole, whole_first = seen_by(family, pictures, (0,), loop)
    view, after_first = seen_by(family, pictures, (0,), loop, [InLLMPruner(last_token_attention, 2, 0.5)])
    assert view.visual_counts == tuple(view.visual.sum(1)) and view.text_counts == whole.text_counts
    for sample in range(2):
        real = (view.visual | view.text)[sample]
        places = view.places[sample][real]
        assert torch.equal(after_first[sample][real], whole_first[sample][places])
        assert torch.equal(view.embeds[sample][real], whole.embeds[sample][places])
        assert torch.equal(view.image[sample][real], whole.image[sample][places])
        assert len(places) < (whole.visual | whole.text)[sample].sum()


def test_nothing_is_computed_that_no_pruner_asks_for(monkeypatch):
    family = ZOO["llava"].build("sdpa")
    from fopru_graph.lvlm.decoding.kept import Cuts

    for name in ("read", "_images", "_state"):
        monkeypatch.setattr(Cuts, name, lambda *_args: pytest.fail("asked for nothing"))
    generate(family, everything(family, images(ZOO["llava"])), PROMPTS, [InLLMPruner(last_token_attention, 2, 0.5)])


def test_a_merge_replaces_visual_tokens_by_weighted_sums_and_leaves_text_alone():
    family, row = ZOO["llava"].build("sdpa"), ZOO["llava"]
    seen = {}

    def halves(view, keep):
        seen["view"], seen["keep"] = view, keep
        return torch.full((*keep.shape, view.hidden.shape[1]), 0.5)

    cut = InLLMPruner(last_token_attention, 2, 0.5, merge=halves)

    hooked = []
    handle = family.layers[2].register_forward_pre_hook(lambda _m, args: hooked.append(args[0].clone()))
    generate(family, everything(family, images(row)), PROMPTS, [cut], max_new_tokens=1)
    handle.remove()
    view, keep, given = seen["view"], seen["keep"], hooked[0]
    visual = view.visual.gather(1, keep)
    sums = 0.5 * view.hidden.sum(1)
    for sample in range(2):
        assert torch.allclose(
            given[sample][visual[sample]], sums[sample].expand(int(visual[sample].sum()), -1), atol=1e-5
        )
        text = view.text.gather(1, keep)[sample]
        assert torch.equal(given[sample][text], view.hidden[sample][keep[sample][text]])


@pytest.mark.parametrize("reads", [(2,), (-4,), (7,)])
def test_hidden_states_that_are_not_there_yet_are_refused(reads):
    family = ZOO["llava"].build("sdpa")
    with pytest.raises(UserError, match="cannot read the hidden states after layer") as refused:
        generate(family, None, ["x"], [InLLMPruner(last_token_attention, 2, 0.5, reads=reads)])
    assert "0 … 1" in refused.value.hint and "-1 … -3" in refused.value.hint


def test_what_was_not_asked_for_is_named():
    family = ZOO["llava"].build("sdpa")
    cut = InLLMPruner(lambda view: view.hidden_after(0).norm(dim=-1), 2, 0.5)
    with pytest.raises(KeyError, match="name it in reads"):
        generate(family, everything(family, images(ZOO["llava"])), PROMPTS, [cut])
