"""Colours: one hue for each category of nodes, in a light and a dark form, told apart by colour-blind readers too."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

_KNOWN = {
    "load": 0, "encode": 1, "score": 2, "prune": 3, "merge": 3, "order": 4, "project": 5, "generate": 6, "show": 7,
    "flow": 8,
}  # fmt: skip
_ACCENTS = (  # (on light ground, on dark ground), both with a contrast of three to one or more
    ("#0b66b0", "#62b0ff"),
    ("#00796b", "#37c9b6"),
    ("#8f6200", "#e6b450"),
    ("#c2410c", "#ff9466"),
    ("#a3257a", "#f38dca"),
    ("#5746c0", "#ab9fff"),
    ("#2e7d32", "#74d678"),
    ("#57606a", "#a4b0bd"),
    ("#7a5c3e", "#d0ae8a"),
)
NEUTRAL = len(_ACCENTS)  # the index of pipeline inputs and outputs, and of nodes that are missing


@dataclass(frozen=True)
class Ground:
    """The colours of what belongs to no category, on a light or on a dark ground."""

    panel: str
    frame: str
    text: str
    muted: str
    accent: str
    done: str
    failed: str
    share: float  # of the accent in a box's fill


LIGHT = Ground("#ffffff", "#d8dee4", "#1c2128", "#57606a", "#656d76", "#1f7a3a", "#c62828", 0.09)
DARK = Ground("#11161d", "#30363d", "#eef2f6", "#a4b0bd", "#8d98a5", "#5fd07c", "#ff7b72", 0.16)


def colour_index(category: str) -> int:
    """The hue of a category, the same in every picture."""
    return _KNOWN.get(category, zlib.crc32(category.encode("utf-8", "replace")) % len(_ACCENTS))


def accent(index: int, ground: Ground = LIGHT) -> str:
    """The strong colour of a hue: borders and links."""
    return ground.accent if index == NEUTRAL else _ACCENTS[index][ground is DARK]


def fill(index: int, ground: Ground = LIGHT) -> str:
    """The pale colour of a hue, which text is readable on."""
    strong, panel = _channels(accent(index, ground)), _channels(ground.panel)
    mixed = (round(one * ground.share + other * (1 - ground.share)) for one, other in zip(strong, panel, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
