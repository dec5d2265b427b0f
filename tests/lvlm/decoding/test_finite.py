"""NaN and infinity end in one sentence, whatever they are in: weights, scores, one sample of a batch, a later token."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DynamicCache

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.hooks import pruned
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.decoding.stock_generate import stock_generate
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.checkpoint import DEMO
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.nodes.add_uniform import AddUniform
from fopru_graph.nodes.cls_attention import ClsAttention
from fopru_graph.nodes.mass_prune import MassPrune
from fopru_graph.nodes.merge_dropped import MergeDropped
from fopru_graph.nodes.outlier_prune import OutlierPrune
from fopru_graph.nodes.project import Project
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.row_prune import RowPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.pruning.in_llm import last_token_attention
from fopru_graph.values import InLLMPruner, ModelHandle, VisualTokens
from tests import tiny
from tests.lvlm.test_invariants import everything, run
from tests.test_cli import PIPELINES, invoke

LOOPS = ["thin", "segments", "static"]
PRUNE = {"rank": RankPrune, "row": RowPrune, "mass": MassPrune, "outliers": OutlierPrune}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_tower_is_no_empty_answer(loop, value):
    family = tiny.llava(seed=60)
    family.tower_layers[0].mlp.fc1.weight.data[0, 0] = value
    with pytest.raises(UserError, match="the visual tokens hold NaN or infinity") as refused:
        run(family, everything(family, 1), ["x"], loop=loop)
    assert "bfloat16 or float32" in refused.value.hint


@pytest.mark.parametrize("name", ["lm_head", "model.language_model.layers.1.mlp.up_proj"])
def test_a_damaged_language_model_is_seen_in_both_arms(name):
    family = tiny.llava(seed=61)
    family.model.get_submodule(name).weight.data[0, 0] = -torch.inf
    hooks = len(family.model.lm_head._forward_hooks)
    for answer in (
        lambda: generate(family, everything(family, 1), ["x"]),
        lambda: stock_generate(family, [tiny.image(0)], "x", max_new_tokens=2**30),  # ends with the first token
    ):
        with pytest.raises(UserError, match="the logits hold NaN or infinity"):
            answer()
    assert len(family.model.lm_head._forward_hooks) == hooks


def test_half_precision_that_overflows_is_seen_and_float32_cures_it():
    family = tiny.llava(seed=62)
    family.layers[2].mlp.down_proj.weight.data.mul_(3e5)
    assert generate(family, everything(family, 1), ["x"]).texts
    family.model.to(torch.float16)
    with pytest.raises(UserError, match="the logits hold") as refused:
        generate(family, everything(family, 1), ["x"])
    assert "float32" in refused.value.hint


@pytest.mark.parametrize("loop", LOOPS)
def test_the_bad_sample_of_a_batch_is_named(loop):
    family = tiny.llava(seed=63)
    tokens = everything(family, 3)
    broken = replace(tokens, embeddings=(tokens.embeddings[0], tokens.embeddings[1] / 0, tokens.embeddings[2]))
    with pytest.raises(UserError, match="the visual tokens of prompt 2 of 3 hold"):
        run(family, broken, ["a", "a longer one", "c"], loop=loop)
    assert run(family, tokens, ["a", "a longer one", "c"], loop=loop)[0].texts


@pytest.mark.parametrize("loop", LOOPS)
def test_a_later_token_is_checked_too_and_leaves_nothing_for_the_next_prompt(loop):
    """Static buffers are shared, and a hidden key that is NaN still spoils every sum it has weight 0 in."""
    family = tiny.llava(seed=64)
    tokens = everything(family, 1)
    expected = run(family, everything(family, 1), ["a shorter one"], loop=loop)[0].token_ids
    asked = "a prompt that is longer than the other"
    second = run(family, everything(family, 1), [asked], loop=loop)[0].token_ids[0][1]
    table = family.model.get_input_embeddings().weight.data
    before = table[second].clone()
    table[second] = torch.nan
    with pytest.raises(UserError, match="the logits hold"):
        run(family, tokens, [asked], loop=loop)
    table[second] = before
    assert run(family, everything(family, 1), ["a shorter one"], loop=loop)[0].token_ids == expected


def pruned_tokens(family, significance, features, prune) -> VisualTokens:
    selection = Reorder()(selection=AddUniform()(selection=PRUNE[prune]()(significance=significance)))
    return Project()(model=ModelHandle("tiny", family), features=features, selection=selection)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("prune", PRUNE)
@pytest.mark.parametrize("scorer", [Significance, ClsAttention])
def test_scores_are_checked_whatever_made_them_and_whatever_they_choose(scorer, prune, value):
    """The features are finite, so that without the check the first tokens would be kept without a word."""
    if prune == "mass" and value < 0:
        return  # negative scores are refused there anyway
    family = tiny.llava(seed=65)
    features = family.encode([tiny.image(0)])
    sound = scorer()(features=features)
    assert generate(family, pruned_tokens(family, sound, features, prune), ["x"]).texts
    sound.scores[0][5] = value
    with pytest.raises(UserError, match="the scores that visual tokens were to be chosen by hold"):
        generate(family, pruned_tokens(family, sound, features, prune), ["x"])


def test_scores_are_checked_where_tokens_are_merged():
    family = tiny.llava(seed=66)
    features = family.encode([tiny.image(0)])
    scores = Significance()(features=features)
    scores.scores[0][5] = torch.nan
    merged = MergeDropped()(features=features, selection=OutlierPrune()(significance=scores), significance=scores)
    tokens = Project()(model=ModelHandle("tiny", family), features=merged.features, selection=merged.selection)
    with pytest.raises(UserError, match="the scores that"):
        generate(family, tokens, ["x"])


def broken_attention(view):
    scores = last_token_attention(view)
    scores[-1, 12] = torch.nan
    return scores


@pytest.mark.parametrize("loop", LOOPS)
def test_scores_inside_the_language_model_are_checked(loop):
    family = tiny.llava(seed=67)
    pruners = [InLLMPruner(last_token_attention, 1, 0.9), InLLMPruner(broken_attention, 3, 0.5)]
    with pytest.raises(UserError, match="the scores that"):
        run(family, everything(family, 2), ["a", "longer"], pruners, loop=loop)


def test_scores_inside_the_language_model_are_checked_under_stock_generate():
    family = tiny.llava(seed=68)
    prompt = build_prompt(family, ["x"], everything(family, 1))
    with (
        pytest.raises(UserError, match="the scores that"),
        pruned(family, Cuts(family, [InLLMPruner(broken_attention, 3, 0.5)], prompt)),
    ):
        family.model.generate(inputs_embeds=prompt.embeds, **{cache_argument(): DynamicCache()}, max_new_tokens=2)


def test_text_and_padding_may_have_any_score():
    family = tiny.llava(seed=69)

    def of_visual_tokens_only(view):
        return last_token_attention(view).masked_fill(~view.visual, -torch.inf)

    tokens = everything(family, 2)
    assert run(family, tokens, ["a", "longer"], [InLLMPruner(of_visual_tokens_only, 1, 0.5)])[0].texts


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """The demo model with one NaN in its tower."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(DEMO, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "vision_tower" in name and name.endswith("layers.0.mlp.fc1.weight"))
    weights[name][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return f"model={folder}"


def test_eval_writes_an_error_row(damaged, tmp_path):
    options = ("--task", "scenes", "--limit", "2", "--set", damaged, "--out", str(tmp_path), "--json")
    result = invoke("eval", str(PIPELINES / "fopru_rank.yaml"), "--ratio", "0.25", *options)
    (cell,) = json.loads(result.stdout)["results"]
    assert (cell["n"], cell["errors"], cell["accuracy"]) == (0, 2, None)
    (file,) = tmp_path.glob("*/results.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert all("hold NaN or infinity" in row["error"] and row["answer"] is None for row in rows) and len(rows) == 2
    assert result.exit_code == 3


@pytest.mark.parametrize("command", [("run",), ("bench", "--stock", "--new-tokens", "2", "--repeat", "1")])
def test_run_and_bench_end_in_one_sentence(damaged, command, tmp_path):
    name, *options = command
    result = invoke(name, str(PIPELINES / "baseline.yaml"), *options, "--set", damaged, "--out", str(tmp_path))
    assert result.exit_code == 1 and "Traceback" not in result.stderr
    assert "hold NaN or infinity" in " ".join(result.stderr.split())
