"""Pictures in batches, on every family: how many tokens each will have, and that none is encoded twice."""

from __future__ import annotations

import torch

from tests import tiny

SIZES = ((300, 170), (500, 500))


def test_the_visual_tokens_of_a_picture_are_known_before_it_is_encoded(row, family):
    pictures = [tiny.image(i, *size) for i, size in enumerate((*row.sizes, *SIZES))]
    encoded = [sum(family.encode([picture]).counts) for picture in pictures]
    told = [family.picture_tokens(picture.shape) for picture in pictures]
    assert told == encoded if any(told) else len(set(encoded)) == 1


def test_a_picture_that_several_questions_are_about_is_encoded_once(row, family):
    pictures = [tiny.image(i, *row.sizes[i]) for i in range(2)]
    distinct = family.encode_layers(pictures, ())
    repeated = family.encode_layers([*pictures, pictures[0]], ())
    assert repeated.tower_tokens == distinct.tower_tokens, "the tower saw two pictures"
    count = sum(tile.image == 0 for tile in distinct.tiles)
    assert [tile.image for tile in repeated.tiles] == [*(tile.image for tile in distinct.tiles), *[2] * count]
    tokens = family.project(repeated, None)
    assert len(tokens.embeddings) == 3 and tokens.encoded[2] == tokens.encoded[0]
    assert torch.allclose(tokens.embeddings[2], tokens.embeddings[0], atol=1e-5)
    assert tokens.markup[2:] == tokens.markup[:1] and repeated.image_sizes[2] == repeated.image_sizes[0]
