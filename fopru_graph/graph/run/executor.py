"""Running pipelines, one node after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fopru_graph.graph.cache import DiskCache
from fopru_graph.graph.context import CancelToken
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import Cancelled, NodeError
from fopru_graph.graph.events import Event, RunFinished, RunStarted
from fopru_graph.graph.memory import MemoryCache
from fopru_graph.graph.model import PATH, Model
from fopru_graph.graph.plan import Plan, plan
from fopru_graph.graph.run.record import RECORDED_PACKAGES, RunRecord, RunResult, timestamp, to_json
from fopru_graph.graph.run.runner import Runner
from fopru_graph.graph.sockets import InputPath
from fopru_graph.graph.values import MISSING
from fopru_graph.graph.yaml.write import dump
from fopru_graph.identity import versions


@dataclass(eq=False)
class Executor:
    """Runs pipelines with one set of node types and caches; it can be used again however a run ended.

    Without ``registry`` that of each pipeline is used. ``versions`` are written to run records in place of the versions
    of installed packages.
    """

    registry: Registry | None = None
    cache: MemoryCache | None = None
    disk: DiskCache | None = None
    versions: Mapping[str, str] | None = None

    def run(
        self,
        graph: Model,
        targets: Iterable[str] | None = None,
        *,
        to: str | None = None,
        sets: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        cancel: CancelToken | None = None,
        out: Path | None = None,
    ) -> RunResult:
        """Run the declared outputs and output nodes, only some ``targets``, or only up to the node ``to``.

        ``sets`` are values for `Graph.set`, e.g. ``{"prune.ratio": 0.25}``; ``graph`` is not changed. Nodes write files
        to the folder ``out``. Raises `PipelineError` before anything runs if the pipeline has errors, `NodeError` if a
        node fails and `Cancelled` if ``cancel`` is set; an exception of ``on_event`` ends the run and is raised.
        """
        chosen = self.plan(graph, targets, to=to, sets=sets)
        if self.cache is not None:
            self.cache.fit(len(chosen.steps))
        runner = Runner(chosen, self.cache, self.disk, on_event, cancel or CancelToken(), out)
        started, begin = timestamp(), time.perf_counter()

        def finish(error: Exception | None, outputs: Mapping[str, Any]) -> RunRecord:
            total = (time.perf_counter() - begin) * 1000
            if runner.listener_error is None:
                runner.emit(RunFinished(runner.status, total))
            return RunRecord(
                status=runner.status,
                pipeline=dump(chosen.graph),
                inputs=_inputs(chosen.graph),
                outputs={name: to_json(value) for name, value in outputs.items()},
                nodes={name: fact.to_json(chosen.steps[name]) for name, fact in runner.facts.items()},
                versions=dict(versions(RECORDED_PACKAGES) if self.versions is None else self.versions),
                started=started,
                total_ms=round(total, 3),
                error=str(error) if error else None,
                blocks=dict(chosen.flat.blocks),
                packs=dict(chosen.flat.registry.packs),
                folder=os.path.abspath(chosen.graph.folder or ""),
                warnings=[f"{warning.node}: {warning.message}" for warning in runner.warnings],
            )

        runner.emit(RunStarted(tuple(chosen.steps)))
        try:
            runner.run()
        except (NodeError, Cancelled) as error:
            error.record = finish(error, {})
            raise
        outputs = _outputs(chosen, runner)
        timings = {name: fact.ms for name, fact in runner.facts.items()}
        cached = frozenset(name for name, fact in runner.facts.items() if fact.cached)
        record = finish(None, outputs)
        return RunResult(outputs, timings, cached, record, runner.values, chosen, tuple(runner.warnings))

    def plan(
        self,
        graph: Model,
        targets: Iterable[str] | None = None,
        *,
        to: str | None = None,
        sets: Mapping[str, Any] | None = None,
    ) -> Plan:
        """The plan that `run` would follow; raises `PipelineError` like it."""
        if sets:
            graph = graph.copy()
            for target, value in sets.items():
                graph.set(target, value)
        return plan(graph, self.registry or graph.registry, targets, to=to)

    def explain(self, graph: Model, *, to: str | None = None) -> dict[str, dict[str, Any]]:
        """For every node whether it would run, be reused or be skipped, why, and what its key is made of."""
        return self.plan(graph, to=to).explain(self.cache, self.disk)


def _inputs(graph: Model) -> dict[str, Any]:
    """The values of the pipeline's inputs, with absolute paths."""
    inputs = graph.inputs.items()
    paths = {name for name, entry in inputs if entry.type == PATH}
    values = {name: entry.default for name, entry in inputs if entry.default is not MISSING}
    return {n: to_json(InputPath().place(value, graph.folder) if n in paths else value) for n, value in values.items()}


def _outputs(chosen: Plan, runner: Runner) -> dict[str, Any]:
    """The wanted outputs in the order of their declaration; None for a node that was left out."""
    values = runner.values
    outputs = dict(chosen.literals)
    for name, ref in chosen.wanted.items():
        outputs[name] = None if ref.node in runner.left_out else values[ref.node][ref.output or "output"]
    names = dict.fromkeys([*(name for name in chosen.graph.outputs if name in outputs), *outputs])
    return {name: outputs[name] for name in names}
