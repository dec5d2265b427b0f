"""Prompts with one placeholder per kept visual token, embedded and batched with left padding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fopru_graph.errors import UserError, first_line
from fopru_graph.lvlm.inputs.token_ids import PromptIds, build_ids, check_embedded
from fopru_graph.values import VisualTokens

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family

MARKER = "<image>"
_PROBE = "a question"
_PLAIN_TEMPLATE = "USER: {} ASSISTANT:"  # LLaVA-1.5's, for checkpoints without a chat template


@dataclass(frozen=True, eq=False)
class Prompt:
    """B prompts of L tokens, embedded. Tensors are on the language model's device unless said otherwise.

    ``texts``: the B prompts as given; ``lengths``: tokens of each, without padding; ``input_ids`` (B, L) int64 on the
    CPU; ``embeds`` (B, L, E); ``attention_mask`` (B, L) int64, 0 on the padding at the left; ``positions`` (B, L) or,
    if the model has P axes of position, (P, B, L) int64, 0 on padding; ``visual`` (B, L) bool, True on visual tokens:
    newlines between them count as text. ``embedding_index`` (B, L) int64 on the CPU is each visual token's index among
    all embeddings of the batch, −1 elsewhere; ``deepstack`` holds one (visual tokens of the batch, E) tensor per
    DeepStack layer, in the same order. ``unpruned_ids`` and ``unpruned_mask`` (B, U) int64 on the CPU are ids and mask
    of the prompts before pruning; ``spans``: how many positions each prompt takes, from its first to its last.
    """

    texts: tuple[str, ...]
    lengths: tuple[int, ...]
    input_ids: torch.Tensor
    embeds: torch.Tensor
    attention_mask: torch.Tensor
    positions: torch.Tensor
    visual: torch.Tensor
    embedding_index: torch.Tensor
    unpruned_ids: torch.Tensor
    unpruned_mask: torch.Tensor
    spans: tuple[int, ...]
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
        """Text tokens of each prompt, and newlines between visual tokens."""
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
    """The prompt in the checkpoint's chat template, with one placeholder per image; its text is kept as it is.

    Images of a prompt without ``<image>`` markers come first. ``part`` is what the template calls an image: image or
    video.

    Raises:
        UserError: the chat template fails.
    """
    placeholder = (part == "video" and family.video_placeholder) or family.placeholder
    first, *others = prompt.split(MARKER)
    parts = [{"type": part}] * (0 if others else images) + [{"type": "text", "text": first}] * bool(first)
    for piece in others:
        parts += [{"type": part}] + [{"type": "text", "text": piece}] * bool(piece)
    plain = placeholder.join([first, *others]) if others else (placeholder + family.after_image) * images + prompt
    if family.processor.chat_template or family.processor.tokenizer.chat_template:
        return _rendered(family.processor, parts if _takes_parts(family.processor) else plain)
    return family.template(plain) or _PLAIN_TEMPLATE.format(plain)


def _takes_parts(processor: Any) -> bool:
    """Whether the chat template writes lists of parts; those of text models fail on one, drop it or write its repr."""
    try:
        written = _rendered(processor, [{"type": "text", "text": _PROBE}])
    except UserError:
        return False
    return _PROBE in written and not re.search(r"""["']type["']: ?["']text["']""", written)


def _rendered(processor: Any, content: str | list[dict[str, str]]) -> str:
    """A user's message in the template of the processor, or of its tokenizer.

    Raises:
        UserError: the template fails; it is a program, and what it raises is its author's choice.
    """
    writer = processor if processor.chat_template else processor.tokenizer
    try:
        text: str = writer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:
        raise UserError(
            f"the checkpoint's chat template fails on a question: {first_line(error)}",
            "mend chat_template.jinja (or chat_template in tokenizer_config.json) of the checkpoint",
        ) from error
    return text


def build_prompt(family: Family, prompts: Sequence[str], tokens: VisualTokens) -> Prompt:
    """Embed ``prompts`` with the placeholder of each image repeated once per kept visual token.

    Positions are renumbered over the kept tokens, unless the family keeps those of the whole prompt.

    Raises:
        UserError: images and prompts do not fit, or a prompt contains a stray placeholder or a token that has no
            embedding.
    """
    per_prompt = distribute_images(prompts, len(tokens.embeddings))
    part = "video" if tokens.video and family.video_placeholder else "image"
    written: list[PromptIds] = []
    first = 0
    for prompt, count in zip(prompts, per_prompt, strict=True):
        text = chat_text(family, prompt, count, part)
        written.append(build_ids(family, text, tokens, range(first, first + count)))
        check_embedded(family, written[-1].ids)
        first += count
    input_ids, mask = _padded([prompt.ids for prompt in written], family.pad_id)
    unpruned_ids, unpruned_mask = _padded([prompt.unpruned for prompt in written], family.pad_id)
    positions = [prompt.positions for prompt in written]
    placeholders = (input_ids == family.image_token_id) & mask.bool()
    # The placeholder's id may be outside the embedding table, so the padding's stands in for it.
    embeds = family.embed(family.to_device(input_ids.masked_fill(placeholders, family.pad_id)))
    embeddings = torch.cat([image.to(device=embeds.device, dtype=embeds.dtype) for image in tokens.embeddings])
    target_indices = family.to_device(placeholders.flatten().nonzero()[:, 0])
    embedding_index = torch.full_like(input_ids, -1).masked_scatter(placeholders, _patch_indices(tokens))
    visual = embedding_index >= 0
    return Prompt(
        texts=tuple(prompts),
        lengths=tuple(len(prompt.ids) for prompt in written),
        input_ids=input_ids,
        embeds=embeds.flatten(0, 1).index_copy(0, target_indices, embeddings).view_as(embeds),
        attention_mask=family.to_device(mask),
        positions=family.to_device(_batch_positions(positions, mask, family.first_position)),
        visual=family.to_device(visual),
        embedding_index=embedding_index,
        unpruned_ids=unpruned_ids,
        unpruned_mask=unpruned_mask,
        spans=tuple(span(prompt.ids, prompt.positions) for prompt in written),
        deepstack=tuple(torch.cat(layer).to(embeds) for layer in zip(*tokens.deepstack, strict=True)),
    )


def _patch_indices(tokens: VisualTokens) -> torch.Tensor:
    """(Σ K,) int64 on the CPU: 0, 1, 2, … for all embeddings of all images, but −1 for newlines."""
    lengths = list(map(len, tokens.embeddings))
    numbers = torch.arange(sum(lengths))
    for image, newlines in zip(numbers.split(lengths), tokens.newlines, strict=False):
        image[newlines] = -1
    return numbers


def span(ids: Sequence[int], positions: torch.Tensor | None) -> int:
    """How many positions a prompt takes: as many as it has tokens, or up to the last of its ``positions`` (P, L)."""
    return len(ids) if positions is None else int(positions.max()) + 1


def _padded(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, L) of prompts, padded at the left, and their mask."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    return ids, torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])


def _batch_positions(positions: Sequence[torch.Tensor | None], mask: torch.Tensor, first: int) -> torch.Tensor:
    """Positions (P, B, L) from each prompt's (P, l), padded at the left; if it has none, (B, L) from ``first`` on."""
    if positions[0] is None:
        return (mask.cumsum(-1) - 1 + first).clamp(min=0)
    length = mask.shape[1]
    padded = [torch.nn.functional.pad(axes, (length - axes.shape[1], 0)) for axes in positions if axes is not None]
    return torch.stack(padded, 1)
