"""Training objectives besides the answers, with their modules, which are not shipped with the weights."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from fopru_graph.demo.architecture import GRID
from fopru_graph.demo.batches import IGNORED, Batch
from fopru_graph.demo.scenes import COLOURS, SHAPES, WORDS

STAGES = ("language", "tower", "align", "joint")  # of the training, in this order
DENSE_CLASSES = {
    "shape": 1 + len(SHAPES),
    "colour": 1 + len(COLOURS),
    "word": 1 + len(WORDS),
    "letter": 27,
    "centre": 2,
    "row": 1 + GRID,
    "column": 1 + GRID,
}
POSITION_LABELS = ("row", "column")
READ_OUT_TOKENS = 4


class Symbols(nn.Module):
    """Symbolic visual tokens: word embeddings of a patch's labels plus learned position codes."""

    def __init__(self, width: int, tokenizer) -> None:
        super().__init__()
        self.place = nn.Embedding(2 * GRID, width)
        self.early = nn.Linear(width, len(tokenizer))
        self.later = nn.Linear(width, len(tokenizer))
        self.nothing = nn.Parameter(torch.zeros(width))
        self.centre = nn.Parameter(torch.zeros(width))
        for weight in (self.place.weight, self.nothing, self.centre):
            nn.init.normal_(weight, std=0.02)
        for name, words in (("shape", SHAPES), ("colour", COLOURS), ("word", WORDS)):
            ids = tokenizer.convert_tokens_to_ids(["<pad>", *words])
            self.register_buffer(f"{name}_ids", torch.tensor(ids), persistent=False)

    def answers_in_questions(self, hidden: torch.Tensor, batch: Batch, start: int) -> torch.Tensor:
        """Loss of naming the answer's tokens at every token of the question; hidden (B, L, D)."""
        pairs = ((self.early, batch.early), (self.later, batch.later))
        return torch.stack(
            [
                F.cross_entropy(
                    head(hidden[:, start:].float()).flatten(0, 1), target[:, start:].flatten(), reduction="sum"
                )
                / (target != IGNORED).sum().clamp(min=1)  # a batch may hold no answer of two tokens
                for head, target in pairs
            ]
        ).sum()

    def forward(self, batch: Batch, words: torch.Tensor) -> torch.Tensor:
        """Tokens (B, N, D) of the batch's labels (B, N), from the word-embedding matrix (V, D)."""
        labels = batch.labels
        n = labels["shape"].shape[1]
        grid = math.isqrt(n)
        # The coarse grid of the curriculum uses every second code, so that a code keeps its meaning on the full grid.
        line = torch.arange(grid) * (GRID // grid)
        rows, columns = self.place(line), self.place(GRID + line)
        tokens = (rows[:, None] + columns[None, :]).reshape(1, n, -1)
        for name in ("shape", "colour", "word"):
            ids = getattr(self, f"{name}_ids")[labels[name]]
            tokens = tokens + words[ids] * (labels[name] > 0)[..., None]
        return tokens + batch.empty[..., None] * self.nothing + (labels["centre"] > 0)[..., None] * self.centre


class Heads(nn.Module):
    """Heads on the features that the projector reads: dense labels of each patch, and the global read-out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dense = nn.ModuleDict({name: nn.Linear(width, count) for name, count in DENSE_CLASSES.items()})
        self.read_out = nn.Linear(width, len(SHAPES) + len(COLOURS) + len(WORDS))
        self.last_read_out = nn.Linear(width, len(SHAPES) + len(COLOURS) + len(WORDS))

    def losses(self, features: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Dense and read-out loss of features (B, 1 + N, D), CLS first."""
        x = self.norm(features)
        dense = torch.zeros(())
        for name, head in self.dense.items():
            target = batch.labels[name]
            if name in POSITION_LABELS:  # they are learned on objects only
                target = target.masked_fill(batch.empty, IGNORED)
            logits = head(x[:, 1:]).float().flatten(0, 1)
            dense = dense + F.cross_entropy(logits, target.flatten(), weight=_rare(name))
        indices = torch.randint(1, x.shape[1], (x.shape[0], READ_OUT_TOKENS))
        indices[:, 0] = 0  # CLS is always among them
        tokens = torch.take_along_dim(x, indices[..., None], 1)
        return dense, presence_loss(self.read_out(tokens), batch)


def _rare(name: str) -> torch.Tensor:
    """Class weights: nine patches in ten show nothing, and must not outweigh the others."""
    return torch.tensor([0.05] + [1.0] * (DENSE_CLASSES[name] - 1))


def presence_loss(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Multi-label loss of logits (B, T, shapes + colours + words) against what the picture holds."""
    present = torch.cat(
        [F.one_hot(batch.labels[name], DENSE_CLASSES[name]).amax(1)[:, 1:] for name in ("shape", "colour", "word")],
        -1,
    )
    target = present[:, None, :].expand(-1, logits.shape[1], -1).float()
    return 4 * F.binary_cross_entropy_with_logits(logits.float(), target)
