"""The token ids of a prompt in which an image is a stretch of text: its markup, with one placeholder per visual token.

The prompt is written out in full, like by the stock processor. Then it loses what belongs to dropped visual tokens:
their placeholders, and the line ends of lines without a visual token left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from fopru_graph.errors import UserError
from fopru_graph.values import VisualTokens

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family


def build_ids(family: Family, text: str, tokens: VisualTokens, images: range) -> tuple[list[int], torch.Tensor | None]:
    """The ids (L tokens) of a prompt with one placeholder per kept visual token, and its positions (P, L).

    The positions are those in the unpruned prompt; None if the family renumbers kept tokens.

    Args:
        family: the model.
        text: the prompt with one `Family.placeholder` per image.
        tokens: the visual tokens of all images.
        images: the images of this prompt.

    Raises:
        UserError: there are more or fewer placeholders than images.
    """
    if not tokens.markup:
        return _repeat_placeholders(family, text, [len(tokens.embeddings[image]) for image in images]), None
    parts = text.split((tokens.video and family.video_placeholder) or family.placeholder)
    _check_placeholders(len(parts) - 1, len(images))
    written = [piece for image, part in zip(images, parts[1:], strict=True) for piece in (tokens.markup[image], part)]
    ids = family.tokenize("".join([parts[0], *written]))
    placeholders = [i for i, token in enumerate(ids) if token == family.image_token_id]
    _check_placeholders(len(placeholders), sum(tokens.encoded[image] for image in images))
    keep = [True] * len(ids)
    kept_sources = []  # index in the full prompt of each kept visual token, in the order of the embeddings
    for image in images:
        count, kept = tokens.encoded[image], tokens.keep_positions[image].tolist()
        image_placeholders, placeholders = placeholders[:count], placeholders[count:]
        for dropped in set(range(count)) - set(kept):
            keep[image_placeholders[dropped]] = False
        kept_sources += [image_placeholders[i] for i in kept]
    if family.line_end_id is not None:
        _drop_line_ends(ids, keep, family.image_token_id, family.line_end_id)
    kept_ids = [token for token, kept in zip(ids, keep, strict=True) if kept]
    positions = family.positions(ids, [tokens.grids[image] for image in images])
    if positions is not None:
        order = iter(kept_sources)
        sources = [next(order) if ids[i] == family.image_token_id else i for i in range(len(ids)) if keep[i]]
        positions = positions[:, sources]
    return kept_ids, positions


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


def _repeat_placeholders(family: Family, text: str, counts: Sequence[int]) -> list[int]:
    """Ids of ``text`` with the placeholder of each image repeated once per kept visual token."""
    ids = family.tokenize(text)
    _check_placeholders(ids.count(family.image_token_id), len(counts))
    remaining = iter(counts)
    repeated: list[int] = []
    for token in ids:
        repeated += [token] * next(remaining) if token == family.image_token_id else [token]
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
