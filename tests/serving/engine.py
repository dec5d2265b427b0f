"""What an engine does with what it is handed, in a few lines on the stock model: the reference of these tests."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.chat import Question
from fopru_graph.nodes.rank_prune import RankPrune
from fopru_graph.nodes.reorder import Reorder
from fopru_graph.nodes.significance import Significance
from fopru_graph.serving.handover import Handover, hand_over
from fopru_graph.values import ModelHandle, VisualTokens
from tests import tiny
from tests.lvlm.zoo import ZOO

STEPS = 4


def kept(family: Family, ratio: float = 0.4, count: int = 1) -> VisualTokens:
    """A share of the tokens of ``count`` pictures, by FoPru's scores."""
    sizes = ZOO[family.model_type].sizes
    features = family.encode([tiny.image(i, *sizes[i % len(sizes)]) for i in range(count)])
    if ratio == 1:
        return family.project(features, None)
    selection = RankPrune()(significance=Significance()(features=features), ratio=ratio)
    return family.project(features, Reorder()(selection=selection))


def handed_over(family: Family, tokens: VisualTokens, prompt: str = "what?", positions: Any = None) -> Handover:
    return hand_over(ModelHandle("the/checkpoint", family), tokens, Question(prompt), positions)


def as_vllm_reads(encoded: str) -> torch.Tensor:
    """A tensor of a chat request, by the rules that vLLM documents: base64 of a saved tensor, loaded as weights."""
    return torch.load(io.BytesIO(base64.b64decode(encoded, validate=True)), weights_only=True)


def filled(family: Family, ids: Sequence[int], rows: Sequence[torch.Tensor]) -> list[int]:
    """Each picture's placeholder repeated once for each row of its tensor; what belongs around them is InternVL's."""
    parts: Iterator[torch.Tensor] = iter(rows)
    begin, end = (
        (family.processor.tokenizer.convert_tokens_to_ids([word]) for word in ("<img>", "</img>"))
        if family.model_type == "internvl"
        else ([], [])
    )
    repeated: list[int] = []
    for token in ids:
        one_image = token == family.image_token_id
        repeated += [*begin, *[token] * len(next(parts)), *end] if one_image else [token]
    assert next(parts, None) is None
    return repeated


@torch.inference_mode()
def answer(
    family: Family, ids: Sequence[int], rows: torch.Tensor, positions: torch.Tensor, deepstack: Sequence[Any] = ()
) -> tuple[int, ...]:
    """Greedy tokens of the stock decoder from ids, rows (Σk, E) for the placeholders and positions (P, L)."""
    input_ids = torch.tensor([list(ids)])
    visual = input_ids == family.image_token_id
    embeds = family.embed(input_ids.masked_fill(visual, family.pad_id)).masked_scatter(visual[..., None], rows)
    places = positions[:, None] if len(positions) == 3 else positions
    told: list[int] = []
    for _ in range(STEPS):
        extra: dict[str, Any] = {}
        if family.model_type == "gemma3":
            extra["token_type_ids"] = visual.long()
        if deepstack:
            extra |= {"visual_pos_masks": visual, "deepstack_visual_embeds": list(deepstack)}
        mask = torch.ones(embeds.shape[:2], dtype=torch.int64)
        hidden = family.decoder(
            inputs_embeds=embeds, attention_mask=mask, position_ids=places, use_cache=False, **extra
        ).last_hidden_state
        told.append(int(family.logits(hidden[:, -1]).argmax()))
        embeds = torch.cat([embeds, family.embed(torch.tensor([told[-1:]]))], 1)
        visual = torch.cat([visual, torch.zeros(1, 1, dtype=torch.bool)], 1)
        places = torch.cat([places, places[..., -1:] + 1], -1)
    return tuple(told)
