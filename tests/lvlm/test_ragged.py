"""A batch loses nothing: prompts of any length and number of images keep and say what each of them does alone."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.segments import fits_segments
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.nodes.mass_prune import MassPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.values import InLLMPruner
from tests import tiny
from tests.lvlm.test_matrix import STEPS, pictures
from tests.lvlm.zoo import ZOO

DECODERS = {
    "mistral, window": ("mistral", 40),
    "qwen2, some layers with a window": ("qwen2", 30),
    "qwen3": ("qwen3", None),
}
FAMILIES = {name: (row.build, row.sizes, row.first) for name, row in ZOO.items()} | {
    name: (
        lambda kind, t=text, w=window: tiny.llava(t, sliding_window=w, attention=kind, grid=(6, 6), seed=84),
        ((48, 40),),
        2,
    )
    for name, (text, window) in DECODERS.items()
}
PROMPTS = [
    "<image>what?",
    "<image> or <image>, and which of the two is it then?",
    "<image>?<image><image>!",
]
COUNTS = [1, 2, 3]


def many(family, images):
    """Tokens of which each tile keeps another number: those that hold half of its significance."""
    features = family.encode(images)
    selection = MassPrune()(significance=Significance()(features=features), mass=0.5)
    return family.project(features, Reorder()(selection=selection))


def loops(family):
    return ("thin", "segments", "static") if fits_segments(family) else ("thin",)


def run(family, tokens, prompts, pruners, loop):
    logits = []
    generation = generate(
        family, tokens, prompts, pruners, STEPS, loop=loop, on_step=lambda _ids, step: logits.append(step.clone())
    )
    family.forget()
    return generation, torch.stack(logits, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_ragged_batch_is_its_samples_alone_in_every_loop(name):
    build, sizes, first = FAMILIES[name]
    family = build("sdpa")
    images = [tiny.image(i, *sizes[i % len(sizes)]) for i in range(sum(COUNTS))]
    starts = [sum(COUNTS[:i]) for i in range(len(COUNTS))]
    groups = [images[start : start + count] for start, count in zip(starts, COUNTS, strict=True)]
    pruners = [InLLMPruner(last_token_attention, first, 0.5), InLLMPruner(last_token_attention, first + 1, tokens=2)]
    alone = [
        run(family, many(family, group), [prompt], pruners, "thin")
        for group, prompt in zip(groups, PROMPTS, strict=True)
    ]
    tokens = many(family, images)
    assert len(set(tokens.counts)) > 1
    for loop in loops(family):
        together, logits = run(family, tokens, PROMPTS, pruners, loop)
        assert together.loop == loop
        assert together.token_ids == tuple(answer for single, _ in alone for answer in single.token_ids)
        assert max((ours - single[0]).abs().max() for ours, (_, single) in zip(logits, alone, strict=True)) < 1e-3
        kept = [kept for single, _ in alone for kept in single.kept]
        # The first column counts tiles or pictures, from the beginning of the batch.
        assert all(torch.equal(ours[:, 1], known[:, 1]) for ours, known in zip(together.kept, kept, strict=True))
        layers = zip(*(single.visual_per_layer for single, _ in alone), strict=True)
        assert together.visual_per_layer == tuple(map(sum, layers))
        assert (together.encoded, together.projected) == (
            sum(single.encoded for single, _ in alone),
            sum(single.projected for single, _ in alone),
        )


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
def test_samples_that_end_earlier_change_nothing_in_those_that_go_on(loop):
    family = tiny.llava(seed=85)
    images = pictures(ZOO["llava"], sum(COUNTS))
    free, _ = run(family, many(family, images), PROMPTS, [], loop)
    family.model.generation_config.eos_token_id = [free.token_ids[0][0], free.token_ids[1][1]]
    together, _ = run(family, many(family, images), PROMPTS, [], loop)
    assert len(set(map(len, together.token_ids))) > 1
    for answer, known in zip(together.token_ids, free.token_ids, strict=True):
        ends = [i for i, token in enumerate(known) if token in family.stop_ids]
        assert answer == known[: ends[0] + 1 if ends else None]


@pytest.mark.parametrize("name", ZOO)
def test_a_sample_without_images_is_the_stock_models_answer(name):
    """Beside one that has some, and whose cuts are not its own."""
    row = ZOO[name]
    family = row.build("sdpa")
    prompts = ["only words here", "<image>what is it?"]
    tokens = many(family, pictures(row, 1))
    prompt = build_prompt(family, prompts, tokens)
    ids = prompt.input_ids[:1, prompt.attention_mask[0].bool()]
    stock = family.model.generate(ids, max_new_tokens=STEPS, do_sample=False)[0, ids.shape[1] :].tolist()
    pruners = [InLLMPruner(last_token_attention, row.first, 0.5)]
    for loop in loops(family):
        together, _ = run(family, tokens, prompts, pruners, loop)
        assert list(together.token_ids[0]) == stock
