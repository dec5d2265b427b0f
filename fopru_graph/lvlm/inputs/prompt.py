"""Prompts with one placeholder per kept visual token, embedded and batched with left padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.chat import MARKER, Question, as_question, chat_text, distribute_images
from fopru_graph.lvlm.inputs.positions import Numbering, kept_positions
from fopru_graph.lvlm.inputs.token_ids import PromptIds, build_ids, check_embedded, images_of, pruned_ids, span_of
from fopru_graph.values import PromptEmbeddings, VisualTokens

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family


@dataclass(frozen=True, eq=False)
class Prompt:
    """B prompts of L tokens, embedded. Tensors are on the language model's device unless said otherwise.

    ``texts``: the B questions as given; ``lengths``: tokens of each, without padding; ``input_ids`` (B, L) int64 on the
    CPU; ``embeds`` (B, L, E); ``attention_mask`` (B, L) int64, 0 on the padding at the left; ``positions`` (B, L) or,
    if the model has P axes of position, (P, B, L) int64, 0 on padding; ``visual`` (B, L) bool, True on visual tokens:
    newlines between them count as text. ``embedding_index`` (B, L) int64 on the CPU is each visual token's index among
    all embeddings of the batch, −1 elsewhere; ``deepstack`` holds one (visual tokens of the batch, E) tensor per
    DeepStack layer, in the same order. ``unpruned_ids`` and ``unpruned_mask`` (B, U) int64 on the CPU are ids and mask
    of the prompts before pruning; ``spans``: how many positions each prompt takes, from its first to its last.
    ``images`` are the indices of each image's tokens, without padding, text between visual tokens included; an image of
    which nothing is left has an empty range. ``numbering`` is how kept tokens are numbered, and ``cut_numbering`` how
    those are that a cut inside the language model leaves.
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
    images: tuple[tuple[range, ...], ...]
    numbering: Numbering
    cut_numbering: Numbering
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


def repeated(prompt: Prompt, times: int) -> Prompt:
    """Every prompt of the batch so many times in a row, as the stock ``generate`` asks for several answers at once."""

    def rows(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat_interleave(times, 0)

    def each(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(value for value in values for _ in range(times))

    counts = list(prompt.visual_counts)
    return replace(
        prompt,
        texts=each(prompt.texts),
        lengths=each(prompt.lengths),
        input_ids=rows(prompt.input_ids),
        embeds=rows(prompt.embeds),
        attention_mask=rows(prompt.attention_mask),
        positions=prompt.positions.repeat_interleave(times, -2),
        visual=rows(prompt.visual),
        embedding_index=rows(prompt.embedding_index),
        unpruned_ids=rows(prompt.unpruned_ids),
        unpruned_mask=rows(prompt.unpruned_mask),
        spans=each(prompt.spans),
        images=each(prompt.images),
        deepstack=tuple(torch.cat(each(layer.split(counts))) for layer in prompt.deepstack),
    )


def build_prompt(
    family: Family,
    prompts: Sequence[str | Question],
    tokens: VisualTokens | None,
    numbering: Numbering | None = None,
) -> Prompt:
    """Embed ``prompts`` with the placeholder of each image repeated once per kept visual token; None: no images.

    Positions go by ``numbering``, see `positions`; None: kept tokens are renumbered, but keep the positions of the
    whole prompt where a model has several axes of them; those that a cut inside the language model leaves keep theirs.

    Raises:
        UserError: images and prompts do not fit, or a prompt contains a stray placeholder or a token that has no
            embedding.
    """
    questions, tokens = [as_question(prompt) for prompt in prompts], tokens or VisualTokens((), (), ())
    per_prompt = distribute_images(family, questions, len(tokens.embeddings))
    part = "video" if tokens.video and family.video_placeholder else "image"
    written: list[PromptIds] = []
    first = 0
    for question, count in zip(questions, per_prompt, strict=True):
        text = chat_text(family, question, count, part)
        written.append(build_ids(family, text, tokens, range(first, first + count)))
        first += count
    return _embedded(family, [question.last for question in questions], written, per_prompt, tokens, numbering)


def prompt_of_ids(
    family: Family, prompts: Sequence[list[int]], tokens: VisualTokens, numbering: Numbering | None = None
) -> Prompt:
    """Embed whole prompts that are token ids already, as `build_prompt` embeds texts; their ``texts`` are empty.

    Args:
        family: the model.
        prompts: B lists of ids without padding, with a placeholder for each visual token, dropped or not.
        tokens: the visual tokens of all their images, in order.
        numbering: as for `build_prompt`.

    Raises:
        UserError: the placeholders are not those of the images, or a token has no embedding.
    """
    images = images_of(family, prompts, tokens)
    written = [pruned_ids(family, ids, tokens, shown) for ids, shown in zip(prompts, images, strict=True)]
    return _embedded(family, [""] * len(prompts), written, [*map(len, images)], tokens, numbering)


def _embedded(
    family: Family,
    texts: Sequence[str],
    written: Sequence[PromptIds],
    per_prompt: Sequence[int],
    tokens: VisualTokens,
    numbering: Numbering | None,
) -> Prompt:
    """The prompt of ids that are written, with so many images each."""
    for prompt in written:
        check_embedded(family, prompt.ids)
    input_ids, mask = _padded([prompt.ids for prompt in written], family.pad_id)
    unpruned_ids, unpruned_mask = _padded([prompt.unpruned for prompt in written], family.pad_id)
    positions, spans, resolved = _positions(family, written, tokens, per_prompt, numbering)
    placeholders = (input_ids == family.image_token_id) & mask.bool()
    # The placeholder's id may be outside the embedding table, so the padding's stands in for it.
    embeds = family.embed(family.to_device(input_ids.masked_fill(placeholders, family.pad_id)))
    embeddings = torch.cat([embeds[0, :0], *(image.to(embeds) for image in tokens.embeddings)])
    target_indices = family.to_device(placeholders.flatten().nonzero()[:, 0])
    embedding_index = torch.full_like(input_ids, -1).masked_scatter(placeholders, _patch_indices(tokens))
    visual = embedding_index >= 0
    return Prompt(
        texts=tuple(texts),
        lengths=tuple(len(prompt.ids) for prompt in written),
        input_ids=input_ids,
        embeds=embeds.flatten(0, 1).index_copy(0, target_indices, embeddings).view_as(embeds),
        attention_mask=family.to_device(mask),
        positions=family.to_device(_batch_positions(positions, mask)),
        visual=family.to_device(visual),
        embedding_index=embedding_index,
        unpruned_ids=unpruned_ids,
        unpruned_mask=unpruned_mask,
        spans=spans,
        images=tuple(tuple(prompt.images) for prompt in written),
        numbering=resolved,
        cut_numbering=numbering or "original",
        deepstack=tuple(torch.cat(layer).to(embeds) for layer in zip(*tokens.deepstack, strict=True)),
    )


@torch.inference_mode()
def embed_texts(family: Family, texts: Sequence[str]) -> PromptEmbeddings:
    """Texts without a template and without pictures, token by token.

    Images are those that the texts name, in order; if several texts name none, each is about one image.

    Raises:
        UserError: a text is empty, or holds a token that has no embedding.
    """
    ids = []
    for text in texts:
        written = family.processor.tokenizer(text.replace(MARKER, ""), add_special_tokens=False).input_ids
        if not written:
            raise UserError("there is no question to encode", "give a prompt that says something")
        check_embedded(family, written)
        ids.append(family.to_device(torch.tensor(written)))
    named = tuple(number for number, text in enumerate(texts) for _ in range(text.count(MARKER)))
    images = named or (tuple(range(len(texts))) if len(texts) > 1 else ())
    return PromptEmbeddings(tuple(texts), tuple(ids), tuple(family.embed(each[None])[0] for each in ids), images)


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


def _positions(
    family: Family,
    written: Sequence[PromptIds],
    tokens: VisualTokens,
    images: Sequence[int],
    numbering: Numbering | None,
) -> tuple[list[torch.Tensor], tuple[int, ...], Numbering]:
    """Every prompt's positions (L,) or (P, L), how many it takes, and how; rebased ones wait for the device."""
    positions, spans = [], []
    first = 0
    for prompt, count in zip(written, images, strict=True):
        shown = range(first, first + count)
        first += count
        axes = family.positions(
            prompt.unpruned,
            [tokens.grids[image] for image in shown if tokens.grids],
            [tokens.frame_rates[image] for image in shown if tokens.frame_rates],
        )
        how = numbering or ("renumbered" if axes is None else "original")
        unpruned = axes if axes is not None else torch.arange(len(prompt.unpruned))[None] + family.first_position
        if how == "renumbered":
            kept, length = kept_positions(how, unpruned, torch.arange(len(prompt.ids)), []), len(prompt.ids)
        else:
            sources = prompt.sources(family, [tokens.keep_positions[image] for image in shown])
            kept = kept_positions(how, family.to_device(unpruned), sources, [*map(span_of, prompt.placeholders)])
            length = int((unpruned if how == "original" else kept).max()) + 1 - family.first_position
        positions.append(kept[0] if axes is None else kept)
        spans.append(length)
    return positions, tuple(spans), how


def _batch_positions(positions: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Positions (B, L) or (P, B, L) of prompts, from each one's (l,) or (P, l), padded at the left with 0."""
    length = mask.shape[1]
    return torch.stack([torch.nn.functional.pad(axes, (length - axes.shape[-1], 0)) for axes in positions], -2)
