"""A tiny model saved as a checkpoint's folder and opened again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.loading.load import load_model
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.significance import Significance
from fopru_graph.values import Image
from tests.lvlm.test_invariants import fastv, run


def save(folder: Path, family: Family) -> Path:
    """Save ``family`` as a checkpoint's folder."""
    processor = family.processor
    family.model.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    processor.tokenizer.chat_template = processor.chat_template
    processor.tokenizer.save_pretrained(folder)
    return folder


def same_answers_from(folder: Path, family: Family, images: Sequence[Image], prompts: Sequence[str]) -> Family:
    """Save ``family``, open it with `load_model`, and check that both, pruned, say the same; returns the opened one."""
    opened = load_model(str(save(folder, family)), device="cpu").family
    assert type(opened) is type(family)
    answers = []
    for one in (family, opened):
        features = one.encode(images)
        chosen = RankPrune()(significance=Significance()(features=features), ratio=0.5)
        answers.append(run(one, one.project(features, chosen), prompts, [fastv(2, 0.5)]))
    (before, ours), (after, theirs) = answers
    assert before.token_ids == after.token_ids and before.visual_per_layer == after.visual_per_layer
    assert torch.equal(ours, theirs)
    assert before.visual_per_layer[-1] < before.projected < before.encoded
    return opened
