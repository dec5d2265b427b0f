"""The token ids of a prompt in which an image is a stretch of text: its markup, with one placeholder per visual token.

The prompt is written out in full, like by the stock processor. Then it loses what belongs to dropped visual tokens:
their placeholders, and the line ends of lines without a visual token left.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch

from fopru_graph.errors import UserError
from fopru_graph.values import VisualTokens

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family


class PromptIds(NamedTuple):
    """The L ids of a prompt, those of the prompt ``unpruned``, and its positions (P, L) in that.

    ``positions`` are None if the family renumbers kept tokens.
    """

    ids: list[int]
    unpruned: list[int]
    positions: torch.Tensor | None


def build_ids(family: Family, text: str, tokens: VisualTokens, images: range) -> PromptIds:
    """The ids of a prompt with one placeholder per kept visual token.

    Args:
        family: the model.
        text: the prompt with one `Family.placeholder` per image.
        tokens: the visual tokens of all images.
        images: the images of this prompt.

    Raises:
        UserError: there are more or fewer placeholders than images.
    """
    if images and not tokens.markup:
        ids = family.tokenize(text)
        _check_placeholders(ids.count(family.image_token_id), len(images))
        counts = [(tokens.placeholders or tokens.encoded)[image] for image in images]
        kept_counts = [len(tokens.embeddings[image]) for image in images]
        kept_ids, unpruned = (_repeat(ids, family.image_token_id, each) for each in (kept_counts, counts))
        return PromptIds(kept_ids, unpruned, None)
    parts = text.split((tokens.video and family.video_placeholder) or family.placeholder)
    _check_placeholders(len(parts) - 1, len(images))
    written = [piece for image, part in zip(images, parts[1:], strict=True) for piece in (tokens.markup[image], part)]
    ids = family.tokenize("".join([parts[0], *written]))
    placeholders = [i for i, token in enumerate(ids) if token == family.image_token_id]
    _check_placeholders(len(placeholders), sum(tokens.encoded[image] for image in images))
    keep = [True] * len(ids)
    kept_sources = []  # index in the full prompt of each kept visual token, in the order of the embeddings
    positions = family.positions(ids, [tokens.grids[image] for image in images])
    which = positions is not None or family.line_end_id is not None  # else how many are left says it all
    for image, kept in zip(images, _kept(tokens, images) if which else _as_many(tokens, images), strict=True):
        count = tokens.encoded[image]
        image_placeholders, placeholders = placeholders[:count], placeholders[count:]
        for dropped in set(range(count)) - set(kept):
            keep[image_placeholders[dropped]] = False
        kept_sources += [image_placeholders[i] for i in kept]
    if family.line_end_id is not None:
        _drop_line_ends(ids, keep, family.image_token_id, family.line_end_id)
    kept_ids = [token for token, kept in zip(ids, keep, strict=True) if kept]
    if positions is not None:
        order = iter(kept_sources)
        sources = [next(order) if ids[i] == family.image_token_id else i for i in range(len(ids)) if keep[i]]
        positions = positions[:, sources]
    return PromptIds(kept_ids, ids, positions)


def check_embedded(family: Family, ids: Sequence[int]) -> None:
    """Refuse what a tokenizer knows and the model does not: tokens that were added to the tokenizer alone.

    Raises:
        UserError: a token of ``ids``, which is no visual token, has no embedding.
    """
    rows = family.model.get_input_embeddings().num_embeddings
    for token in ids:
        if token >= rows and token != family.image_token_id:
            written = family.processor.tokenizer.decode([token])
            raise UserError(
                f"the prompt holds {written!r}, token {token}, and the model has no embedding for it, only {rows}",
                "word the prompt without it, or resize the checkpoint's embeddings to its tokenizer",
            )


def _kept(tokens: VisualTokens, images: range) -> list[list[int]]:
    """The ``keep_positions`` of a prompt's images; the host waits for the device, once."""
    kept = [tokens.keep_positions[image] for image in images]
    numbers = iter(torch.cat(kept).tolist() if kept else [])
    return [list(islice(numbers, len(image))) for image in kept]


def _as_many(tokens: VisualTokens, images: range) -> list[list[int]]:
    """As many of each tile as are kept, its first: in a row of equal placeholders it does not matter which are left."""
    kept = []
    for image in images:
        counts = tokens.tile_counts[image]
        size = tokens.encoded[image] // len(counts)
        kept.append([tile * size + i for tile, count in enumerate(counts) for i in range(count)])
    return kept


def _repeat(ids: Sequence[int], placeholder: int, counts: Sequence[int]) -> list[int]:
    """``ids`` with the placeholder of each image repeated once per visual token."""
    remaining = iter(counts)
    repeated: list[int] = []
    for token in ids:
        repeated += [token] * next(remaining) if token == placeholder else [token]
    return repeated


def _drop_line_ends(ids: Sequence[int], keep: list[bool], visual: int, line_end: int) -> None:
    """Drop the end of each line that had visual tokens and has none left."""
    had_visual = has_visual = False
    for i, token in enumerate(ids):
        if token == visual:
            had_visual, has_visual = True, has_visual or keep[i]
            continue
        if token == line_end and had_visual:  # the last line of an image ends in another token
            keep[i] = has_visual
        had_visual = has_visual = False


def _check_placeholders(count: int, images: int) -> None:
    if count != images:
        raise UserError(
            f"the prompt holds {count} image placeholder(s) for {images} image(s)",
            "use <image> once per image and nowhere else",
        )
