"""Boxes in answers (RefCOCO): read in the notation of the model, compared by intersection over union (IoU).

Models differ in what their numbers count: LLaVA answers fractions, InternVL, Qwen2-VL and Qwen3-VL thousandths of the
picture's sides, Qwen2.5-VL pixels of the picture as its preprocessing resized it, PaliGemma 1024ths as ``<loc…>``
tokens with y before x. Markup around the numbers (``<box>``, ``<|box_start|>``, JSON) does not matter, for a tokenizer
leaves out what it takes for special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fopru_graph.evaluation.task import Score, Shown

Coordinates = Literal["fractions", "padded", "cropped", "thousandths", "pixels", "loc"]
Box = tuple[float, float, float, float]  # left, top, right, bottom

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
# The pattern of lmms-eval: no space before a comma.
_LIST = re.compile(r"\[" + ",".join([r"\s*(-?\d+(?:\.\d+)?)"] * 4) + r"\s*\]")
_CORNERS = re.compile(rf"[\[(]{_NUMBER},{_NUMBER}(?:[\])]\s*,\s*[\[(]|,){_NUMBER},{_NUMBER}[\])]")
_LOC = re.compile(r"<loc(\d{4})>" * 4)


def box(
    said: str,
    /,
    box: Sequence[float],
    shown: Sequence[Shown],
    *,
    coordinates: Coordinates = "fractions",
    threshold: float = 0.5,
) -> Score:
    """Whether the first box in the answer overlaps the right one by an IoU of at least a threshold.

    Args:
        said: the answer; without a box it is wrong.
        box: the right box (left, top, right, bottom) in pixels of the picture.
        shown: the picture, the only one.
        coordinates: what the answer's numbers count: ``fractions`` of the picture's sides, of those of the square that
            it was ``padded`` to or ``cropped`` to, ``thousandths`` of its sides, ``pixels`` of the preprocessed
            picture, or 1024ths in ``loc`` tokens.
        threshold: the least IoU of a right answer.
    """
    (picture,) = shown
    width, height = picture.size
    right = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
    found = read_box(said, coordinates, picture)
    overlap = iou(right, found) if found else 0.0
    inside = found is not None and _has_centre(right, found)
    return Score(float(overlap >= threshold), {"iou": overlap, "centre": inside, "box": found is not None})


def read_box(said: str, coordinates: Coordinates, picture: Shown) -> Box | None:
    """The first box of an answer in fractions of the picture's sides; None if it has none."""
    match coordinates:
        case "loc":
            if (found := _LOC.search(said)) is None:
                return None
            top, left, bottom, right = (int(number) / 1024 for number in found.groups())
            return left, top, right, bottom
        case "fractions" | "padded" | "cropped":
            numbers = _numbers(_LIST.search(said))
            return (
                numbers if numbers is None or coordinates == "fractions" else _of_square(numbers, coordinates, picture)
            )
    numbers = _numbers(_CORNERS.search(said))
    if numbers is None:
        return None
    wide, high = (1000, 1000) if coordinates == "thousandths" else picture.seen()
    return numbers[0] / wide, numbers[1] / high, numbers[2] / wide, numbers[3] / high


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes; 0 if a box has no area or its corners are exchanged."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (first, second)]
    return both / (areas[0] + areas[1] - both)


def box_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean ``iou``, accuracy at several thresholds (``acc@0.1`` …), ``centre``: boxes whose centre is in the right box.

    ``no_box`` is the share of answers without a box.
    """
    if not rows:
        return {}
    facts = [row["facts"] for row in rows]
    return {
        "iou": sum(fact["iou"] for fact in facts) / len(facts),
        **{f"acc@{least}": sum(fact["iou"] >= least for fact in facts) / len(facts) for least in THRESHOLDS},
        "centre": sum(fact["centre"] for fact in facts) / len(facts),
        "no_box": sum(not fact["box"] for fact in facts) / len(facts),
    }


def _numbers(found: re.Match[str] | None) -> Box | None:
    if found is None:
        return None
    left, top, right, bottom = (float(number) for number in found.groups())
    return left, top, right, bottom


def _of_square(numbers: Box, coordinates: Coordinates, picture: Shown) -> Box:
    """Fractions of the square around (padded) or in (cropped) the picture's centre, as fractions of the picture."""
    side = max(picture.size) if coordinates == "padded" else min(picture.size)
    (left, right), (top, bottom) = (
        [(0.5 * (length - side) + side * number) / length for number in pair]
        for length, pair in zip(picture.size, (numbers[0::2], numbers[1::2]), strict=True)
    )
    return left, top, right, bottom


def _has_centre(right: Box, found: Box) -> bool:
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    return right[0] <= x <= right[2] and right[1] <= y <= right[3]
