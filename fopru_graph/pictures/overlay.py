"""Drawing one tile: the input, its significance as a heat map, and the patches kept before and in the language model.

Everything is drawn from numpy arrays with Pillow; matplotlib provides only its colour map and its fonts.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fopru_graph.pictures.backend import import_matplotlib
from fopru_graph.terminal.format import percent

Pixels = npt.NDArray[np.uint8]

KEPT = "kept before the language model"
POOLED = "pooled before the language model"
LEFT = "left after in-LLM pruning"
_INK, _MUTED, _EDGE = (25, 28, 34), (90, 95, 105), (255, 176, 0)
_DIM = 0.45  # brightness of a dropped patch, as a share of its grey
_HEAT = 0.7  # share of the colour map in the heat map; the rest is the grey picture
_SMALLEST_PATCH = 8  # pixels; between smaller patches no lines are drawn, since they would hide them


@dataclass(frozen=True)
class _Panel:
    """A picture under its caption; ``bar`` draws the colour bar of the heat map below it."""

    picture: Image.Image
    caption: str
    bar: bool = False


def draw_kept(
    seen: Pixels,
    grid: tuple[int, int],
    selected: npt.NDArray[np.bool_],
    final: npt.NDArray[np.bool_] | None,
    scores: npt.NDArray[Any] | None,
    title: str,
    panel: int = 448,
    areas: npt.NDArray[np.int64] | None = None,
    resolution: float = 1.0,
) -> Image.Image:
    """Draw the panels of one tile side by side: input, significance, kept patches, patches left after in-LLM pruning.

    Args:
        seen: (H, W, 3) uint8, the pixels that the encoder received.
        grid: rows and columns (h, w) of the patches.
        selected: (h·w,) bool, the patches kept before the language model.
        final: (h·w,) bool, the patches left in the last decoder layer; None or equal to ``selected`` draws no panel.
        scores: (h·w,) significance, larger is more; None draws no panel.
        title: the line on top, wrapped to the width of the picture.
        panel: length of a panel's longer side in pixels, before rounding to whole pixels per patch.
        areas: (h·w,) the patch that each patch was pooled into; None where patches were dropped.
        resolution: the share of its pixels that the picture was encoded with, told below 1.

    Raises:
        ValueError: an array does not fit the grid.
    """
    for name, array in (("selected", selected), ("final", final), ("scores", scores), ("areas", areas)):
        if array is not None and array.shape != (grid[0] * grid[1],):
            raise ValueError(f"{name} has shape {array.shape}, but the grid {grid} needs ({grid[0] * grid[1]},)")
    picture = _fit(seen, grid, panel)
    smaller = "" if resolution == 1 else f" at {percent(resolution)} of its pixels"
    panels = [_Panel(Image.fromarray(picture), f"input{smaller}")]
    if scores is not None:
        panels.append(_Panel(_with_lines(heat_map(picture, grid, scores), grid), "significance", bar=True))
    panels.append(
        _Panel(_kept(picture, grid, selected, areas), caption(KEPT if areas is None else POOLED, selected, smaller))
    )
    if final is not None and not np.array_equal(final, selected):
        panels.append(_Panel(_kept(picture, grid, final, areas), caption(LEFT, final, smaller)))
    return _sheet(panels, title, max(12, panel // 28))


def draw_mask(
    seen: Pixels,
    grid: tuple[int, int],
    mask: npt.NDArray[np.bool_],
    size: int,
    areas: npt.NDArray[np.int64] | None = None,
) -> Image.Image:
    """One tile with the patches dimmed that are not in ``mask`` (h·w,), its longer side about ``size`` pixels.

    ``areas`` as for `draw_kept`.
    """
    picture = _fit(seen, grid, size)
    return Image.fromarray(picture) if mask.all() and areas is None else _kept(picture, grid, mask, areas)


def caption(label: str, mask: npt.NDArray[np.bool_], smaller: str = "") -> str:
    """``label: K of N (p %)`` for a mask of N patches of which K are set.

    Of a picture that was made ``smaller`` (a text that says how much) p is no share of the tokens that it has whole.
    """
    count, total = int(mask.sum()), mask.size
    share = f"that it has{smaller}" if smaller else f"({100 * count / total:.3g} %)"
    return f"{label}: {count} of {total} {share}"


def dim(picture: Pixels, grid: tuple[int, int], mask: npt.NDArray[np.bool_]) -> Pixels:
    """Darken and desaturate the patches that are not in ``mask`` (h·w,); the others stay as they are.

    ``picture`` is (H, W, 3) with H and W multiples of the grid's rows and columns.
    """
    return np.where(_spread(mask, picture, grid)[..., None], picture, _bytes(_DIM * _grey(picture)))


def heat_map(picture: Pixels, grid: tuple[int, int], scores: npt.NDArray[Any]) -> Pixels:
    """Blend the scores (h·w,), coloured with *magma*, over the grey picture (H, W, 3).

    The scale ends at the 99th percentile: attention has a long tail, and a few patches would leave all others dark.
    """
    colormaps = import_matplotlib().colormaps
    colours = (_HEAT * 255 * colormaps["magma"](_unit(scores))[:, :3]).astype(np.float32)  # one colour per patch
    return _bytes(_spread(colours, picture, grid) + (1 - _HEAT) * _grey(picture))


def _unit(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Scores scaled to [0, 1]; NaN becomes 0, and all become 0 where they do not differ."""
    scores = scores.astype(np.float64)
    finite = scores[np.isfinite(scores)]
    if finite.size == 0:
        return np.zeros_like(scores)
    low, high = finite.min(), np.quantile(finite, 0.99)
    if high <= low:  # fewer than one patch in a hundred differs from the others
        high = finite.max()
    span = max(float(high - low), np.finfo(np.float64).tiny)
    share: npt.NDArray[np.float64] = (np.nan_to_num(scores, nan=low) - low) / span
    return share.clip(0, 1)


def _fit(seen: Pixels, grid: tuple[int, int], panel: int) -> Pixels:
    """Resize so that the longer side is about ``panel`` and every patch has the same whole number of pixels."""
    height, width = seen.shape[:2]
    rows, columns = grid
    scale = panel / max(height, width)
    size = columns * max(1, round(scale * width / columns)), rows * max(1, round(scale * height / rows))
    return np.asarray(Image.fromarray(seen).resize(size, Image.Resampling.LANCZOS))


def _spread(patches: npt.NDArray[Any], picture: Pixels, grid: tuple[int, int]) -> npt.NDArray[Any]:
    """Repeat the values of the patches (h·w, …) for every pixel (H, W, …)."""
    height, width = picture.shape[0] // grid[0], picture.shape[1] // grid[1]
    return patches.reshape(*grid, *patches.shape[1:]).repeat(height, 0).repeat(width, 1)


def _grey(picture: Pixels) -> npt.NDArray[np.float32]:
    """Luma (H, W, 1) of the picture, 0 to 255."""
    return np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float32)[..., None]


def _bytes(values: npt.NDArray[np.floating[Any]]) -> Pixels:
    rounded: Pixels = np.rint(values).astype(np.uint8)
    return rounded


def _with_lines(picture: Pixels, grid: tuple[int, int]) -> Image.Image:
    """Separate the patches by faint lines, unless they are too small."""
    height, width = picture.shape[0] // grid[0], picture.shape[1] // grid[1]
    if min(height, width) >= _SMALLEST_PATCH:
        picture = picture.copy()
        for lines in (picture[height::height], picture[:, width::width]):
            lines[:] = _bytes(0.8 * lines + 0.2 * 255)
    return Image.fromarray(picture)


def _kept(
    picture: Pixels, grid: tuple[int, int], mask: npt.NDArray[np.bool_], areas: npt.NDArray[np.int64] | None
) -> Image.Image:
    """Kept patches clear and outlined, the others dim; where patches were pooled, each one's area in its place."""
    if areas is None:
        return _outlined(dim(picture, grid, mask), grid, mask)
    shown = mask[areas]
    return _outlined(dim(picture, grid, shown), grid, np.where(shown, areas, -1))


def _outlined(picture: Pixels, grid: tuple[int, int], parts: npt.NDArray[Any]) -> Image.Image:
    """Draw grid lines, and a coloured line wherever a patch borders one of another part."""
    result = _with_lines(picture, grid)
    height, width = picture.shape[0] // grid[0], picture.shape[1] // grid[1]
    if min(height, width) < _SMALLEST_PATCH:
        return result
    draw, part = ImageDraw.Draw(result), parts.reshape(grid)
    for row, column in np.argwhere(part[1:] != part[:-1]):
        draw.line([(column * width, (row + 1) * height), ((column + 1) * width, (row + 1) * height)], _EDGE)
    for row, column in np.argwhere(part[:, 1:] != part[:, :-1]):
        draw.line([((column + 1) * width, row * height), ((column + 1) * width, (row + 1) * height)], _EDGE)
    return result


def _sheet(panels: list[_Panel], title: str, size: int) -> Image.Image:
    """Lay out the panels side by side on white: title on top, captions above the pictures, colour bars below them."""
    margin, gap, line = 2 * size, round(1.5 * size), round(1.4 * size)
    heading, plain = _font("DejaVuSans-Bold.ttf", round(1.15 * size)), _font("DejaVuSans.ttf", size)
    column = max(9 * size, panels[0].picture.width)
    width = len(panels) * (column + gap) - gap
    titles = _wrapped(title, heading, width, most=3)
    captions = [_wrapped(item.caption, plain, column) for item in panels]
    middle = margin + round(1.6 * size) * len(titles) + size // 2
    top = middle + line * max(map(len, captions)) + size // 3
    bottom = top + panels[0].picture.height
    bars = 2 * size if any(item.bar for item in panels) else 0
    sheet = Image.new("RGB", (width + 2 * margin, bottom + bars + margin), "white")
    draw = ImageDraw.Draw(sheet)
    for n, words in enumerate(titles):
        draw.text((margin, margin + n * round(1.6 * size)), words, _INK, heading)
    for k, (item, lines) in enumerate(zip(panels, captions, strict=True)):
        left = margin + k * (column + gap)
        for n, words in enumerate(lines):
            draw.text((left, middle + n * line), words, _MUTED, plain)
        sheet.paste(item.picture, (left, top))
        if item.bar:
            _colour_bar(sheet, (left, bottom + size, left + column, bottom + 2 * size), plain)
    return sheet


def _colour_bar(sheet: Image.Image, box: tuple[int, int, int, int], font: ImageFont.FreeTypeFont) -> None:
    """``low``, the colours of the heat map from low to high, ``high`` within the box."""
    colormaps = import_matplotlib().colormaps
    left, top, right, bottom = box
    draw, pad = ImageDraw.Draw(sheet), (bottom - top) // 2
    draw.text((left, (top + bottom) // 2), "low", _MUTED, font, anchor="lm")
    draw.text((right, (top + bottom) // 2), "high", _MUTED, font, anchor="rm")
    left, right = left + round(font.getlength("low")) + pad, right - round(font.getlength("high")) - pad
    ramp = 255 * colormaps["magma"](np.linspace(0, 1, right - left))[None, :, :3].repeat(bottom - top, 0)
    sheet.paste(Image.fromarray(_bytes(ramp)), (left, top))


@functools.lru_cache(maxsize=32)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that matplotlib ships: the same glyphs on every machine, with Greek, Cyrillic and mathematics."""
    return ImageFont.truetype(Path(import_matplotlib().get_data_path(), "fonts", "ttf", name), size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = 99) -> list[str]:
    """Break the text into at most ``most`` lines of at most ``width`` pixels, at spaces where possible."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for character in word:
            if lines[-1] and font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
        if len(lines) > most:
            return [*lines[: most - 1], f"{lines[most - 1].rstrip()[:-1]}…"]
    return lines
