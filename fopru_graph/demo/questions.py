"""Questions about a scene with one right answer each, in the style of POPE, GQA and TextVQA."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fopru_graph.demo.scenes import COLOURS, SHAPES, Scene

KINDS = ("existence", "colour", "shape", "counting", "position", "reading")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
_MIDDLE = 0.06  # a shape this close to a midline has no clear side, so it is not asked for


@dataclass(frozen=True)
class Question:
    """A question of a ``kind`` (see KINDS) with its only right answer, both in lower case."""

    kind: str
    text: str
    answer: str


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """A random question of ``kind``; None if the scene has no such question with a single answer."""
    return _MAKERS[kind](scene, rng)


def all_kinds(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """One question of every kind that the scene allows."""
    return [question for kind in KINDS if (question := ask(scene, kind, rng)) is not None]


def _existence(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Half yes, half no; most absent pairs join a present colour and a present shape (POPE's adversarial set)."""
    present = {(s.colour, s.shape) for s in scene.shapes}
    if not present:
        return None
    if rng.random() < 0.5:
        colour, shape = sorted(present)[rng.integers(len(present))]
        return Question("existence", f"is there a {colour} {shape} ?", "yes")
    near = sorted({(c, s) for c, _ in present for _, s in present} - present)
    if near and rng.random() < 0.6:
        colour, shape = near[rng.integers(len(near))]
    else:
        absent = sorted({(c, s) for c in COLOURS for s in SHAPES} - present)
        colour, shape = absent[rng.integers(len(absent))]
    return Question("existence", f"is there a {colour} {shape} ?", "no")


def _unique(scene: Scene, attribute: str) -> list:
    """The shapes whose ``attribute`` no other shape of the scene shares."""
    counts = Counter(getattr(s, attribute) for s in scene.shapes)
    return [s for s in scene.shapes if counts[getattr(s, attribute)] == 1]


def _colour(scene: Scene, rng: np.random.Generator) -> Question | None:
    candidates = _unique(scene, "shape")
    if not candidates:
        return None
    asked = candidates[rng.integers(len(candidates))]
    return Question("colour", f"what colour is the {asked.shape} ?", asked.colour)


def _shape(scene: Scene, rng: np.random.Generator) -> Question | None:
    candidates = _unique(scene, "colour")
    if not candidates:
        return None
    asked = candidates[rng.integers(len(candidates))]
    return Question("shape", f"what shape is the {asked.colour} object ?", asked.shape)


def _counting(scene: Scene, rng: np.random.Generator) -> Question | None:
    counts = Counter(s.shape for s in scene.shapes)
    numbers = sorted(set(counts.values()) | {0})
    number = numbers[rng.integers(len(numbers))]  # every number of this scene is equally likely, zero included
    shape = str(rng.choice([s for s in SHAPES if counts[s] == number] or list(SHAPES)))
    return Question("counting", f"how many {plural(shape)} are there ?", NUMBERS[counts[shape]])


def _position(scene: Scene, rng: np.random.Generator) -> Question | None:
    clear = [s for s in _unique(scene, "shape") if abs(s.x - 0.5) > _MIDDLE and abs(s.y - 0.5) > _MIDDLE]
    if not clear:
        return None
    asked = clear[rng.integers(len(clear))]
    side = ("top" if asked.y < 0.5 else "bottom") + " " + ("left" if asked.x < 0.5 else "right")
    return Question("position", f"where is the {asked.shape} ?", side)


def _reading(scene: Scene, rng: np.random.Generator) -> Question | None:
    if scene.sign is None:
        return None
    return Question("reading", "what does the text say ?", scene.sign.word)


def plural(shape: str) -> str:
    """The English plural of a shape's name."""
    return shape + ("es" if shape.endswith("s") else "s")


_MAKERS = {
    "existence": _existence,
    "colour": _colour,
    "shape": _shape,
    "counting": _counting,
    "position": _position,
    "reading": _reading,
}
