"""Training batches: scenes drawn on the fly, their patch labels, and several independent questions packed per picture.

Layout of one packed sequence, ``P`` prefix tokens and ``Q`` question blocks of ``BLOCK`` tokens::

    <s> user : <image>·grid² | question ? assistant : answer </s> <pad>… | question …

A block sees only the prefix and itself, and its positions start at ``P``, so it equals the one-question prompt of the
chat template. Packing saves encoding the picture once per question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import transformers

from fopru_graph.demo import questions, scenes
from fopru_graph.demo.architecture import SIDE

BLOCK = 12
LABELS = ("shape", "colour", "word", "letter", "centre", "row", "column")
# The kinds of question that are learned last are asked most.
KIND_WEIGHTS = {"existence": 1.0, "colour": 1.0, "shape": 1.0, "counting": 1.6, "position": 1.8, "reading": 1.3}
IGNORED = -100


@dataclass
class Batch:
    """B scenes with Q questions each on a ``grid × grid`` raster; L = prefix + Q·BLOCK."""

    pixels: torch.Tensor | None  # (B, 3, SIDE, SIDE) float32 in [-1, 1]
    labels: dict[str, torch.Tensor]  # LABELS: (B, grid²) int64
    input_ids: torch.Tensor  # (B, L) int64
    targets: torch.Tensor  # (B, L) int64: next token of the answer, IGNORED elsewhere
    early: torch.Tensor  # (B, L) int64: the answer's first token at every token of its question, IGNORED elsewhere
    later: torch.Tensor  # (B, L) int64: likewise the second token of an answer of two, IGNORED elsewhere
    kinds: list[list[str]]  # (B, Q)

    @property
    def empty(self) -> torch.Tensor:
        """(B, grid²) bool: patches with nothing of any shape or sign under them."""
        return (self.labels["shape"] == 0) & (self.labels["word"] == 0)


class Packer:
    """Makes batches of scenes, for a tokenizer, a grid and a number of questions per scene."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerFast, grid: int, per_scene: int = 8):
        self.tokenizer, self.grid, self.per_scene = tokenizer, grid, per_scene
        self.prefix = [tokenizer.bos_token_id, *self._ids("user :")]
        self.image_id = tokenizer.convert_tokens_to_ids("<image>")
        self.prefix_length = len(self.prefix) + grid * grid

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def batch(
        self, split: str, first: int, count: int, *, pixels: bool, most_shapes: int = 6, sign_share: float = 0.5
    ) -> Batch:
        """Scenes ``first … first + count − 1`` of ``split`` with their questions."""
        drawn, blocks = [], []
        for index in range(first, first + count):
            rng = scenes.scene_rng(split, index)
            scene = scenes.sample_scene(rng, most_shapes, sign_share)
            while not scene.shapes:
                scene = scenes.sample_scene(rng, most_shapes, sign_share)
            drawn.append(scene)
            blocks.append(self._draw_questions(scene, rng))
        labels = [scenes.patch_labels(scene, self.grid) for scene in drawn]
        ids, targets, early, later = zip(*map(self._pack, blocks), strict=True)
        return Batch(
            pixels=torch.stack([_to_tensor(scene) for scene in drawn]) if pixels else None,
            labels={
                name: torch.from_numpy(np.stack([getattr(patches, name) for patches in labels])) for name in LABELS
            },
            input_ids=torch.tensor(ids),
            targets=torch.tensor(targets),
            early=torch.tensor(early),
            later=torch.tensor(later),
            kinds=[[question.kind for question in block] for block in blocks],
        )

    def _draw_questions(self, scene: scenes.Scene, rng: np.random.Generator) -> list[questions.Question]:
        names = list(KIND_WEIGHTS)
        weights = np.array(list(KIND_WEIGHTS.values()))
        drawn: list[questions.Question] = []
        while len(drawn) < self.per_scene:
            kind = names[rng.choice(len(names), p=weights / weights.sum())]
            question = questions.ask(scene, kind, rng)
            if question is None or kind == "reading":
                weights[names.index(kind)] = 0.0  # impossible in this scene, or of no use a second time
            if question is not None:
                drawn.append(question)
        return drawn

    def _pack(self, block: list[questions.Question]) -> tuple[list[int], list[int], list[int], list[int]]:
        ids = [*self.prefix, *[self.image_id] * (self.grid * self.grid)]
        targets = [IGNORED] * len(ids)
        early, later = [IGNORED] * len(ids), [IGNORED] * len(ids)
        for question in block:
            asked = self._ids(f"{question.text} assistant :")
            answer = [*self._ids(question.answer), self.tokenizer.eos_token_id]
            pad = BLOCK - len(asked) - len(answer)
            ids += [*asked, *answer, *[self.tokenizer.pad_token_id] * pad]
            # The logits at position i are for token i + 1, so the answer's targets start one position early.
            targets += [*[IGNORED] * (len(asked) - 1), *answer, *[IGNORED] * (pad + 1)]
            early += [*[answer[0]] * len(asked), *[IGNORED] * (BLOCK - len(asked))]
            second = answer[1] if len(answer) > 2 else IGNORED
            later += [*[second] * len(asked), *[IGNORED] * (BLOCK - len(asked))]
        return ids, targets, early, later

    def attention_mask(self) -> torch.Tensor:
        """(1, 1, L, L) bool: causal, without the blocks of other questions."""
        length = self.prefix_length + self.per_scene * BLOCK
        block = (torch.arange(length) - self.prefix_length).div(BLOCK, rounding_mode="floor").clamp(min=-1)
        same_or_prefix = (block[:, None] == block[None, :]) | (block[None, :] < 0)
        return (same_or_prefix & torch.ones(length, length, dtype=torch.bool).tril())[None, None]

    def position_ids(self) -> torch.Tensor:
        """(1, L) int64: the positions of every block continue those of the prefix."""
        blocks = self.prefix_length + torch.arange(BLOCK).repeat(self.per_scene)
        return torch.cat([torch.arange(self.prefix_length), blocks])[None]


def _to_tensor(scene: scenes.Scene) -> torch.Tensor:
    picture = np.asarray(scenes.render(scene, SIDE), dtype=np.float32)
    return torch.from_numpy(picture / 127.5 - 1.0).permute(2, 0, 1)


def accuracy_by_kind(logits_argmax: torch.Tensor, batch: Batch, prefix_length: int) -> dict[str, list[bool]]:
    """For each kind of question, whether all tokens of an answer are the greedy choice; logits_argmax (B, L)."""
    right = (logits_argmax == batch.targets) | (batch.targets == IGNORED)
    answers = right[:, prefix_length:].unflatten(1, (-1, BLOCK)).all(-1)
    result: dict[str, list[bool]] = {}
    for scene_answers, kinds in zip(answers.tolist(), batch.kinds, strict=True):
        for answer, kind in zip(scene_answers, kinds, strict=True):
            result.setdefault(kind, []).append(answer)
    return result
