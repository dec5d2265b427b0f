"""Prompts with one placeholder per kept visual token, embedded and batched with left padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.token_ids import build_ids
from fopru_graph.values import VisualTokens

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family

MARKER = "<image>"
_PLAIN_TEMPLATE = "USER: {} ASSISTANT:"  # LLaVA-1.5's, for checkpoints without a chat template


@dataclass(frozen=True, eq=False)
class Prompt:
    """B prompts of L tokens, embedded. Tensors are on the language model's device unless said otherwise.

    ``texts``: the B prompts as given; ``lengths``: tokens of each, without padding; ``input_ids`` (B, L) int64 on the
    CPU; ``embeds`` (B, L, E); ``attention_mask`` (B, L) int64, 0 on the padding at the left; ``positions`` (B, L) or,
    if the model has P axes of position, (P, B, L) int64, 0 on padding; ``visual`` (B, L) bool, True on visual tokens.
    ``embedding_index`` (B, L) int64 on the CPU is each visual token's index among all visual tokens of the batch, −1
    elsewhere; ``deepstack`` holds one (visual tokens of the batch, E) tensor per DeepStack layer, in the same order.
    """

    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    input_ids: torch.Tensor
    embeds: torch.Tensor
    attention_mask: torch.Tensor
    positions: torch.Tensor
    visual: torch.Tensor
    embedding_index: torch.Tensor
    deepstack: tuple[torch.Tensor, ...] = ()

    @property
    def padded(self) -> bool:
        """Whether the prompts differ in length."""
        return len(set(self.lengths)) > 1

    @property
    def visual_counts(self) -> tuple[int, ...]:
        """Visual tokens of each prompt."""
        return tuple((self.embedding_index >= 0).sum(1).tolist())

    @property
    def text_counts(self) -> tuple[int, ...]:
        """Text tokens of each prompt."""
        return tuple(length - visual for length, visual in zip(self.lengths, self.visual_counts, strict=True))


def distribute_images(prompts: Sequence[str], images: int) -> list[int]:
    """The number of images of each prompt.

    It is the number of ``<image>`` markers in the prompt. If no prompt has a marker, the only prompt takes all images,
    or each of several prompts takes one.

    Raises:
        UserError: the numbers of images and prompts or markers differ.
    """
    markers = [prompt.count(MARKER) for prompt in prompts]
    if sum(markers) == images:
        return markers
    if not any(markers):
        if len(prompts) == 1:
            return [images]
        if images == len(prompts):
            return [1] * images
    raise UserError(
        f"{images} image(s) do not fit {len(prompts)} prompt(s) with {sum(markers)} {MARKER} marker(s)",
        f"write one {MARKER} in the prompts for every image, in the images' order",
    )


def chat_text(family: Family, prompt: str, images: int, part: str = "image") -> str:
    """The prompt in the checkpoint's chat template, with one placeholder per image.

    Images of a prompt without ``<image>`` markers come first. ``part`` is what the template calls an image: image or
    video.
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
    plain = "".join(piece.get("text", line) for piece in parts)
    return family.template(plain) or _PLAIN_TEMPLATE.format(plain)


def build_prompt(family: Family, prompts: Sequence[str], tokens: VisualTokens) -> Prompt:
    """Embed ``prompts`` with the placeholder of each image repeated once per kept visual token.

    Positions are renumbered over the kept tokens, unless the family keeps those of the whole prompt.

    Raises:
        UserError: images and prompts do not fit, or a prompt contains a stray placeholder.
    """
    per_prompt = distribute_images(prompts, len(tokens.embeddings))
    part = "video" if tokens.video and family.video_placeholder else "image"
    ids, positions, first = [], [], 0
    for prompt, count in zip(prompts, per_prompt, strict=True):
        text = chat_text(family, prompt, count, part)
        prompt_ids, prompt_positions = build_ids(family, text, tokens, range(first, first + count))
        ids.append(prompt_ids)
        positions.append(prompt_positions)
        first += count
    lengths = tuple(map(len, ids))
    padding = [max(lengths) - length for length in lengths]
    pad_id = family.processor.tokenizer.pad_token_id or 0
    input_ids = torch.tensor([[pad_id] * pad + prompt_ids for pad, prompt_ids in zip(padding, ids, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * length for pad, length in zip(padding, lengths, strict=True)])
    visual = (input_ids == family.image_token_id) & mask.bool()
    # The placeholder's id may be outside the embedding table, so the padding's stands in for it.
    embeds = family.embed(family.to_device(input_ids.masked_fill(visual, pad_id)))
    embeddings = torch.cat([image.to(device=embeds.device, dtype=embeds.dtype) for image in tokens.embeddings])
    target_indices = family.to_device(visual.flatten().nonzero()[:, 0])
    return Prompt(
        texts=tuple(prompts),
        lengths=lengths,
        input_ids=input_ids,
        embeds=embeds.flatten(0, 1).index_copy(0, target_indices, embeddings).view_as(embeds),
        attention_mask=family.to_device(mask),
        positions=family.to_device(_batch_positions(positions, mask, family.first_position)),
        visual=family.to_device(visual),
        embedding_index=torch.where(visual, visual.flatten().cumsum(0).view_as(visual) - 1, -1),
        deepstack=tuple(torch.cat(layer).to(embeds) for layer in zip(*tokens.deepstack, strict=True)),
    )


def _batch_positions(positions: Sequence[torch.Tensor | None], mask: torch.Tensor, first: int) -> torch.Tensor:
    """Positions (P, B, L) from each prompt's (P, l), padded at the left; if it has none, (B, L) from ``first`` on."""
    if positions[0] is None:
        return (mask.cumsum(-1) - 1 + first).clamp(min=0)
    length = mask.shape[1]
    padded = [torch.nn.functional.pad(axes, (length - axes.shape[1], 0)) for axes in positions if axes is not None]
    return torch.stack(padded, 1)
