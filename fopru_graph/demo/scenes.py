"""Synthetic scenes for the bundled demo model: shapes on a muted background, sometimes with a sign that carries a word.

A scene is plain data in units of the picture's side (0 = left or top, 1 = right or bottom), so it can be rendered at
any size and labelled on any grid. Everything is a function of ``(split, index)``: the three splits use disjoint random
streams, so no test scene is ever trained on.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (214, 40, 40),
    "green": (30, 150, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 215, 50),
    "purple": (135, 50, 170),
    "orange": (245, 130, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
WORDS = (
    *("stop", "exit", "open", "shop", "taxi", "bus", "hotel", "cafe", "park", "slow", "sale", "free"),
    *("push", "pull", "bank", "gate", "milk", "post", "zoo", "gym", "pizza", "book", "fish", "water"),
)
SPLITS = {"train": 0, "validation": 1, "test": 2}
_SUPERSAMPLE = 2


@dataclass(frozen=True)
class Shape:
    """A coloured shape: centre ``(x, y)`` and ``size`` (diameter), in units of the picture's side."""

    shape: str
    colour: str
    x: float
    y: float
    size: float

    def box(self, margin: float = 0.0) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, widened by ``margin`` on every side."""
        half = self.size / 2 + margin
        return self.x - half, self.y - half, self.x + half, self.y + half


@dataclass(frozen=True)
class Sign:
    """A panel with one word: centre ``(x, y)``, letter height ``size``, in units of the picture's side."""

    word: str
    x: float
    y: float
    size: float
    dark: bool = False

    def box(self, margin: float = 0.0) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the panel, widened by ``margin`` on every side."""
        half_width = (0.36 * len(self.word) + 0.3) * self.size + margin
        half_height = 0.75 * self.size + margin
        return self.x - half_width, self.y - half_height, self.x + half_width, self.y + half_height


@dataclass(frozen=True)
class Scene:
    """Shapes, at most one sign, and the seed of the background's texture."""

    shapes: tuple[Shape, ...]
    sign: Sign | None
    background: int


def scene_rng(split: str, index: int) -> np.random.Generator:
    """The random stream of scene ``index`` of ``split``; streams of different splits are independent."""
    return np.random.default_rng([SPLITS[split], index])


def sample_scene(rng: np.random.Generator, most_shapes: int = 6, sign_share: float = 0.5) -> Scene:
    """Draw a scene with 1 to ``most_shapes`` shapes; a share ``sign_share`` of the scenes carries a sign."""
    taken: list[tuple[float, float, float, float]] = []
    sign = None
    if rng.random() < sign_share:
        size = rng.uniform(0.09, 0.12)
        sign = Sign(str(rng.choice(WORDS)), 0.5, 0.5, size, dark=bool(rng.random() < 0.3))
        _, _, right, bottom = sign.box()
        half_width, half_height = right - 0.5, bottom - 0.5
        x, y = rng.uniform(half_width, 1 - half_width), rng.uniform(half_height, 1 - half_height)
        sign = Sign(sign.word, x, y, size, sign.dark)
        taken.append(sign.box(0.01))
    shapes: list[Shape] = []
    # Half of the scenes favour one shape, so that there is something to count.
    favourite = str(rng.choice(SHAPES)) if rng.random() < 0.5 else None
    for _ in range(int(rng.integers(1, most_shapes + 1))):
        kind = favourite if favourite and rng.random() < 0.5 else str(rng.choice(SHAPES))
        colour = str(rng.choice(list(COLOURS)))
        for _ in range(12):
            size = rng.uniform(0.13, 0.24)
            x, y = rng.uniform(size / 2, 1 - size / 2, 2)
            candidate = Shape(kind, colour, float(x), float(y), float(size))
            if not any(_overlap(candidate.box(0.01), other) for other in taken):
                shapes.append(candidate)
                taken.append(candidate.box(0.01))
                break
    return Scene(tuple(shapes), sign, int(rng.integers(2**31)))


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def render(scene: Scene, side: int = 224) -> Image.Image:
    """Paint the scene as an RGB picture of ``side`` × ``side`` pixels."""
    canvas = _background(scene.background, side * _SUPERSAMPLE)
    draw = ImageDraw.Draw(canvas)
    for shape in scene.shapes:
        _draw_shape(draw, shape, side * _SUPERSAMPLE, COLOURS[shape.colour])
    if scene.sign is not None:
        _draw_sign(draw, scene.sign, side * _SUPERSAMPLE)
    return canvas.reduce(_SUPERSAMPLE)


def _background(seed: int, side: int) -> Image.Image:
    """A muted, slowly varying texture that no object colour can be mistaken for."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(95, 165) + rng.uniform(-14, 14, 3)
    coarse = base + rng.normal(0, 7, (4, 4, 1)) + rng.normal(0, 2, (4, 4, 3))
    smooth = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
    grain = np.asarray(smooth) + rng.normal(0, 2.5, (32, 32, 1))
    small = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
    return small.resize((side, side), Image.Resampling.BILINEAR)


def _draw_shape(draw: ImageDraw.ImageDraw, shape: Shape, side: int, fill: object) -> None:
    left, top, right, bottom = (v * side for v in shape.box())
    cx, cy, radius = shape.x * side, shape.y * side, shape.size * side / 2
    if shape.shape == "circle":
        draw.ellipse((left, top, right, bottom), fill=fill)
    elif shape.shape == "ring":
        draw.ellipse((left, top, right, bottom), outline=fill, width=max(1, round(radius * 0.45)))
    elif shape.shape == "square":
        inset = 0.1 * radius
        draw.rectangle((left + inset, top + inset, right - inset, bottom - inset), fill=fill)
    elif shape.shape == "cross":
        arm = 0.34 * radius
        draw.rectangle((cx - arm, top, cx + arm, bottom), fill=fill)
        draw.rectangle((left, cy - arm, right, cy + arm), fill=fill)
    elif shape.shape == "triangle":
        draw.polygon([(cx, top), (right, bottom), (left, bottom)], fill=fill)
    else:  # star
        points = []
        for i in range(10):
            r = radius if i % 2 == 0 else 0.42 * radius
            angle = math.pi * i / 5 - math.pi / 2
            points.append((cx + r * math.cos(angle), cy + r * math.sin(angle)))
        draw.polygon(points, fill=fill)


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _draw_sign(draw: ImageDraw.ImageDraw, sign: Sign, side: int) -> None:
    box = tuple(v * side for v in sign.box())
    paper, ink = ((30, 34, 44), (240, 240, 235)) if sign.dark else ((240, 240, 235), (30, 34, 44))
    radius = 0.25 * sign.size * side
    draw.rounded_rectangle(box, radius=radius, fill=paper, outline=ink, width=max(1, side // 150))
    font = _font(round(sign.size * side))
    draw.text((sign.x * side, sign.y * side), sign.word.upper(), font=font, fill=ink, anchor="mm")


@dataclass(frozen=True)
class PatchLabels:
    """Labels of the patches of a ``grid × grid`` raster; each array is (grid·grid,) int64, 0 = nothing."""

    shape: np.ndarray  # 1 + index into SHAPES
    colour: np.ndarray  # 1 + index into COLOURS
    word: np.ndarray  # 1 + index into WORDS, on every patch of the sign
    letter: np.ndarray  # 1 + alphabet index of the sign's letter at the patch's middle
    centre: np.ndarray  # 1 on the patches that hold a shape's centre
    row: np.ndarray  # 1 + the patch's row
    column: np.ndarray  # 1 + the patch's column


def patch_labels(scene: Scene, grid: int, coverage: float = 0.25) -> PatchLabels:
    """Label the patches of which at least the share ``coverage`` lies inside a shape (or the sign's panel)."""
    cell = 6
    side = grid * cell
    shape, colour, word, letter, centre = (np.zeros(grid * grid, dtype=np.int64) for _ in range(5))
    owner = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(owner)
    for k, item in enumerate(scene.shapes, start=1):
        _draw_shape(draw, item, side, k)
    if scene.sign is not None:
        draw.rectangle(tuple(v * side for v in scene.sign.box()), fill=255)
    owners = np.asarray(owner).reshape(grid, cell, grid, cell)
    colours = list(COLOURS)
    for k, item in enumerate(scene.shapes, start=1):
        inside = ((owners == k).mean((1, 3)) >= coverage).reshape(-1)
        row, column = min(int(item.y * grid), grid - 1), min(int(item.x * grid), grid - 1)
        inside[row * grid + column] = True
        centre[row * grid + column] = 1
        shape[inside] = 1 + SHAPES.index(item.shape)
        colour[inside] = 1 + colours.index(item.colour)
    if scene.sign is not None:
        inside = ((owners == 255).mean((1, 3)) >= 0.5).reshape(-1)
        word[inside] = 1 + WORDS.index(scene.sign.word)
        letter[inside] = np.tile(_letters_by_column(scene.sign, grid), grid)[inside]
    row, column = (index.reshape(-1) + 1 for index in np.indices((grid, grid)))
    return PatchLabels(shape, colour, word, letter, centre, row, column)


def _letters_by_column(sign: Sign, grid: int) -> np.ndarray:
    """(grid,) int64: 1 + alphabet index of the letter at each patch column's middle, 0 beside the word."""
    scale = 200  # pixels; only the font's proportions matter
    text = sign.word.upper()
    font = _font(scale)
    ends = np.array([font.getlength(text[: i + 1]) for i in range(len(text))]) / scale * sign.size
    x = (np.arange(grid) + 0.5) / grid - (sign.x - ends[-1] / 2)
    index = np.searchsorted(ends, x)
    codes = np.array([1 + ord(character) - ord("A") for character in text] + [0])
    return np.where((x >= 0) & (x < ends[-1]), codes[np.minimum(index, len(text))], 0)
