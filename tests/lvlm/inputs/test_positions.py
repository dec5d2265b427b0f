"""Which positions kept tokens have: three numberings, on every family, against the whole prompt with keys hidden."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.pruning.select import reorder
from fopru_graph.values import Selection
from tests import tiny
from tests.lvlm.hiding import answer_by_hiding
from tests.lvlm.zoo import ZOO, everything

STEPS = 4
NUMBERINGS = ("renumbered", "original", "rebased")


@pytest.fixture(scope="module", params=ZOO)
def row(request):
    return ZOO[request.param]


@pytest.fixture(scope="module")
def family(row):
    return row.build("sdpa")


@pytest.fixture(scope="module")
def eager(row):
    return row.build("eager")


def some(family, images, ratio=0.5):
    """Visual tokens of which those kept differ from tile to tile, and the last ones are dropped."""
    features = family.encode(images)
    kept = []
    for tile, count in enumerate(features.counts):
        scores = torch.rand(count, generator=torch.Generator().manual_seed(tile))
        scores[-2:] = 0
        kept.append(reorder(scores.topk(max(1, int(count * ratio))).indices))
    return family.project(features, Selection(tuple(kept), features.counts))


def sources(whole, pruned):
    """Where each token of a pruned prompt stands in the whole one, by their embeddings alone.

    Equal embeddings (newlines, text) are taken in order.
    """
    found, begin = [], 0
    for token in pruned.embeds[0]:
        same = ((whole.embeds[0, begin:] - token).abs().amax(-1) < 1e-4).nonzero()[:, 0]
        found.append(begin + int(same[0]))
        begin = found[-1] + 1
    return found


PROMPTS = {"one image": (["what is it?"], 1), "two images": (["is <image> like <image>?"], 2)}


@pytest.mark.parametrize("asked", PROMPTS)
def test_original_positions_are_those_of_the_whole_prompt_and_dropping_equals_hiding_in_it(row, family, eager, asked):
    prompts, count = PROMPTS[asked]
    images = [tiny.image(i, *row.sizes[i % len(row.sizes)]) for i in range(count)]
    tokens = some(family, images)
    pruned = build_prompt(family, prompts, tokens, "original")
    whole = build_prompt(eager, prompts, everything(eager, images))
    where = sources(whole, pruned)
    assert torch.equal(pruned.positions, whole.positions[..., where])
    assert pruned.spans == whole.spans
    hidden = set(range(whole.lengths[0])) - set(where)
    ids, logits, _ = answer_by_hiding(eager, whole, [], STEPS, hidden)
    seen = []
    answer = generate(
        family, tokens, prompts, max_new_tokens=STEPS, positions="original",
        on_step=lambda _ids, step: seen.append(step[0].clone()),
    )  # fmt: skip
    assert list(answer.token_ids[0]) == ids
    assert (torch.stack(seen) - logits).abs().max() < 2e-3
