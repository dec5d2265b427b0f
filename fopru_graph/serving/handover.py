"""What is handed over: a question and the visual tokens of its pictures, as they would enter the language model."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.finite import NotFinite
from fopru_graph.lvlm.inputs.chat import Question, chat_text
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.serving.engines import Positions
from fopru_graph.values import ModelHandle, VisualTokens


@dataclass(frozen=True, eq=False)
class Handover:
    """A question about pictures with what is left of them; all tensors are on the CPU.

    ``model`` is named as it was loaded, ``family`` is transformers' ``model_type``. ``text_ids`` are the token ids of
    the prompt with one placeholder for each picture, in a chat template if it is ``templated``, ``marked`` if the
    tokenizer has added tokens, such as the first, that the text does not have; ``input_ids`` (L,) int64 have one for
    each visual token that is left. ``positions`` (P, L) int64 are what the language model is to be
    told, ``numbering`` how they came about. ``grids`` are the (frames, h, w) of pictures that an engine can be told, in
    visual tokens: the picture's own if all its tokens are left, else one row of them. ``derived`` (P, L) are the
    positions that an engine derives by itself, from the ids and these grids; None for videos. ``side`` patches along a
    side make a visual token, where the family merges them.
    """

    model: str
    family: str
    question: Question
    templated: bool
    text_ids: tuple[int, ...]
    marked: bool
    tokens: VisualTokens
    input_ids: torch.Tensor
    positions: torch.Tensor
    numbering: Positions
    grids: tuple[tuple[int, int, int], ...]
    derived: torch.Tensor | None
    side: int


def hand_over(
    model: ModelHandle, tokens: VisualTokens, question: Question, positions: Positions | None = None
) -> Handover:
    """What an engine needs of a question about ``tokens``, all of them of this question.

    Args:
        model: the model that projected the tokens.
        tokens: what a pipeline kept.
        question: see `Question`.
        positions: as in LLMGenerate; ``row``: those of pictures of a single row, which is all that some engines can be
            told of a model with several position axes. None is what LLMGenerate takes by itself.

    Raises:
        UserError: a picture has no token left, images and question do not fit, the model cannot number like that, or
            an embedding is not finite.
    """
    family = model.family
    _check(tokens, positions)
    prompt = build_prompt(family, [question], tokens, None if positions == "row" else positions)
    if positions == "row" and prompt.positions.dim() == 2:
        raise UserError(
            f"{family.model_type} has one axis of positions, and a row is a matter of several",
            "use positions: renumbered, or leave them out",
        )
    text = chat_text(family, question, len(tokens.embeddings), "video" if tokens.video else "image")
    text_ids, ids = tuple(family.tokenize(text)), prompt.input_ids[0]
    whole = [_is_whole(tokens, image) for image in range(len(tokens.embeddings))]
    grids = tuple(
        tokens.grids[image] if tokens.grids and whole[image] else (1, 1, len(embeddings))
        for image, embeddings in enumerate(tokens.embeddings)
    )
    told = prompt.positions[:, 0].cpu() if prompt.positions.dim() == 3 else prompt.positions.cpu()
    derived = None if tokens.video else _derived(family, ids, grids, told)
    return Handover(
        model=model.name,
        family=family.model_type,
        question=question,
        templated=question.template == "chat"
        and bool(family.processor.chat_template or family.processor.tokenizer.chat_template),
        text_ids=text_ids,
        marked=text_ids != tuple(family.processor.tokenizer(text, add_special_tokens=False).input_ids),
        tokens=_on_cpu(tokens),
        input_ids=ids,
        positions=derived if positions == "row" and derived is not None else told,
        numbering="row" if positions == "row" else prompt.numbering,
        grids=grids,
        derived=derived,
        side=getattr(family, "merge_side", 1),
    )


def _check(tokens: VisualTokens, positions: Positions | None) -> None:
    """Refuse what no engine could use."""
    if tokens.video and positions == "row":
        raise UserError("positions: row is for pictures, and these are tokens of a video", "leave positions out")
    for image, embeddings in enumerate(tokens.embeddings):
        if not len(embeddings):
            raise UserError(
                f"nothing is left of picture {image + 1}, and an engine wants a token of each",
                "keep more, or leave the picture out",
            )
    if not tokens.embeddings:
        raise UserError("there is no picture to hand over", "ask the engine without one")
    finite = [torch.isfinite(part).all() for part in (*tokens.embeddings, *(p for d in tokens.deepstack for p in d))]
    if not all(map(bool, finite)):
        raise NotFinite("the visual tokens")
    if tokens.scores_finite is not None and not bool(tokens.scores_finite):
        raise NotFinite("the scores that visual tokens were chosen by")


def _derived(
    family: Any, ids: torch.Tensor, grids: tuple[tuple[int, int, int], ...], told: torch.Tensor
) -> torch.Tensor:
    """Positions (P, L) that follow from ids and grids alone, by the stock model's rule; counted where it has none."""
    axes = family.positions(ids.tolist(), grids)
    if axes is None:
        return torch.arange(len(ids))[None] + told[:, :1]
    derived: torch.Tensor = axes.cpu()
    return derived


def _is_whole(tokens: VisualTokens, image: int) -> bool:
    """Whether all tokens of an image are there, in their order."""
    if tokens.keep_positions:
        kept = tokens.keep_positions[image].cpu()
        count = (tokens.placeholders or tokens.encoded)[image]
        return torch.equal(kept, torch.arange(count))
    return len(tokens.embeddings[image]) == tokens.encoded[image]


def _on_cpu(tokens: VisualTokens) -> VisualTokens:
    """A copy whose tensors are on the CPU and share no memory with others."""

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().to("cpu", copy=True).contiguous()
        return tuple(map(copied, value)) if isinstance(value, tuple) else value

    return replace(tokens, **{field.name: copied(getattr(tokens, field.name)) for field in fields(tokens)})
