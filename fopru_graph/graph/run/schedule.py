"""The order of a run and the lifetime of its values, without the running.

A run pulls: it starts at the wanted nodes and follows the links upwards only as far as needed. A cached node needs no
ancestors, and a lazy input pulls nothing until the node asks for it. A value is dropped when no node that may still run
can read it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from fopru_graph.graph.cache import Values
from fopru_graph.graph.plan import Plan, Step


class Schedule:
    """The progress of one run; ``look_up`` returns the cached outputs of a step, or None."""

    def __init__(self, plan: Plan, look_up: Callable[[Step], Values | None]) -> None:
        self.values: dict[str, Values] = {}
        self._steps = plan.steps
        self._look_up = look_up
        self._order = {name: index for index, name in enumerate(plan.steps)}
        self._kept = {ref.node for ref in plan.wanted.values()}
        self._roots = set(plan.roots)
        self._wanted: set[str] = set()
        self._finished: set[str] = set()
        self._waiting: dict[str, set[str]] = {}
        self._ready: list[tuple[bool, int, str]] = []  # a heap: nodes that run for their effect first
        self._readers: dict[str, set[str]] = {name: set() for name in plan.steps}
        for name, step in plan.steps.items():
            for parent in step.parents:
                self._readers[parent].add(name)
        self._want(plan.roots)

    def take(self) -> Step | None:
        """The next node whose inputs are available; None when all wanted nodes have finished."""
        return self._steps[heapq.heappop(self._ready)[2]] if self._ready else None

    def wait_for(self, name: str, parents: Iterable[str]) -> None:
        """Put a node that was taken back until ``parents`` have finished, and pull these."""
        self._want(self._wait(name, parents))

    def finish(self, name: str, values: Values) -> None:
        """Store the outputs of a node, make its readers ready, and drop the values that no node will read."""
        self._finished.add(name)
        self.values[name] = values
        self._waiting.pop(name, None)
        for reader in self._readers[name]:
            missing = self._waiting.get(reader)
            if missing is not None and name in missing:
                missing.discard(name)
                if not missing:
                    self._make_ready(reader)
        self._stop_reading(name)
        if not self._readers[name]:
            self._drop(name)

    def is_finished(self, name: str) -> bool:
        """Whether the node has run or was found in a cache."""
        return name in self._finished

    def _want(self, names: Iterable[str]) -> None:
        """Pull these nodes and everything they need, except the ancestors of nodes that are in a cache."""
        stack = sorted(names, key=self._order.__getitem__, reverse=True)
        while stack:
            name = stack.pop()
            if name in self._wanted:
                continue
            self._wanted.add(name)
            step = self._steps[name]
            if (values := self._look_up(step)) is not None:
                self.finish(name, values)
            else:
                stack.extend(self._wait(name, step.eager_parents))

    def _wait(self, name: str, parents: Iterable[str]) -> set[str]:
        missing = {parent for parent in parents if parent not in self._finished}
        self._waiting[name] = missing
        if not missing:
            self._make_ready(name)
        return set(missing)

    def _make_ready(self, name: str) -> None:
        heapq.heappush(self._ready, (not self._steps[name].spec.output, self._order[name], name))

    def _stop_reading(self, name: str) -> None:
        """The node reads nothing more. A parent that only this node could have pulled will not run, nor read."""
        stack = [name]
        while stack:
            reader = stack.pop()
            for parent in self._steps[reader].parents:
                readers = self._readers[parent]
                readers.discard(reader)
                if readers:
                    continue
                if parent in self._finished:
                    self._drop(parent)
                elif parent not in self._wanted and parent not in self._roots:
                    stack.append(parent)

    def _drop(self, name: str) -> None:
        if name not in self._kept:
            self.values.pop(name, None)
