"""No visual token at all: answers from the question alone, however the model is driven."""

from __future__ import annotations

import pytest
import torch

from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.nodes.blind import Blind
from fopru_graph.values import VisualTokens
from tests import tiny
from tests.lvlm.test_invariants import BATCHES, STEPS, everything, fastv, run
from tests.lvlm.zoo import ZOO
from tests.lvlm.zoo import everything as all_tokens


def blind(tokens: VisualTokens) -> VisualTokens:
    return Blind()(tokens=tokens)


@pytest.mark.parametrize("loop", ["thin", "segments", "static"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("cuts", [[], [(1, 0.5), (3, 0.5)]], ids=["plain", "in-LLM pruners"])
def test_every_loop_is_the_stock_language_model_on_the_text(loop, batch, cuts):
    family = tiny.llava(seed=1)
    prompts, images = BATCHES[batch]
    tokens = blind(everything(family, sum(images)))
    generation, logits = run(family, tokens, prompts, [fastv(*cut) for cut in cuts], loop=loop)
    for i, (prompt, count) in enumerate(zip(prompts, images, strict=True)):
        asked = prompt.replace("<image>", "") if "<image>" in prompt else "\n" * count + prompt
        text = f"USER: {asked} ASSISTANT:"
        ids = family.processor.tokenizer(text, return_tensors="pt")
        output = family.model.generate(
            **ids, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
        assert list(generation.token_ids[i]) == output.sequences[0, ids.input_ids.shape[1] :].tolist()
        assert (logits[i] - torch.cat(output.logits)).abs().max() < 1e-4
    assert generation.encoded == 16 * sum(images) and generation.projected == 0
    assert set(generation.visual_per_layer) == {0} and len(set(generation.kv_lengths)) == 1
    assert [tuple(one.shape) for one in generation.kept] == [(0, 2)] * sum(images)
    assert generation.report()["visual_tokens"] == {
        "encoded": 16 * sum(images),
        "kept": 0,
        "final": 0,
        "layer_average": 0,
    }


@pytest.mark.parametrize("name", ZOO)
def test_the_markup_of_a_picture_stays(name):
    row = ZOO[name]
    family = row.build("sdpa")
    tokens = all_tokens(family, [tiny.image(0, *row.sizes[0])])
    nothing = blind(tokens)
    seen, unseen = (generate(family, one, ["what?"], max_new_tokens=2) for one in (tokens, nothing))
    text = [one.kv_lengths[0] - 1 - one.projected for one in (seen, unseen)]
    line_ends = 0 if family.line_end_id is None else tokens.grids[0][1] - 1  # lines without tokens lose theirs
    line_ends += sum(map(len, tokens.newlines))
    assert text[1] == text[0] - line_ends and unseen.projected == 0
    assert {len(one) for one in (*nothing.embeddings, *nothing.origin, *nothing.keep_positions)} == {0}
    assert nothing.encoded == tokens.encoded and nothing.markup == tokens.markup and nothing.grids == tokens.grids
    assert tokens.counts == tokens.encoded and tokens.encoded[0] > 0  # what was given is as it was


def test_a_second_blind_question_goes_on_from_the_first():
    family = tiny.llava(seed=2)
    tokens = blind(everything(family, 1))
    run(family, tokens, ["what is it?"])
    second, logits = run(family, tokens, ["what is that?"])
    assert second.reused > 0
    family.forget()
    assert torch.allclose(run(family, tokens, ["what is that?"])[1], logits, atol=1e-4)
