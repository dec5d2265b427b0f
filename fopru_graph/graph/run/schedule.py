"""The order of a run and the lifetime of its values, without the running.

A run pulls: it starts at the wanted nodes and follows the links upwards only as far as needed. A cached node needs no
ancestors, and a lazy input pulls nothing until the node asks for it. Of nodes that are equal, one runs and the others
get its outputs. A value is dropped when no node that may still run can read it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from fopru_graph.graph.memory import Values
from fopru_graph.graph.plan import Plan
from fopru_graph.graph.steps import Step


class Schedule:
    """The progress of one run.

    Args:
        plan: what to run.
        look_up: returns the cached outputs of a step, or None.
        on_shared: called with a step that gets the outputs of an equal one, and with these.
        on_left_out: called with an effect, and with the node in a branch that was not taken for which it does not run.
    """

    def __init__(
        self,
        plan: Plan,
        look_up: Callable[[Step], Values | None],
        on_shared: Callable[[Step, Values], None],
        on_left_out: Callable[[str, str], None],
    ) -> None:
        self.values: dict[str, Values] = {}
        self._steps, self._keys = plan.steps, plan.keys
        self._look_up, self._on_shared, self._on_left_out = look_up, on_shared, on_left_out
        self._order = {name: index for index, name in enumerate(plan.steps)}
        self._kept = {ref.node for ref in plan.wanted.values()}
        self._roots = set(plan.roots)
        self._maybe = dict(plan.maybe)
        self._wanted: set[str] = set()
        self._undecided: set[str] = set()  # wanted nodes that hang on lazy inputs, so that they were not looked up
        self._finished: set[str] = set()
        self._waiting: dict[str, set[str]] = {}
        self._ready: list[tuple[bool, int, str]] = []  # a heap: nodes that run for their effect first
        self._readers: dict[str, set[str]] = {name: set() for name in plan.steps}
        self._first: dict[int, str] = {}  # of equal nodes, the one that runs
        self._equal: dict[str, list[str]] = {}  # those that wait for it
        self._unknown: dict[type, set[str]] = {}  # nodes of a type that may turn out to be equal to one that ran
        self._held: dict[type, set[str]] = {}  # nodes whose values are kept for those
        for name, step in plan.steps.items():
            for parent in step.parents:
                self._readers[parent].add(name)
            if step.is_shared:
                self._unknown.setdefault(step.spec.cls, set()).add(name)
        self._want(plan.roots)

    def take(self) -> Step | None:
        """The next node whose inputs are available; None when all wanted nodes have finished."""
        while self._ready or self._start_effects():
            name = heapq.heappop(self._ready)[2] if self._ready else None  # None: the effects were found in a cache
            if name is not None and not (name in self._undecided and self.find(name)):
                return self._steps[name]
        return None

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
        for equal in self._equal.pop(name, ()):
            self._share(equal, values)
        self._know(name)
        self._stop_reading(name)
        if not self._readers[name]:
            self._drop(name)

    def is_finished(self, name: str) -> bool:
        """Whether the node has run or was found in a cache."""
        return name in self._finished

    def find(self, name: str) -> bool:
        """Whether the node need not run: an equal one has run or will, or its outputs are in a cache.

        False while the lazy inputs are not known that it depends on.
        """
        step = self._steps[name]
        if name in self._keys.unsettled:
            self._undecided.add(name)
            return False
        self._undecided.discard(name)
        if step.is_shared:
            first = self._first.setdefault(self._keys.made(name).number, name)
            if first in self.values:
                self._share(name, self.values[first])
                return True
            if first != name and first not in self._finished:
                self._equal.setdefault(first, []).append(name)
                return True
        self._know(name)
        if (values := self._look_up(step)) is not None:
            self.finish(name, values)
            return True
        return False

    def find_early(self, name: str) -> bool:
        """As `find`, for a node that waits for lazy inputs and may ask for more: equal ones must have run already."""
        keys = self._keys
        if not keys.unsettled.isdisjoint(keys.parents(name)):
            return False
        step = self._steps[name]
        first = self._first.get(keys.made(name).number) if step.is_shared else None
        shared = None if first is None else self.values.get(first)
        values = self._look_up(step) if shared is None else shared
        if values is None:
            return False
        keys.settle(name, keys.asked(name), final=True)
        if shared is not None:
            self._on_shared(step, shared)
        self.finish(name, values)
        return True

    def _share(self, name: str, values: Values) -> None:
        self._on_shared(self._steps[name], values)
        self.finish(name, values)

    def _start_effects(self) -> bool:
        """When nothing else is left: want the effects whose branches were taken; the others are left out."""
        taken = self._keys.taken(self._roots)
        if starting := [name for name, hangs_on in self._maybe.items() if hangs_on <= taken]:
            self._roots.update(starting)
            for name in starting:
                del self._maybe[name]
            self._want(starting)
            return True
        for name, hangs_on in self._maybe.items():
            self._on_left_out(name, min(hangs_on - taken))
        self._maybe.clear()
        return False

    def _want(self, names: Iterable[str]) -> None:
        """Pull these nodes and everything they need, except the ancestors of nodes that are found."""
        stack = sorted(names, key=self._order.__getitem__, reverse=True)
        while stack:
            name = stack.pop()
            if name not in self._wanted:
                self._wanted.add(name)
                if not self.find(name):
                    stack.extend(self._wait(name, self._steps[name].eager_parents))

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
                elif not any(parent in names for names in (self._wanted, self._roots, self._maybe)):
                    self._know(parent)
                    stack.append(parent)

    def _know(self, name: str) -> None:
        """The node cannot turn out to be equal to one that has run: its key is known, or it never runs."""
        kind = self._steps[name].spec.cls
        unknown = self._unknown.get(kind)
        if unknown is not None:
            unknown.discard(name)
            if not unknown:
                del self._unknown[kind]
                for held in self._held.pop(kind, ()):
                    if not self._readers[held]:
                        self._drop(held)

    def _drop(self, name: str) -> None:
        if name in self._kept:
            return
        step = self._steps[name]
        if step.is_shared and step.spec.cls in self._unknown:
            self._held.setdefault(step.spec.cls, set()).add(name)
        else:
            self.values.pop(name, None)
