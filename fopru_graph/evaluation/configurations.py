"""The configurations that are compared: pipelines at retention ratios, each with a results folder. Loads no torch."""

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
class Configuration:
    """A pipeline that is ready to run at one retention ratio.

    Args:
        pipeline: its name.
        ratio: share of the visual tokens that is kept; None if the pipeline runs as its file says.
        given: values that the user set, by target, e.g. ``{"fastv.layer": 2}``.
        shares: the ratio of every pruning node that ``ratio`` sets, e.g. ``{"prune.ratio": 0.5}``.
        graph: the pipeline with all of these set.
        prunes: whether visual tokens are dropped.
    """

    pipeline: str
    ratio: float | None
    given: Mapping[str, Any]
    shares: Mapping[str, float]
    graph: Graph
    prunes: bool

    @property
    def settings(self) -> dict[str, Any]:
        """All values that were set, by target."""
        return {**self.given, **self.shares}

    def folder(self, task: str) -> str:
        """The name of the results folder for a task: pipeline, task, ratio, and a hash of the other settings."""
        ratio = "as-written" if self.ratio is None else f"r{self.ratio:.6g}"
        parts = [re.sub(r"[^\w.-]", "_", self.pipeline), task, ratio]
        if others := {target: value for target, value in self.given.items() if target not in self.shares}:
            parts.append(hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()[:8])
        return "--".join(parts)

    @property
    def label(self) -> str:
        """Pipeline and ratio, e.g. ``fastv 25 %``."""
        return self.pipeline if self.ratio is None else f"{self.pipeline} {100 * self.ratio:.4g} %"


def configurations_of(
    graph: Graph, ratios: Sequence[float] | None, given: Mapping[str, Any] | None = None
) -> list[Configuration]:
    """A pipeline at every ratio by the rule of `measure.pipelines.settings_of`; as it is written without ``ratios``.

    ``given`` are values that the user has already set in ``graph``.

    Raises:
        UserError: the pipeline does not answer, a ratio lies outside (0, 1], or none can be set.
        PipelineError: the pipeline is not valid.
    """
    plan = Executor(graph.registry).plan(graph)
    generating_node(graph, plan)
    given = dict(given or {})
    if ratios is None:
        prunes = any(step.spec.category == "prune" for step in plan.steps.values())
        return [Configuration(name_of(graph), None, given, {}, graph, prunes)]
    configurations = []
    for setting in settings_of(graph, plan, ratios):
        at_ratio = graph.copy()
        for target, value in setting.inputs.items():
            at_ratio.set(target, value)
        configurations.append(
            Configuration(name_of(graph), setting.ratio, given, setting.inputs, at_ratio, setting.prunes)
        )
    return configurations
