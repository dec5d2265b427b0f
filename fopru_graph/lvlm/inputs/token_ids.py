"""The token ids of a prompt in which an image is a stretch of text: its markup, with one placeholder a visual token.

A prompt is written out in full, as the stock processor writes it, and then loses what belongs to dropped visual tokens:
their placeholders, and the line ends of lines that have none left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.families.family import Family
from fopru_graph.values import VisualTokens

_HINT = "use <image> once per image and nowhere else"


def shortened(family: Family, text: str, tokens: VisualTokens, images: range) -> tuple[list[int], torch.Tensor | None]:
    """Ids of one prompt with as many placeholders as visual tokens are left, and its positions (P, L) if it has some.

    Args:
        family: the model.
        text: the prompt with one `Family.placeholder` an image.
        tokens: the visual tokens of all images.
        images: those of this prompt.

    Raises:
        UserError: there are more or fewer placeholders than images.
    """
    if not tokens.markup:
        return _repeated(family, text, [len(tokens.embeddings[image]) for image in images]), None
    parts = text.split((tokens.video and family.video_placeholder) or family.placeholder)
    _check(len(parts) - 1, len(images))
    written = [piece for image, part in zip(images, parts[1:], strict=True) for piece in (tokens.markup[image], part)]
    ids = family.tokenize("".join([parts[0], *written]))
    slots = [i for i, token in enumerate(ids) if token == family.image_token_id]
    _check(len(slots), sum(tokens.encoded[image] for image in images))
    keep = [True] * len(ids)
    sources = []  # where each kept visual token stood, in the order in which they come
    for image in images:
        own, slots = slots[: tokens.encoded[image]], slots[tokens.encoded[image] :]
        left = tokens.keep_positions[image].tolist()
        for place in set(range(len(own))) - set(left):
            keep[own[place]] = False
        sources += [own[place] for place in left]
    if family.line_end_id is not None:
        _drop_line_ends(ids, keep, family.image_token_id, family.line_end_id)
    positions = family.positions(ids, [tokens.grids[image] for image in images])
    if positions is not None:
        order = iter(sources)
        visual = family.image_token_id
        stood = [next(order) if ids[i] == visual else i for i in range(len(ids)) if keep[i]]
        positions = positions[:, stood]
    return [token for token, kept in zip(ids, keep, strict=True) if kept], positions


def _repeated(family: Family, text: str, counts: Sequence[int]) -> list[int]:
    """Ids of ``text`` with the placeholder of each image repeated as often as its tokens were kept."""
    ids = family.tokenize(text)
    _check(ids.count(family.image_token_id), len(counts))
    left = iter(counts)
    expanded: list[int] = []
    for token in ids:
        expanded += [token] * next(left) if token == family.image_token_id else [token]
    return expanded


def _drop_line_ends(ids: Sequence[int], keep: list[bool], visual: int, end: int) -> None:
    """A line's end goes when the line had visual tokens and has none left."""
    had = has = False
    for i, token in enumerate(ids):
        if token == visual:
            had, has = True, has or keep[i]
        elif token == end and had:
            keep[i] = has
            had = has = False
        else:  # the last line of an image ends in something else
            had = has = False


def _check(found: int, images: int) -> None:
    if found != images:
        raise UserError(f"the prompt holds {found} image placeholder(s) for {images} image(s)", _HINT)
