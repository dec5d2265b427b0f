"""Families × pipelines × batches: the invariants of trust. A family is one row of `zoo`."""

from __future__ import annotations

import pytest
import torch
from transformers import GenerationConfig

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.segments import fits_segments
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.row_prune import RowPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.values import InLLMPruner
from tests import tiny
from tests.lvlm.hiding import answer_by_hiding
from tests.lvlm.test_invariants import fingerprint
from tests.lvlm.zoo import everything, stock_answer

STEPS = 4
BATCHES = {
    "one image": (["what?"], 1),
    "two images": (["<image> or <image>, which is it?"], 2),
    "batch of two sizes": (["what?", "a longer question about it"], 2),
}
PIPELINES = {  # share kept by rank or row before the language model, cuts inside it relative to the row's first
    "baseline": (None, 1.0, []),
    "rank": (RankPrune, 0.25, []),
    "row": (RowPrune, 0.5, []),
    "fastv": (None, 1.0, [(0, 0.5)]),
    "fopru_fastv": (RankPrune, 0.5, [(0, 0.5)]),
}


def pictures(row, count):
    return [tiny.image(i, *row.sizes[i % len(row.sizes)]) for i in range(count)]


def tokens_of(family, images, pruner, ratio):
    features = family.encode(images)
    if pruner is None:
        return family.project(features, None)
    selection = pruner()(significance=Significance()(features=features), ratio=ratio)
    return family.project(features, Reorder()(selection=selection))


def run(family, tokens, prompts, cuts):
    logits = []
    pruners = [InLLMPruner(last_token_attention, *cut) for cut in cuts]
    generation = generate(
        family, tokens, prompts, pruners, STEPS, on_step=lambda _ids, step: logits.append(step.clone())
    )
    return generation, torch.stack(logits, 1)


@pytest.mark.parametrize("batch", BATCHES)
def test_ratio_one_is_the_stock_model(row, family, batch):
    prompts, count = BATCHES[batch]
    images = pictures(row, count)
    ids, logits = stock_answer(row, family, prompts, images, STEPS)
    for pruner, cuts in ((None, []), (RankPrune, [(row.first, 1.0)])):
        generation, ours = run(family, tokens_of(family, images, pruner, 1.0), prompts, cuts)
        assert [list(one) for one in generation.token_ids] == ids
        assert (ours - logits).abs().max() < 1e-4
        assert generation.encoded == generation.projected == generation.visual_per_layer[-1]


@pytest.mark.parametrize("batch", ["one image", "batch of two sizes"])
def test_the_checkpoints_settings_hold_as_in_stock(row, family, batch, monkeypatch):
    """Penalties and blocks over the whole prompt, in every loop, at ratio one; a batch is padded."""
    prompts, count = BATCHES[batch]
    images, steps = pictures(row, count), 2 * STEPS
    free = stock_answer(row, family, prompts, images, steps)[0]
    strict = GenerationConfig(
        pad_token_id=0,
        eos_token_id=2,
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        suppress_tokens=sorted({ids[0] for ids in free}),
        bad_words_ids=[[free[0][1]], free[0][2:4]],
        min_length=build_prompt(family, prompts, everything(family, images)).input_ids.shape[1] + steps,
    )
    monkeypatch.setattr(family.model, "generation_config", strict)
    ids, _ = stock_answer(row, family, prompts, images, steps)
    assert ids != free
    loops = ("thin", "segments", "static") if fits_segments(family) else ("thin",)
    for loop in loops:
        for pruner, cuts in ((None, []), (RankPrune, [InLLMPruner(last_token_attention, row.first, 1.0)])):
            tokens = tokens_of(family, images, pruner, 1.0)
            assert [*map(list, generate(family, tokens, prompts, cuts, steps, loop=loop).token_ids)] == ids, loop
            family.forget()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_pipeline_is_its_slow_reference(row, family, eager, pipeline, batch):
    """Pruned before the language model: the same shortened prompt; inside it: dropping equals masking."""
    pruner, ratio, relative = PIPELINES[pipeline]
    cuts = [(row.first + layer, share) for layer, share in relative]

    def make(model, images):
        return tokens_of(model, images, pruner, ratio)

    generation = check_by_hiding(row, family, eager, batch, make, cuts)
    if pruner is not None:
        assert generation.projected < generation.encoded
    if cuts:
        assert generation.visual_per_layer[-1] < generation.projected == generation.visual_per_layer[0]


def check_by_hiding(row, family, eager, batch, make, cuts):
    """The answer to a batch, once every sample's was found the same as that of its slow reference alone."""
    prompts, count = BATCHES[batch]
    images = pictures(row, count)
    tokens = make(family, images)
    generation, ours = run(family, tokens, prompts, cuts)
    per_prompt = count // len(prompts)
    for i, text in enumerate(prompts):  # each sample alone, without any padding
        alone = make(eager, images[i * per_prompt : (i + 1) * per_prompt])
        prompt = build_prompt(eager, [text], alone)
        ids, logits, hidden = answer_by_hiding(eager, prompt, cuts, STEPS)
        assert list(generation.token_ids[i]) == ids
        assert (ours[i] - logits).abs().max() < 1e-3
        if len(prompts) == 1:
            length = prompt.lengths[0] + STEPS - 1
            assert list(generation.kv_lengths) == [length - len(dropped) for dropped in hidden]
    assert generation.projected == sum(tokens.counts)
    return generation


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
def test_kept_rows_are_stocks_rows_and_say_where_they_come_from(row, family, ratio):
    images = pictures(row, 2)
    whole, kept = everything(family, images), tokens_of(family, images, RankPrune, ratio)
    for all_rows, all_origin, rows, origin in zip(
        whole.embeddings, whole.origin, kept.embeddings, kept.origin, strict=True
    ):
        known = {tuple(place): value for place, value in zip(all_origin.tolist(), all_rows, strict=True)}
        assert 0 < len(rows) < len(all_rows)
        for place, value in zip(origin.tolist(), rows, strict=True):
            assert torch.allclose(value, known[tuple(place)], atol=1e-5)
    assert kept.encoded == whole.encoded == whole.counts


def test_tiles_have_true_grids_and_scores(row, family):
    features = family.encode(pictures(row, 3))
    scores = Significance()(features=features)
    for tile, score, grid in zip(features.tiles, scores.scores, scores.grids, strict=True):
        assert grid == tile.grid and grid[0] * grid[1] == len(tile.features) == len(score)
        assert score.isfinite().all() and score.min() >= 0
    assert [tile.image for tile in features.tiles] == sorted(tile.image for tile in features.tiles)
    assert all(features.seen(i).shape[2] == 3 for i in range(len(features.tiles)))


def test_nothing_is_left_behind(row, family):
    before = fingerprint(family)
    images = pictures(row, 1)
    tokens = tokens_of(family, images, RankPrune, 0.5)
    clean, _ = run(family, tokens, ["x"], [(row.first, 0.5)])
    broken = InLLMPruner(lambda *_: 1 / 0, row.first, 0.5)
    with pytest.raises(ZeroDivisionError):
        generate(family, tokens, ["x"], [broken])
    with pytest.raises(UserError, match="layer 99"):
        generate(family, tokens, ["x"], [InLLMPruner(last_token_attention, 99, 0.5)])
    with pytest.raises(UserError, match="image"):
        generate(family, tokens, ["<image><image>"])
    assert fingerprint(family) == before
    again, _ = run(family, tokens, ["x"], [(row.first, 0.5)])
    assert again.token_ids == clean.token_ids


def test_sizes_are_counted(row, family):
    sizes = family.model_sizes()
    assert sizes.layers == len(family.layers) and sizes.tower_layers <= sizes.whole_tower[1]
    assert 0 < sizes.tower_weights <= sizes.whole_tower[0] and sizes.patch_weights > 0
    assert sizes.projector_weights > 0 and sizes.step_bytes > 0 and sizes.head_weights > 0
