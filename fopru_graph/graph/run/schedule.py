"""Which node may run next, and how long each value is kept: the bookkeeping of a run, without the running.

A run pulls: it begins at the wanted nodes and goes up the links only as far as it must. A cached node needs no
ancestors, and a lazy input pulls nothing until it is asked for. A value is dropped when no
node that may still run can read it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from fopru_graph.graph.cache import Values
from fopru_graph.graph.plan import Plan, Step


class Schedule:
    """The state of one run; ``lookup`` gives a step's cached outputs or None. Not for use from several threads."""

    def __init__(self, plan: Plan, lookup: Callable[[Step], Values | None]) -> None:
        self.values: dict[str, Values] = {}
        self.done: list[str] = []
        self._steps = plan.steps
        self._lookup = lookup
        self._order = {name: index for index, name in enumerate(plan.steps)}
        self._kept = {ref.node for ref in plan.wanted.values()}
        self._roots = set(plan.roots)
        self._wanted: set[str] = set()
        self._finished: set[str] = set()
        self._waiting: dict[str, set[str]] = {}
        self._ready: list[tuple[bool, int, str]] = []
        self._readers: dict[str, set[str]] = {name: set() for name in plan.steps}
        for name, step in plan.steps.items():
            for parent in step.parents:
                self._readers[parent].add(name)
        self.want(plan.roots)

    def want(self, names: Iterable[str]) -> None:
        """See to it that these nodes run, and what they need before them, unless a cache has their outputs."""
        stack = sorted(names, key=self._order.__getitem__, reverse=True)
        while stack:
            name = stack.pop()
            if name in self._wanted:
                continue
            self._wanted.add(name)
            step = self._steps[name]
            if (values := self._lookup(step)) is not None:
                self.finish(name, values)
            else:
                stack.extend(self._wait(name, step.eager_parents))

    def take(self, model_is_busy: bool = False) -> Step | None:
        """The next node whose inputs are there, those that run for their effect first; None when there is none now."""
        passed = []
        found = None
        while self._ready and found is None:
            item = heapq.heappop(self._ready)
            step = self._steps[item[2]]
            if model_is_busy and step.spec.device == "model":
                passed.append(item)
            else:
                found = step
        for item in passed:
            heapq.heappush(self._ready, item)
        return found

    def wait_for(self, name: str, parents: Iterable[str]) -> None:
        """Put a taken node back until these nodes have finished; they are pulled now if they were not before."""
        self.want(self._wait(name, parents))

    def finish(self, name: str, values: Values) -> None:
        """Take a node's outputs, wake up what waits for them, and drop what nobody will read any more."""
        self._finished.add(name)
        self.done.append(name)
        self.values[name] = values
        self._waiting.pop(name, None)
        for reader in self._readers[name]:
            missing = self._waiting.get(reader)
            if missing is not None and name in missing:
                missing.discard(name)
                if not missing:
                    self._make_ready(reader)
        self._forget(name)
        if not self._readers[name]:
            self._drop(name)

    def is_finished(self, name: str) -> bool:
        """Whether the node's outputs are known."""
        return name in self._finished

    def _wait(self, name: str, parents: Iterable[str]) -> set[str]:
        missing = {parent for parent in parents if parent not in self._finished}
        self._waiting[name] = missing
        if not missing:
            self._make_ready(name)
        return set(missing)

    def _make_ready(self, name: str) -> None:
        heapq.heappush(self._ready, (not self._steps[name].spec.output, self._order[name], name))

    def _forget(self, name: str) -> None:
        """This node reads nothing more. What it alone might have pulled never runs, and so reads nothing either."""
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
