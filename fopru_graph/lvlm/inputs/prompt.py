"""Prompts with only as many image placeholders as visual tokens survive, batched with left padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.token_ids import shortened
from fopru_graph.lvlm.loading.device import to_device
from fopru_graph.values import VisualTokens

MARKER = "<image>"
_PLAIN_TEMPLATE = "USER: {} ASSISTANT:"  # LLaVA-1.5's own, for checkpoints that carry no chat template


@dataclass(frozen=True, eq=False)
class Prompt:
    """B prompts of L tokens, embedded; tensors lie on the language model's device unless it is said otherwise.

    ``texts``: the B prompts as given; ``lengths``: tokens of each, without padding; ``input_ids`` (B, L) int64 on the
    CPU; ``embeds`` (B, L, E); ``attention_mask`` (B, L) int64, 0 on the padding at the left; ``positions`` (B, L) or,
    for several axes of position, (P, B, L) int64, 0 on padding; ``visual`` (B, L) bool; ``row`` (B, L) int64 on the
    CPU, for visual positions the row among all visual tokens of the batch, −1 elsewhere; ``deepstack`` holds one
    (rows, E) a DeepStack layer, in the order of the rows.
    """

    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    input_ids: torch.Tensor
    embeds: torch.Tensor
    attention_mask: torch.Tensor
    positions: torch.Tensor
    visual: torch.Tensor
    row: torch.Tensor
    deepstack: tuple[torch.Tensor, ...] = ()

    @property
    def padded(self) -> bool:
        """Whether any sample is shorter than the longest."""
        return len(set(self.lengths)) > 1

    @property
    def seen(self) -> tuple[int, ...]:
        """Visual tokens of every sample."""
        return tuple((self.row >= 0).sum(1).tolist())

    @property
    def text(self) -> tuple[int, ...]:
        """Text tokens of every sample."""
        return tuple(length - seen for length, seen in zip(self.lengths, self.seen, strict=True))


def distribute_images(prompts: Sequence[str], images: int) -> list[int]:
    """Images of each prompt, in order: its ``<image>`` markers; without markers all images of the only prompt, or
    one each.

    Raises:
        UserError: the numbers do not fit.
    """
    marked = [prompt.count(MARKER) for prompt in prompts]
    if sum(marked) == images:
        return marked
    if not any(marked):
        if len(prompts) == 1:
            return [images]
        if images == len(prompts):
            return [1] * images
    raise UserError(
        f"{images} image(s) do not fit {len(prompts)} prompt(s) with {sum(marked)} {MARKER} marker(s)",
        f"write one {MARKER} in the prompts for every image, in the images' order",
    )


def chat_text(family: Family, prompt: str, images: int, part: str = "image") -> str:
    """The prompt in the checkpoint's chat template, one placeholder an image (in front, where it places none).

    ``part`` is what the template takes an image for: image or video.
    """
    if MARKER not in prompt:
        parts = [{"type": part}] * images + [{"type": "text", "text": prompt}]
    else:
        parts = []
        for i, piece in enumerate(prompt.split(MARKER)):
            parts += [{"type": part}] if i else []
            parts += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
    if family.processor.chat_template:
        return family.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    line = f"{family.video_placeholder if part == 'video' else family.placeholder}\n"
    plain = "".join(one.get("text", line) for one in parts)
    return family.template(plain, images) or _PLAIN_TEMPLATE.format(plain)


def build_prompt(family: Family, prompts: Sequence[str], tokens: VisualTokens) -> Prompt:
    """Embed ``prompts`` with each image's placeholder repeated once per surviving visual token.

    Positions are those of the shortened prompt (renumbered), as when the text is simply joined with fewer features,
    unless the family keeps those of the whole prompt.

    Raises:
        UserError: images and prompts do not fit, or a prompt contains a stray placeholder.
    """
    per_prompt = distribute_images(prompts, len(tokens.embeddings))
    part = "video" if tokens.video and family.video_placeholder else "image"
    samples, first = [], 0
    for prompt, count in zip(prompts, per_prompt, strict=True):
        text = chat_text(family, prompt, count, part)
        samples.append(shortened(family, text, tokens, range(first, first + count)))
        first += count
    ids = [one for one, _ in samples]
    length = max(map(len, ids))
    pad = family.processor.tokenizer.pad_token_id or 0
    input_ids = torch.tensor([[pad] * (length - len(one)) + one for one in ids])
    mask = torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one in ids])
    visual = (input_ids == family.image_token_id) & mask.bool()
    row = torch.where(visual, visual.flatten().cumsum(0).view_as(visual) - 1, -1)
    embeds = family.embed(to_device(input_ids.masked_fill(visual, pad), family.device))  # may be no word of the model
    rows = torch.cat([one.to(device=embeds.device, dtype=embeds.dtype) for one in tokens.embeddings])
    places = to_device(visual.flatten().nonzero()[:, 0], embeds.device)
    return Prompt(
        texts=tuple(prompts),
        lengths=tuple(map(len, ids)),
        input_ids=input_ids,
        embeds=embeds.flatten(0, 1).index_copy(0, places, rows).view_as(embeds),
        attention_mask=to_device(mask, family.device),
        positions=to_device(_positions([own for _, own in samples], mask, family.first_position), family.device),
        visual=to_device(visual, family.device),
        row=row,
        deepstack=tuple(torch.cat(layer).to(embeds.dtype) for layer in zip(*tokens.deepstack, strict=True)),
    )


def _positions(own: Sequence[torch.Tensor | None], mask: torch.Tensor, first: int) -> torch.Tensor:
    """(B, L) counted anew from ``first``, or (P, B, L) where every sample brings its own (P, l)."""
    if own[0] is None:
        return (mask.cumsum(-1) - 1 + first).clamp(min=0)
    length = mask.shape[1]
    padded = [torch.nn.functional.pad(one, (length - one.shape[1], 0)) for one in own if one is not None]
    return torch.stack(padded, 1)
