"""How things look: colours for categories of nodes, and text that is measured without a font and cut to a width."""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from dataclasses import dataclass
from itertools import accumulate

from fopru_graph.graph.values import INVALID, Ref, Value, replace_refs
from fopru_graph.graph.yaml.tree import resolve

# -- colours: one hue for each category, in a light and a dark form, distinct for colour-blind readers too -------------

_KNOWN = {
    "load": 0, "encode": 1, "score": 2, "prune": 3, "merge": 3, "order": 4, "project": 5, "generate": 6, "show": 7,
    "flow": 8,
}  # fmt: skip
_ACCENTS = (  # (on a light ground, on a dark ground), both with a contrast of three to one or more
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
    """The colours of everything that belongs to no category, on a light or a dark ground."""

    panel: str
    frame: str
    text: str
    muted: str
    accent: str
    done: str
    failed: str
    share: float  # of the accent in the fill of a box


LIGHT = Ground("#ffffff", "#d8dee4", "#1c2128", "#57606a", "#656d76", "#1f7a3a", "#c62828", 0.09)
DARK = Ground("#11161d", "#30363d", "#eef2f6", "#a4b0bd", "#8d98a5", "#5fd07c", "#ff7b72", 0.16)


def colour_index(category: str) -> int:
    """The hue of a category, the same in every picture."""
    return _KNOWN.get(category, zlib.crc32(category.encode("utf-8", "replace")) % len(_ACCENTS))


def accent(index: int, ground: Ground = LIGHT) -> str:
    """The strong colour of a hue, for borders and links."""
    return ground.accent if index == NEUTRAL else _ACCENTS[index][ground is DARK]


def fill(index: int, ground: Ground = LIGHT) -> str:
    """The pale colour of a hue, on which text is readable."""
    pairs = zip(_channels(accent(index, ground)), _channels(ground.panel), strict=True)
    mixed = (round(strong * ground.share + panel * (1 - ground.share)) for strong, panel in pairs)
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


# -- text -------------------------------------------------------------------------------------------------------------

# Characters that XML forbids or that change the direction of the text around them.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_BARE = re.compile(r"[A-Za-z_./~][\w./:~-]*", re.ASCII)
_LONGEST = 200  # characters; no label is as wide as more of them

# Advance widths in em of the widest common sans serif (DejaVu Sans, Verdana), so that a label fits with any font.
_WIDTHS = {
    **dict.fromkeys("ijlI'|", 0.37),
    **dict.fromkeys(" .,:;!()[]/\\fJ-rt", 0.46),
    **dict.fromkeys('"*_`', 0.52),
    **dict.fromkeys("mwMW%@", 1.03),
    **dict.fromkeys("ABCDEFGHKLNOPQRSTUVXYZ&", 0.8),
    **dict.fromkeys("+=<>~^#", 0.85),
}
_OTHER, _FOREIGN, _WIDE, _BOLD, _MONO = 0.65, 1.08, 1.35, 1.12, 0.61


def clean(text: str) -> str:
    """The text on one line, without characters that XML forbids or that reorder the text beside them."""
    return _HARMFUL.sub("\ufffd", text.replace("\r\n", "\n").replace("\n", "\u21b5").replace("\t", " "))


def text_width(text: str, size: float, *, bold: bool = False, mono: bool = False) -> float:
    """An upper estimate of the text's width at a font size, in the unit of the size."""
    widths = (_advance(character, mono) for character in text)
    return sum(widths) * size * (_BOLD if bold and not mono else 1)


def _advance(character: str, mono: bool) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF" or ord(character) > 0x2E80:
        return _WIDE
    if mono and ord(character) < 0x180:  # other than Latin characters may come from a wider font
        return _MONO
    base = unicodedata.normalize("NFD", character)[0]
    return _WIDTHS.get(base, _OTHER) if base.isascii() else _FOREIGN


def fit(text: str, size: float, width: float, *, bold: bool = False, mono: bool = False) -> str:
    """The text, cut with an ellipsis if it is wider than ``width``."""
    if len(text) <= _LONGEST and text_width(text, size, bold=bold, mono=mono) <= width:
        return text
    space = width - text_width("\u2026", size, bold=bold, mono=mono)
    widths = accumulate(text_width(character, size, bold=bold, mono=mono) for character in text[:_LONGEST])
    return text[: sum(total <= space for total in widths)].rstrip() + "\u2026"


def value_text(value: Value) -> str:
    """A literal as the author of a pipeline would write it; a text that looks like another value is quoted."""
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, str) and _BARE.fullmatch(value) and isinstance(resolve(value), str):
        return value
    return json.dumps(replace_refs(value, str), ensure_ascii=False, default=_unreadable)


def _unreadable(value: object) -> str:
    return "?" if value is INVALID else str(value)
