"""Scores, the question, budgets, and which visual tokens are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fopru_graph.describing import Described
from fopru_graph.values.vision import VisionFeatures

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False, repr=False)
class Significance(Described):
    """One score per visual token, larger is more significant.

    For each tile, ``scores`` holds an (N,) float32 tensor and ``grids`` its (h, w). ``direction`` holds the scorer's
    name, or for FoPru a () bool tensor on the scores' device: True if the column mean (attention received) had the
    larger variance, False for the row mean. ``images`` and ``tile_positions`` are as in `Tile`; without them the scores
    can only be pruned tile by tile.
    """

    scores: tuple[torch.Tensor, ...]
    grids: tuple[tuple[int, int], ...]
    direction: tuple[str | torch.Tensor, ...]
    images: tuple[int, ...] = ()
    tile_positions: tuple[tuple[int, int] | None, ...] = ()

    @classmethod
    def of(
        cls, features: VisionFeatures, scores: Sequence[torch.Tensor], direction: str | Sequence[torch.Tensor]
    ) -> Significance:
        """Scores of all tiles of ``features``; ``direction`` is the scorer's name, or each tile's bool tensor."""
        tiles = features.tiles
        directions = (direction,) * len(tiles) if isinstance(direction, str) else tuple(direction)
        grids, images, positions = zip(*((tile.grid, tile.image, tile.tile_position) for tile in tiles), strict=True)
        return cls(tuple(scores), grids, directions, images, positions)

    @property
    def direction_names(self) -> tuple[str, ...]:
        """Per tile: ``received`` (column mean, s₂ of FoPru's Eq. 3), ``given`` (row mean, s₁), or the scorer's name.

        Reading it waits for the device, so it is read after a run, not during it.
        """
        return tuple(name if isinstance(name, str) else "received" if name else "given" for name in self.direction)


@dataclass(frozen=True, eq=False, repr=False)
class PromptEmbeddings(Described):
    """Questions as the language model embeds them: each one's token ids (T,) and embeddings (T, E), on its device.

    ``images`` says which question each image belongs to, in the images' order; empty if the only one is about all.
    """

    texts: tuple[str, ...]
    ids: tuple[torch.Tensor, ...]
    embeddings: tuple[torch.Tensor, ...]
    images: tuple[int, ...] = ()

    def of_image(self, image: int) -> torch.Tensor:
        """(T, E): the embeddings of the question about an image."""
        return self.embeddings[self.images[image] if self.images else 0]


@dataclass(frozen=True, eq=False, repr=False)
class Selection(Described):
    """Indices of the kept visual tokens, one (K,) int64 tensor per tile, and each tile's N before the selection.

    ``scores_finite`` is a () bool tensor on the scores' device: whether the scores that it was made by are finite; None
    if there were none. Reading it waits for the device, so that generating reads it together with the first token.
    ``areas`` holds for each tile an (N,) int64 tensor where all its tokens were pooled into the kept ones: the index of
    the one that each went into (of several the one it weighs most in); no entries where tokens were dropped.
    """

    indices: tuple[torch.Tensor, ...]
    counts: tuple[int, ...]
    scores_finite: torch.Tensor | None = None
    areas: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True, repr=False)
class Budget(Described):
    """How many visual tokens of each tile are kept."""

    counts: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class VisualTokens(Described):
    """Projected visual tokens, one (K, E) tensor per image, ready to replace the image's placeholders.

    For each image, ``origin`` is a (K, 2) int64 tensor with the tile of every token and its index in that tile,
    (−1, −1) for newlines, which show no patch: ``newlines`` are their indices, int64 on the CPU; no entries if there
    are none. ``encoded`` is the number of visual tokens before pruning, without newlines, and ``placeholders`` that of
    the stock prompt, with all newlines; no entries if it is the same. ``keep_positions`` (K,) int64 says which of them
    are left, for families whose prompt needs it. ``deepstack`` holds one (K, E) tensor per DeepStack layer; ``grids``
    is (frames, h, w); ``tile_counts`` are the kept tokens of each tile of an image, where ``keep_positions`` is set;
    ``markup``, ``video`` and ``frame_rates`` are as in `VisionFeatures`, ``scores_finite`` as in `Selection`.
    """

    embeddings: tuple[torch.Tensor, ...]
    origin: tuple[torch.Tensor, ...]
    encoded: tuple[int, ...]
    keep_positions: tuple[torch.Tensor, ...] = ()
    deepstack: tuple[tuple[torch.Tensor, ...], ...] = ()
    grids: tuple[tuple[int, int, int], ...] = ()
    markup: tuple[str, ...] = ()
    video: bool = False
    newlines: tuple[torch.Tensor, ...] = ()
    placeholders: tuple[int, ...] = ()
    scores_finite: torch.Tensor | None = None
    tile_counts: tuple[tuple[int, ...], ...] = ()
    frame_rates: tuple[float, ...] = ()

    @property
    def counts(self) -> tuple[int, ...]:
        """Visual tokens of every image, without newlines."""
        newlines = map(len, self.newlines) if self.newlines else [0] * len(self.embeddings)
        return tuple(len(tokens) - ends for tokens, ends in zip(self.embeddings, newlines, strict=True))
