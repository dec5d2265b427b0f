"""The token ids of a prompt in which an image is a stretch of text: its markup, with one placeholder per visual token.

The prompt is written out in full, like by the stock processor. Then it loses what belongs to dropped visual tokens:
their placeholders, and the line ends of lines without a visual token left.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple

import torch

from fopru_graph.errors import UserError
from fopru_graph.values import VisualTokens

if TYPE_CHECKING:
    from fopru_graph.lvlm.families.family import Family


class Run(NamedTuple):
    """A stretch of equal tokens, and the token before it, None at the beginning of a prompt."""

    before: int | None
    length: int


class PromptIds(NamedTuple):
    """A prompt's L ids after pruning, its U ids ``unpruned``, and how the first come from the second.

    ``text`` (L,) holds the index in the unpruned prompt of every token that is no visual token, −1 for visual tokens.
    ``placeholders`` are the indices of each image's visual tokens in the unpruned prompt; ``images`` are those from the
    first to the last of them after pruning, text between them included, empty if nothing is left there.
    """

    ids: list[int]
    unpruned: list[int]
    text: list[int]
    placeholders: list[list[int]]
    images: list[range]

    def sources(self, family: Family, keep_positions: Sequence[torch.Tensor]) -> torch.Tensor:
        """(L,) int64: the index in the unpruned prompt of every token, on the language model's device.

        The ``keep_positions`` (K,) of an image say which of its visual tokens are left, in the embeddings' order.
        """
        text = torch.tensor(self.text)
        images = zip(self.placeholders, keep_positions, strict=True)
        kept = [family.to_device(torch.tensor(image))[family.to_device(keep)] for image, keep in images]
        if not kept:
            return family.to_device(text)
        visual = family.to_device((text < 0).nonzero()[:, 0])
        return family.to_device(text).index_copy(0, visual, torch.cat(kept))


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
        ids = _repeat(ids, family.image_token_id, counts)
    else:
        counts = [tokens.encoded[image] for image in images]
        parts = text.split((tokens.video and family.video_placeholder) or family.placeholder)
        _check_placeholders(len(parts) - 1, len(images))
        written = [
            piece for image, part in zip(images, parts[1:], strict=True) for piece in (tokens.markup[image], part)
        ]
        ids = family.tokenize("".join([parts[0], *written]))
        _check_placeholders(ids.count(family.image_token_id), sum(counts))
    return pruned_ids(family, ids, tokens, images)


def pruned_ids(family: Family, ids: list[int], tokens: VisualTokens, images: range) -> PromptIds:
    """A whole prompt's ``ids``, with a placeholder for each visual token, without what belongs to dropped ones.

    ``tokens`` and ``images`` are as for `build_ids`.
    """
    counts = [(tokens.placeholders or tokens.encoded)[image] for image in images]
    every = iter([i for i, token in enumerate(ids) if token == family.image_token_id])
    placeholders = [list(islice(every, count)) for count in counts]
    keep = [True] * len(ids)
    for image, kept in zip(placeholders, _kept(family, tokens, images), strict=True):
        for dropped in set(range(len(image))) - set(kept):
            keep[image[dropped]] = False
    if family.line_end_id is not None:
        _drop_line_ends(ids, keep, family.image_token_id, family.line_end_id)
    left = [i for i, kept in enumerate(keep) if kept]
    kept_ids = [ids[i] for i in left]
    sources = [-1 if ids[i] == family.image_token_id else i for i in left]
    ends = [span_of(image) for image in placeholders]
    spans = [range(bisect_left(left, image.start), bisect_left(left, image.stop)) for image in ends]
    return PromptIds(kept_ids, ids, sources, placeholders, spans)


def images_of(family: Family, prompts: Sequence[Sequence[int]], tokens: VisualTokens) -> list[range]:
    """The images of each of the prompts, whole ones, by the number of placeholders that each image has.

    Raises:
        UserError: the placeholders are not those of the images.
    """
    counts = tokens.placeholders or tokens.encoded
    images: list[range] = []
    for ids in prompts:
        first = last = images[-1].stop if images else 0
        left = ids.count(family.image_token_id)
        while left > 0 and last < len(counts):
            left -= counts[last]
            last += 1
        images.append(range(first, last))
        if left:
            break
    if left or last < len(counts):
        raise UserError(
            f"the prompts hold {sum(ids.count(family.image_token_id) for ids in prompts)} placeholders of visual "
            f"tokens, and their pictures {' + '.join(map(str, counts))}",
            "give ids and pixels of one call of the model's own processor",
        )
    return images


def runs_of(token: int, prompts: Sequence[Sequence[int]]) -> list[Run]:
    """The stretches of a token in prompts, in order."""
    runs = []
    for ids in prompts:
        before = None
        for value, equal in groupby(ids):
            length = len(list(equal))
            if value == token:
                runs.append(Run(before, length))
            before = value
    return runs


def span_of(indices: Sequence[int]) -> range:
    """From the first of ascending ``indices`` to the last; empty if there are none."""
    return range(indices[0], indices[-1] + 1) if indices else range(0)


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


def _kept(family: Family, tokens: VisualTokens, images: range) -> list[list[int]]:
    """Which visual tokens of a prompt's images are left, as far as its ids depend on that.

    In a row of equal placeholders it does not matter which: as many of each tile as are kept, its first. Where line
    ends go with their lines the host waits for the device, once.
    """
    if family.line_end_id is None:
        if not tokens.tile_counts:
            return [list(range(len(tokens.embeddings[image]))) for image in images]
        first_ones = []
        for image in images:
            counts = tokens.tile_counts[image]
            size = tokens.encoded[image] // len(counts)
            first_ones.append([tile * size + i for tile, count in enumerate(counts) for i in range(count)])
        return first_ones
    left = [tokens.keep_positions[image] for image in images]
    numbers = iter(torch.cat(left).tolist() if left else [])
    return [list(islice(numbers, len(image))) for image in left]


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
