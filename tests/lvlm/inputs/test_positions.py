"""Which positions kept tokens have: three numberings, on every family, against the whole prompt with keys hidden."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.decoding.segments import fits_segments
from fopru_graph.lvlm.families.capture_qk import Attention
from fopru_graph.lvlm.inputs.positions import kept_positions
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.pruning.select import reorder
from fopru_graph.values import InLLMPruner, Selection
from tests import tiny
from tests.lvlm.hiding import answer_by_hiding
from tests.lvlm.zoo import ZOO, everything

STEPS = 4
NUMBERINGS = ("renumbered", "original", "rebased")


def some(family, images, ratio=0.5, first=0):
    """Visual tokens of which those kept differ from tile to tile, and the last ones are dropped."""
    features = family.encode(images)
    kept = []
    for tile, count in enumerate(features.counts):
        scores = torch.rand(count, generator=torch.Generator().manual_seed(first + features.tiles[tile].image))
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


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("cuts", [[], [0.5]], ids=["before", "before and inside"])
def test_every_loop_numbers_alike_and_a_padded_batch_as_its_samples(row, family, numbering, cuts):
    prompts, images = ["what?", "a longer question about it"], [tiny.image(i, *row.sizes[0]) for i in range(2)]
    pruners = [InLLMPruner(last_token_attention, row.first, ratio) for ratio in cuts]
    loops = {"thin", "segments", "static"} if fits_segments(family) else {"thin"}
    if family.model_type == "gemma3" and numbering != "renumbered":
        loops -= {"thin"}  # its windows are shorter than the prompt, see below
    options = {"max_new_tokens": STEPS, "positions": numbering}
    alone = [
        generate(family, some(family, images[i : i + 1], first=i), prompts[i : i + 1], pruners, **options)
        for i in (0, 1)
    ]
    for loop in sorted(loops):
        family.forget()
        batch = generate(family, some(family, images), prompts, pruners, loop=loop, **options)
        assert batch.token_ids == tuple(answer.token_ids[0] for answer in alone)


def test_numberings_by_hand():
    """Seven tokens of text around two images of 4 and 3: a b [0 1 2 3] c [0 1 2] d e f."""
    unpruned, images = torch.arange(12)[None], [(2, 5), (7, 9)]
    sources = torch.tensor([0, 1, 3, 4, 6, 8, 10, 11])
    numbers = {how: kept_positions(how, unpruned, sources, images)[0].tolist() for how in NUMBERINGS}
    assert numbers["renumbered"] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert numbers["original"] == [0, 1, 3, 4, 6, 8, 10, 11]
    assert numbers["rebased"] == [0, 1, 3, 4, 5, 7, 8, 9]
    nothing = torch.tensor([0, 1, 6, 7, 8, 9, 10, 11])
    assert kept_positions("rebased", unpruned, nothing, images)[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    last = kept_positions("rebased", unpruned[:, :10], torch.tensor([0, 1, 3, 6, 7]), images)
    assert last[0].tolist() == [0, 1, 3, 4, 5]


def test_on_several_axes_text_follows_the_largest_that_is_left():
    """An image of 2 × 3: text 0 1, then rows 2 2 2 3 3 3 and columns 2 3 4 2 3 4, then text 5 6."""
    unpruned = torch.tensor(
        [[0, 1, 2, 2, 2, 2, 2, 2, 5, 6], [0, 1, 2, 2, 2, 3, 3, 3, 5, 6], [0, 1, 2, 3, 4, 2, 3, 4, 5, 6]]
    )
    sources = torch.tensor([0, 1, 2, 5, 8, 9])
    rebased = kept_positions("rebased", unpruned, sources, [(2, 7)])
    assert rebased.tolist() == [[0, 1, 2, 2, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 2, 4, 5]]
    assert kept_positions("renumbered", unpruned, sources, [(2, 7)]).tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def test_inside_the_language_model_tokens_are_numbered_as_before_it():
    """A cut sees a prompt of which something is dropped already; a padded batch of unequal counts."""
    family = ZOO["llava"].build("sdpa")
    tokens = some(family, [tiny.image(0), tiny.image(1)])
    prompts = ["what?", "a longer question about it"]
    for numbering in NUMBERINGS:
        prompt = build_prompt(family, prompts, tokens, numbering)
        cuts = Cuts(family, [InLLMPruner(lambda view: view.places.float(), 2, 0.5)], prompt)
        length = prompt.embeds.shape[1]
        nothing = torch.zeros(2, 1, length, 4)
        cuts.cut(2, Attention(nothing, nothing, nothing, 1.0, None), torch.zeros(2, length, 8))
        kept, numbers = cuts.at(2), cuts.embedded(2)
        for sample, real in enumerate(kept.real):
            given = prompt.positions[sample, kept.positions[sample][real]]
            ours = numbers[sample][real]
            steps = ours.diff()
            if numbering == "original":
                assert torch.equal(ours, given)
            elif numbering == "renumbered":
                assert ours.tolist() == list(range(len(ours)))
            else:  # gaps inside the image stay, and the text goes on without one
                visual = prompt.visual[sample, kept.positions[sample][real]]
                assert (steps[~visual[1:]] == 1).all() and (steps[visual[1:]] == given.diff()[visual[1:]]).all()


def test_windows_count_places_in_the_whole_prompt():
    """Gemma 3 has windows shorter than its image: tokens that are kept far from the question are not seen by it."""
    family = ZOO["gemma3"].build("sdpa")
    tokens = some(family, [tiny.image(0, *ZOO["gemma3"].sizes[0])], 0.25)
    with pytest.raises(UserError, match="sliding window"):
        generate(family, tokens, ["what?"], max_new_tokens=1, positions="original", loop="thin")
    generate(family, tokens, ["what?"], max_new_tokens=1, positions="renumbered", loop="thin")


def test_a_prefix_is_not_taken_over_by_another_numbering():
    family = tiny.llava(seed=8)
    tokens = some(family, [tiny.image(0)])
    generate(family, tokens, ["what is it?"], max_new_tokens=2, positions="original")
    other = generate(family, tokens, ["what is that?"], max_new_tokens=2)
    again = generate(family, tokens, ["what is this?"], max_new_tokens=2)
    assert other.reused == 0 and again.reused > 0
