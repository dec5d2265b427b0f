"""The bundled pictures, ``demo:NAME``: hand-made scenes, rendered by ``python -m fopru_graph.demo.samples``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fopru_graph.demo.questions import all_kinds
from fopru_graph.demo.scenes import Scene, Shape, Sign, render

FOLDER = Path(__file__).resolve().parent / "samples"
SIDE = 448


def _scene(background: int, sign: Sign | None, *shapes: Shape) -> Scene:
    return Scene(shapes, sign, background)


SCENES = {
    "street-sign": _scene(
        11,
        Sign("stop", 0.55, 0.55, 0.11),
        Shape("circle", "red", 0.2, 0.25, 0.2),
        Shape("square", "blue", 0.8, 0.22, 0.18),
        Shape("triangle", "yellow", 0.26, 0.78, 0.2),
    ),
    "taxi-rank": _scene(
        12,
        Sign("taxi", 0.35, 0.25, 0.12),
        Shape("square", "yellow", 0.18, 0.72, 0.2),
        Shape("square", "black", 0.45, 0.74, 0.18),
        Shape("star", "white", 0.82, 0.2, 0.18),
    ),
    "night-cafe": _scene(
        13,
        Sign("cafe", 0.62, 0.4, 0.12, dark=True),
        Shape("ring", "orange", 0.22, 0.3, 0.22),
        Shape("star", "purple", 0.75, 0.8, 0.2),
    ),
    "bank-corner": _scene(
        14,
        Sign("bank", 0.35, 0.2, 0.11),
        Shape("cross", "green", 0.8, 0.75, 0.22),
        Shape("circle", "white", 0.25, 0.7, 0.16),
    ),
    "pizza-night": _scene(
        15,
        Sign("pizza", 0.65, 0.8, 0.11),
        Shape("triangle", "orange", 0.2, 0.2, 0.22),
        Shape("circle", "red", 0.7, 0.25, 0.18),
        Shape("ring", "black", 0.3, 0.65, 0.18),
    ),
    "zoo-gate": _scene(
        16,
        Sign("zoo", 0.3, 0.3, 0.12),
        Shape("star", "yellow", 0.2, 0.75, 0.2),
        Shape("star", "red", 0.8, 0.7, 0.18),
        Shape("cross", "blue", 0.8, 0.2, 0.18),
    ),
    "three-stars": _scene(
        17,
        None,
        Shape("star", "red", 0.2, 0.3, 0.2),
        Shape("star", "blue", 0.5, 0.7, 0.2),
        Shape("star", "yellow", 0.8, 0.3, 0.2),
        Shape("ring", "green", 0.2, 0.78, 0.2),
    ),
    "two-rings": _scene(
        18,
        None,
        Shape("ring", "white", 0.25, 0.25, 0.22),
        Shape("ring", "purple", 0.75, 0.7, 0.22),
        Shape("cross", "red", 0.3, 0.75, 0.2),
    ),
    "lonely-cross": _scene(19, None, Shape("cross", "purple", 0.72, 0.28, 0.22)),
    "full-house": _scene(
        20,
        None,
        Shape("circle", "red", 0.2, 0.2, 0.18),
        Shape("square", "green", 0.5, 0.2, 0.18),
        Shape("triangle", "blue", 0.8, 0.2, 0.18),
        Shape("star", "yellow", 0.2, 0.75, 0.18),
        Shape("cross", "orange", 0.5, 0.75, 0.18),
        Shape("ring", "black", 0.8, 0.75, 0.18),
    ),
    "opposites": _scene(
        21, None, Shape("circle", "black", 0.22, 0.75, 0.22), Shape("square", "white", 0.78, 0.25, 0.2)
    ),
    "fish-shop": _scene(
        22,
        Sign("fish", 0.32, 0.7, 0.12),
        Shape("circle", "blue", 0.25, 0.25, 0.2),
        Shape("circle", "green", 0.75, 0.3, 0.18),
        Shape("triangle", "white", 0.75, 0.75, 0.2),
    ),
}


def write(folder: Path = FOLDER) -> None:
    """Render every sample as ``NAME.png`` and list questions with their answers in ``questions.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = {}
    for name, scene in SCENES.items():
        render(scene, SIDE).save(folder / f"{name}.png", optimize=True)
        questions = all_kinds(scene, np.random.default_rng(scene.background))
        asked[name] = [{"kind": q.kind, "question": q.text, "answer": q.answer} for q in questions]
    (folder / "questions.json").write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
