"""What is compared: pipelines at several ratios, each with a name for its results folder. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fopru_graph.graph import Graph
from fopru_graph.graph.run.executor import Executor
from fopru_graph.measure.pipelines import generating_node, name_of, settings_of


@dataclass(frozen=True, eq=False)
class Variant:
    """One pipeline, ready to run at one ratio.

    ``ratio`` is None where the pipeline is run as its file says; ``shares`` are the inputs that it sets, ``given`` the
    values that the user set otherwise. ``prunes``: whether visual tokens are dropped.
    """

    pipeline: str
    ratio: float | None
    given: Mapping[str, Any]
    shares: Mapping[str, float]
    graph: Graph
    prunes: bool

    @property
    def settings(self) -> dict[str, Any]:
        """All values that were set."""
        return {**self.given, **self.shares}

    def folder(self, task: str) -> str:
        """The name of the results folder for a task: pipeline, task, ratio, and a hash of the other settings."""
        ratio = "as-written" if self.ratio is None else f"r{self.ratio:.6g}"
        own = {key: value for key, value in self.given.items() if key not in self.shares}
        parts = [re.sub(r"[^\w.-]", "_", self.pipeline), task, ratio]
        if own:
            parts.append(hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:8])
        return "--".join(parts)

    @property
    def label(self) -> str:
        """Pipeline and ratio, e.g. ``fastv 25 %``."""
        return self.pipeline if self.ratio is None else f"{self.pipeline} {100 * self.ratio:.4g} %"


def variants_of(
    graph: Graph, ratios: Sequence[float] | None, settings: Mapping[str, Any] | None = None
) -> list[Variant]:
    """A pipeline at every ratio by the rule of `measure.pipelines.settings_of`; as it is written without ``ratios``.

    ``settings`` are values that were set in ``graph`` already.

    Raises:
        UserError: the pipeline does not answer, a ratio lies outside (0, 1], or none can be set.
        PipelineError: the pipeline is not valid.
    """
    plan = Executor(graph.registry).plan(graph)
    generating_node(graph, plan)
    given = dict(settings or {})
    if ratios is None:
        prunes = any(step.spec.category == "prune" for step in plan.steps.values())
        return [Variant(name_of(graph), None, given, {}, graph, prunes)]
    variants = []
    for setting in settings_of(graph, plan, ratios):
        own = graph.copy()
        for target, value in setting.inputs.items():
            own.set(target, value)
        variants.append(Variant(name_of(graph), setting.ratio, given, setting.inputs, own, setting.prunes))
    return variants
