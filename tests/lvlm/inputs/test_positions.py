"""Which positions kept tokens have: three numberings, on every family, against the whole prompt with keys hidden."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.decoding.masks import sliding_windows
from fopru_graph.lvlm.decoding.segments import fits_segments
from fopru_graph.lvlm.families.capture_qk import Attention
from fopru_graph.lvlm.inputs.positions import kept_positions
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.pruning.select import reorder
from fopru_graph.values import InLLMPruner, Selection
from tests import tiny
from tests.lvlm.hiding import answer_by_hiding, told_positions
from tests.lvlm.zoo import ZOO, everything, stock_answer

STEPS = 3
NUMBERINGS = ("renumbered", "original", "rebased")


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
    for token in pruned:
        same = ((whole.embeds[0, begin:] - token).abs().amax(-1) < 1e-4).nonzero()[:, 0]
        found.append(begin + int(same[0]))
        begin = found[-1] + 1
    return found


PROMPTS = ["is <image> like <image>?", "a longer question about this one: <image>"]
SHOWN = (slice(0, 2), slice(2, 3))  # the images of each prompt


def pictures(row):
    return [tiny.image(i, *row.sizes[i % len(row.sizes)]) for i in range(3)]


def loops_of(family, numbering):
    loops = ["thin", "segments", "static"] if fits_segments(family) else ["thin"]
    if family.model_type == "gemma3" and numbering in ("original", "rebased"):
        loops.remove("thin")  # its windows are shorter than the prompt, see below
    return loops


def answers(family, tokens, numbering, pruners):
    """The answer of every loop to the padded batch, with its logits (B, steps, V)."""
    for loop in loops_of(family, numbering):
        family.forget()
        seen = []
        answer = generate(
            family, tokens, PROMPTS, pruners, max_new_tokens=STEPS, positions=numbering, loop=loop,
            on_step=lambda _ids, step, seen=seen: seen.append(step.clone()),
        )  # fmt: skip
        yield answer, torch.stack(seen, 1)


@pytest.fixture(scope="module")
def windowless(row):
    """With eager attention and without sliding windows: those of stock masks count tokens, hidden ones too."""
    eager = row.build("eager")
    config = eager.language_model.config
    if any(sliding_windows(config)):
        config.sliding_window = 4096
    return eager


@pytest.mark.parametrize("numbering", NUMBERINGS)
@pytest.mark.parametrize("ratios", [[], [0.5, 0.5]], ids=["before", "before and inside"])
def test_dropping_equals_hiding_in_the_whole_prompt_told_the_same_positions(row, family, windowless, numbering, ratios):
    """In every loop, and a padded batch as its samples.

    With ``original`` the prompt in which keys are hidden is the stock model's own. With the others it is told where
    each token stands, layer by layer, and so are sliding windows: a stock mask would count hidden tokens.
    """
    images = pictures(row)
    tokens = some(family, images)
    pruned = build_prompt(family, PROMPTS, tokens, numbering)
    cuts = [(row.first + i, ratio) for i, ratio in enumerate(ratios)]
    windows = sliding_windows(family.language_model.config)
    expected = []
    for sample, prompt in enumerate(PROMPTS):
        whole = build_prompt(windowless, [prompt], everything(windowless, images[SHOWN[sample]]))
        real = pruned.attention_mask[sample].bool()
        where = sources(whole, pruned.embeds[sample][real])
        hidden = set(range(whole.lengths[0])) - set(where)
        told = told_positions(whole, hidden, numbering)[..., 0, where]
        assert torch.equal(pruned.positions[..., sample, real], told)
        length = whole.spans[0] if numbering == "original" else int(told.max()) + 1 - family.first_position
        assert pruned.spans[sample] == length
        expected.append(answer_by_hiding(windowless, whole, cuts, STEPS, hidden, numbering, windows))
        expected[-1] += (whole.visual[0],)
    for answer, logits in answers(family, tokens, numbering, [InLLMPruner(last_token_attention, *cut) for cut in cuts]):
        left = 0
        for sample, (ids, theirs, hidden, visual) in enumerate(expected):
            assert list(answer.token_ids[sample]) == ids, answer.loop
            assert (logits[sample] - theirs).abs().max() < 2e-3, answer.loop
            left += int(visual.sum()) - int(visual[list(hidden[-1])].sum())
        assert answer.visual_per_layer[-1] == left and answer.positions == numbering


def test_with_every_token_kept_it_is_the_stock_model(row, family, eager):
    """But for tokens that are counted where the model numbers on several axes: that is the prompt told so."""
    images, tokens = pictures(row), everything(family, pictures(row))
    stock = stock_answer(row, family, PROMPTS, images, STEPS)
    for numbering in NUMBERINGS:
        ids, logits = stock
        if numbering == "renumbered" and build_prompt(family, PROMPTS, tokens).positions.dim() == 3:
            whole = [
                build_prompt(eager, [prompt], everything(eager, images[shown]))
                for prompt, shown in zip(PROMPTS, SHOWN, strict=True)
            ]
            alone = [answer_by_hiding(eager, prompt, [], STEPS, (), numbering) for prompt in whole]
            ids, logits = [answer[0] for answer in alone], torch.stack([answer[1] for answer in alone])
        for answer, ours in answers(family, tokens, numbering, [InLLMPruner(last_token_attention, row.first, 1.0)]):
            assert [list(sample) for sample in answer.token_ids] == ids, (numbering, answer.loop)
            assert (ours - logits).abs().max() < 1e-4, (numbering, answer.loop)
            assert answer.encoded == answer.projected == answer.visual_per_layer[-1]


def test_an_image_of_which_nothing_is_left_is_still_an_image(row, family):
    """The first of three and the first of two; of others the last tile goes, so that markers stay behind what is left.

    A cut that drops nothing changes nothing then, and its view counts the images that the prompt names.
    """
    images = [tiny.image(i, *row.sizes[i % 2]) for i in range(5)]
    prompts = ["is <image> like <image> or <image>?", "which one: <image> or <image>?"]
    features, kept = family.encode(images), []
    for number, tile in enumerate(features.tiles):
        last = number == max(i for i, other in enumerate(features.tiles) if other.image == tile.image)
        empty = tile.image in (0, 3) or (last and sum(other.image == tile.image for other in features.tiles) > 1)
        kept.append(torch.arange(0 if empty else max(1, len(tile.features) - 2)))
    tokens = family.project(features, Selection(tuple(kept), features.counts))
    assert [count == 0 for count in tokens.counts] == [True, False, False, True, False]
    views = []

    def look(view):
        views.append(view)
        return view.places.float()

    cut = [InLLMPruner(look, row.first, 1.0)]
    for numbering in NUMBERINGS:
        pruned = build_prompt(family, prompts, tokens, numbering)
        for sample, shown in enumerate((slice(3), slice(3, 5))):
            whole = build_prompt(family, prompts[sample : sample + 1], everything(family, images[shown]))
            real = pruned.attention_mask[sample].bool()
            where = sources(whole, pruned.embeds[sample][real])
            told = told_positions(whole, set(range(whole.lengths[0])) - set(where), numbering)
            assert torch.equal(pruned.positions[..., sample, real], told[..., 0, where])
        plain = generate(family, tokens, prompts, max_new_tokens=STEPS, positions=numbering)
        for loop in loops_of(family, numbering) if numbering == "rebased" else ["auto"]:
            same = generate(family, tokens, prompts, cut, max_new_tokens=STEPS, positions=numbering, loop=loop)
            assert same.token_ids == plain.token_ids, (numbering, loop)
            assert [len(origin) for origin in same.kept] == list(tokens.counts)
    for view in views:
        for sample, counts in enumerate((tokens.counts[:3], tokens.counts[3:])):
            seen = [image for image, count in enumerate(counts) for _ in range(count)]
            assert view.image[sample][view.visual[sample]].tolist() == seen


def test_numberings_by_hand():
    """Seven tokens of text around two images of 4 and 3: a b [0 1 2 3] c [0 1 2] d e f."""
    unpruned, images = torch.arange(12)[None], [range(2, 6), range(7, 10)]
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
    rebased = kept_positions("rebased", unpruned, sources, [range(2, 8)])
    assert rebased.tolist() == [[0, 1, 2, 2, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 2, 4, 5]]
    assert kept_positions("renumbered", unpruned, sources, [range(2, 8)]).tolist() == [[0, 1, 2, 3, 4, 5]] * 3


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
