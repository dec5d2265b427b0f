"""Accuracy of the demo model by kind of question, for all tokens and for several ways of dropping them.

``python -m fopru_graph.demo.evaluate --scenes 300`` prints the table that stands in the model card. Answers are generated
by the package's own executor and compared as whole strings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fopru_graph.demo.questions import KINDS, all_kinds
from fopru_graph.demo.scenes import patch_labels, render, sample_scene, scene_rng
from fopru_graph.lvlm.decode import generate
from fopru_graph.lvlm.family import Family
from fopru_graph.lvlm.load import load_model
from fopru_graph.pruning.attention import attention_means
from fopru_graph.pruning.fastv import last_row_attention
from fopru_graph.pruning.rank import rank_select
from fopru_graph.pruning.reorder import reorder
from fopru_graph.pruning.row import row_select
from fopru_graph.pruning.significance import significance
from fopru_graph.values import Image, InLLMPruner, Selection, Tile, VisionFeatures, VisualTokens

RATIOS = (0.5, 0.25, 0.11)
FASTV_LAYER = 3
Select = Callable[[Tile, float, int], torch.Tensor]


def _scores(tile: Tile) -> torch.Tensor:
    noted = tile.attention
    return significance(*attention_means(noted.query, noted.key, noted.scale, noted.prefix))[0]


def _random(tile: Tile, ratio: float, seed: int) -> torch.Tensor:
    return rank_select(torch.rand(len(tile.features), generator=torch.Generator().manual_seed(seed)), ratio)


SELECTIONS: dict[str, Select] = {
    "FoPru rank": lambda tile, ratio, _seed: rank_select(_scores(tile), ratio),
    "FoPru row": lambda tile, ratio, _seed: row_select(_scores(tile), tile.grid, ratio),
    "random": _random,
    "lowest score": lambda tile, ratio, _seed: rank_select(-_scores(tile), ratio),
}


@dataclass
class Tally:
    """Right answers and questions by kind, and how much of the objects a selection kept."""

    right: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    asked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    object_patches: int = 0
    kept_object_patches: int = 0

    def row(self) -> dict[str, float | int]:
        """Accuracy by kind and over all questions; share of the object patches kept."""
        shares: dict[str, float | int] = {k: round(self.right[k] / self.asked[k], 4) for k in KINDS if self.asked[k]}
        shares["all"] = round(sum(self.right.values()) / sum(self.asked.values()), 4)
        shares["questions"] = sum(self.asked.values())
        if self.object_patches:
            shares["object_patches_kept"] = round(self.kept_object_patches / self.object_patches, 4)
        return shares


def evaluate(family: Family, split: str = "test", scenes: int = 300, ratios: tuple[float, ...] = RATIOS) -> dict[str, dict]:
    """Rows of figures by method; every method sees the same scenes and questions."""
    variants: list[tuple[str, Select | None, float, bool]] = [("all tokens", None, 1.0, False)]
    for ratio in ratios:
        variants += [(f"{name} {ratio:.0%}", select, ratio, False) for name, select in SELECTIONS.items()]
        variants.append((f"FastV {ratio:.0%}", None, ratio, True))
    tallies = {name: Tally() for name, *_ in variants}
    for index in range(scenes):
        rng = scene_rng(split, index)
        scene = sample_scene(rng)
        questions = all_kinds(scene, rng)
        if not questions:
            continue
        features = family.encode([Image(render(scene), f"{split} {index}")])
        labels = patch_labels(scene, features.tiles[0].grid[0])
        objects = torch.from_numpy((labels.shape > 0) | (labels.word > 0))
        for name, select, ratio, in_llm in variants:
            selection = None
            if select is not None:
                chosen = reorder(select(features.tiles[0], ratio, index))
                selection = Selection((chosen,), features.counts)
                tallies[name].object_patches += int(objects.sum())
                tallies[name].kept_object_patches += int(objects[chosen].sum())
            pruners = [InLLMPruner(last_row_attention, FASTV_LAYER, ratio)] if in_llm else []
            answers = _ask_all(family, features, selection, [q.text for q in questions], pruners)
            for question, answer in zip(questions, answers, strict=True):
                tallies[name].asked[question.kind] += 1
                tallies[name].right[question.kind] += answer == question.answer
    return {name: tally.row() for name, tally in tallies.items()}


def _ask_all(
    family: Family, features: VisionFeatures, selection: Selection | None, prompts: list[str], pruners: list[InLLMPruner]
) -> tuple[str, ...]:
    """All questions about one picture as one batch."""
    one = family.project(features, selection)
    tokens = VisualTokens(one.rows * len(prompts), one.origin * len(prompts), one.encoded * len(prompts))
    return generate(family, tokens, prompts, pruners, max_new_tokens=4).texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--scenes", type=int, default=300)
    options = parser.parse_args()
    rows = evaluate(load_model(options.model, device="cpu").family, options.split, options.scenes)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
