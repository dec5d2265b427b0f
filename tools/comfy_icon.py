"""Draws the icon of ComfyUI's node pack: the patches of a picture, and the few that are kept."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

ICON = Path(__file__).resolve().parent.parent / "fopru_graph" / "comfy" / "pack_files" / "icon.png"
SIDE, FINER = 400, 4  # pixels; drawn larger and reduced, for smooth corners
BACKGROUND, DROPPED = "#1b1f3b", "#353b66"
# How significant a patch is, row by row; 0 is dropped.
PATCHES = ((0, 0, 2, 0), (0, 3, 4, 1), (1, 4, 3, 0), (0, 2, 0, 0))
COLOURS = (DROPPED, "#c2508f", "#f0719a", "#ffa26b", "#ffe08a")


def icon() -> Image.Image:
    """The icon, 400 × 400 pixels with transparent corners."""
    side = SIDE * FINER
    canvas = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((0, 0, side - 1, side - 1), side // 6, fill=BACKGROUND)
    margin, gap = side // 10, side // 40
    cell = (side - 2 * margin - 3 * gap) // 4
    for row, patches in enumerate(PATCHES):
        for column, kept in enumerate(patches):
            left, top = margin + column * (cell + gap), margin + row * (cell + gap)
            draw.rounded_rectangle((left, top, left + cell, top + cell), cell // 6, fill=COLOURS[kept])
    return canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    icon().save(ICON, optimize=True)
