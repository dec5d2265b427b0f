"""Scoring rules: functions of what the model said and the right answer, and the table of those a task may name.

The rules are those of lmms-eval 0.7.3, with which published figures are made. tests/evaluation/golden holds the scores
of lmms-eval; if a rule differs on purpose, its docstring says so. Like lmms-eval, the rules strip white space from both
ends of an answer first.

A rule's first parameter is what the model said. The next ones are columns of the record, by name; those after the ``*``
are options of the scorer. It returns whether the answer is right, how right it is in [0, 1], or a `Score`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from fopru_graph.evaluation.task import Score

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Scorer:
    """A rule with what its signature says.

    ``label`` is name and version; figures of different labels do not compare. ``columns`` are the columns of the data
    that the rule needs, with their types, ``given`` what it needs of the run (`task.Shown`), and ``options`` its
    options, with their types and defaults.
    """

    label: str
    rule: Callable[..., bool | float | Score]
    metrics: Callable[[Rows], dict[str, float]] | None
    columns: Mapping[str, Any]
    given: tuple[str, ...]
    options: Mapping[str, tuple[Any, Any]]

    @property
    def doc(self) -> str:
        """The first sentence about the rule."""
        return (inspect.getdoc(self.rule) or "").partition("\n")[0]


# Name: version, module, function and, if there are any, the function of further figures. Modules are imported by name,
# so that the identity of a cell has the source of its own rule only.
_SCORERS: dict[str, tuple[str, str, str, str | None]] = {
    "exact": ("exact@1", "matching", "exact", None),
    "exact_match": ("exact_match@1", "matching", "exact_match", None),
    "ai2d": ("ai2d@1", "matching", "ai2d", None),
    "scienceqa": ("scienceqa@1", "matching", "scienceqa", None),
    "first_letter": ("first_letter@1", "matching", "first_letter", None),
    "mmbench": ("mmbench@1", "mmbench", "mmbench", "mmbench_metrics"),
    "pope": ("pope@1", "pope", "pope", "pope_metrics"),
    "mme": ("mme@1", "mme", "mme", "mme_metrics"),
    "vqa_accuracy": ("vqa_accuracy@1", "vqa", "vqa_accuracy", None),
    "vqav2_accuracy": ("vqav2_accuracy@1", "vqa", "vqav2_accuracy", None),
    "ocrbench": ("ocrbench@2026", "ocrbench", "ocrbench", "ocrbench_metrics"),
    "ocrbench_2024": ("ocrbench@2024", "ocrbench", "ocrbench_2024", "ocrbench_metrics"),
    "relaxed": ("relaxed@1", "documents", "relaxed", None),
    "anls": ("anls@1", "documents", "anls", None),
    "box": ("box@1", "boxes", "box", "box_metrics"),
}
SCORERS = tuple(_SCORERS)
_GIVEN = "shown"  # by the runner, besides the record's columns


def get_scorer(name: str) -> Scorer:
    """A scorer by its name, one of `SCORERS`."""
    label, module_name, function, metrics = _SCORERS[name]
    module = importlib.import_module(f"{__name__}.{module_name}")
    rule = getattr(module, function)
    types = get_type_hints(rule)
    _, *parameters = inspect.signature(rule).parameters.values()
    needed = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    return Scorer(
        label,
        rule,
        getattr(module, metrics) if metrics else None,
        {name: types[name] for name in needed if name != _GIVEN},
        tuple(name for name in needed if name == _GIVEN),
        {p.name: (types[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY},
    )


def described_scorers() -> list[dict[str, Any]]:
    """Every scorer as a JSON object: name, label, columns, options with their defaults, and what it does."""
    scorers = {name: get_scorer(name) for name in SCORERS}
    return [
        {
            "name": name,
            "label": scorer.label,
            "columns": list(scorer.columns),
            "options": {option: default for option, (_, default) in scorer.options.items()},
            "doc": scorer.doc,
        }
        for name, scorer in scorers.items()
    ]
