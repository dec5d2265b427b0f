"""OCRBench (Liu et al. 2023): an answer is right if it contains one of the right texts.

Two versions of the rule are in use. ``2024`` is that of lmms-eval until 0.3: it lowers the answer's case first, so that
a handwritten formula with an upper-case letter (HME100k, where case counts) can never be right. ``2026`` is today's:
answers of HME100k keep their case, and elsewhere full-width characters equal their ASCII counterparts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

FORMULAS = "HME100k"
# Full-width forms of the printable ASCII characters, and the ideographic space.
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


def ocrbench(said: str, /, answers: Sequence[str], dataset: str) -> bool:
    """Whether what was said contains an accepted answer, by today's rule.

    Case does not count and newlines are spaces. In the formulas of ``dataset`` ``HME100k`` case counts, but newlines
    and spaces do not.
    """
    return _contains(said.strip(), answers, _formula if dataset == FORMULAS else _narrow)


def ocrbench_2024(said: str, /, answers: Sequence[str], dataset: str) -> bool:
    """Whether what was said contains an accepted answer, by the rule of 2024."""
    return _contains(said.strip().lower(), answers, _formula if dataset == FORMULAS else _wide)


def ocrbench_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``ocrbench``: the score out of 1000, i.e. 1000 times the share of right answers in the scored rows."""
    return {"ocrbench": 1000 * sum(row["score"] for row in rows) / len(rows)} if rows else {}


def _contains(said: str, answers: Sequence[str], fold: Callable[[str], str]) -> bool:
    return any(fold(answer) in fold(said) for answer in answers)


def _formula(text: str) -> str:
    return text.strip().replace("\n", "").replace(" ", "")


def _wide(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _narrow(text: str) -> str:
    return _wide(text.translate(_NARROW))
