"""Text in pictures: made harmless for every format, measured without a font, and cut to a width."""

from __future__ import annotations

import json
import re
import unicodedata

from fopru_graph.graph.values import Invalid, Ref, Value, replace_refs
from fopru_graph.graph.yaml.tree import resolve

# What XML forbids or what would change the direction of the text around it.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_BARE = re.compile(r"[A-Za-z_./~][\w./:~-]*", re.ASCII)
_LONGEST = 200  # characters that are looked at; no label is as wide

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
    """The text on one line, without characters that XML forbids or that reorder what stands beside them."""
    return _HARMFUL.sub("\ufffd", text.replace("\r\n", "\n").replace("\n", "\u21b5").replace("\t", " "))


def text_width(text: str, size: float, *, bold: bool = False, mono: bool = False) -> float:
    """An upper estimate of the text's width at a font size."""
    widths = (_advance(character, mono) for character in text)
    return sum(widths) * size * (_BOLD if bold and not mono else 1)


def _advance(character: str, mono: bool) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "WF" or ord(character) > 0x2E80:
        return _WIDE
    if mono and ord(character) < 0x180:  # what is not Latin may be taken from a font that is wider
        return _MONO
    base = unicodedata.normalize("NFD", character)[0]
    return _WIDTHS.get(base, _OTHER) if base.isascii() else _FOREIGN


def fit(text: str, size: float, width: float, *, bold: bool = False, mono: bool = False) -> str:
    """The text, cut with an ellipsis where it would be wider than ``width``."""
    if len(text) <= _LONGEST and text_width(text, size, bold=bold, mono=mono) <= width:
        return text
    room = width - text_width("\u2026", size, bold=bold, mono=mono)
    kept = 0
    for character in text[:_LONGEST]:
        room -= text_width(character, size, bold=bold, mono=mono)
        if room < 0:
            break
        kept += 1
    return text[:kept].rstrip() + "\u2026"


def value_text(value: Value) -> str:
    """A literal as a pipeline's author would write it; texts that could be taken for something else are quoted."""
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, str) and _BARE.fullmatch(value) and isinstance(resolve(value), str):
        return value
    return json.dumps(replace_refs(value, str), ensure_ascii=False, default=_unreadable)


def _unreadable(value: object) -> str:
    return "?" if isinstance(value, Invalid) else str(value)
