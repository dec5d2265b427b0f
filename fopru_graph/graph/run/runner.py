"""One run of a plan: look nodes up in the caches, call them, emit events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph.branches import not_asked
from fopru_graph.graph.cache import CorruptEntry, DiskCache
from fopru_graph.graph.context import CancelToken, Context
from fopru_graph.graph.declare.node import accepts, settle
from fopru_graph.graph.declare.registry import is_built_in
from fopru_graph.graph.errors import Cancelled, NodeError
from fopru_graph.graph.events import Event, NodeFailed, NodeFinished, NodeSkipped, NodeStarted, RunWarning
from fopru_graph.graph.memory import MemoryCache, Values
from fopru_graph.graph.plan import Plan, left_out
from fopru_graph.graph.run.record import Fact
from fopru_graph.graph.run.replay import differences
from fopru_graph.graph.run.schedule import Schedule
from fopru_graph.graph.sockets import BadLiteral, Socket
from fopru_graph.graph.steps import Step
from fopru_graph.graph.values import Ref, describe, has_refs, replace_refs, unwrapped


@dataclass
class Runner:
    """One run; see `Executor.run` for the meaning of the arguments."""

    plan: Plan
    cache: MemoryCache | None
    disk: DiskCache | None
    on_event: Callable[[Event], None] | None
    cancel: CancelToken
    out: Path | None
    facts: dict[str, Fact] = field(default_factory=dict)
    warnings: list[RunWarning] = field(default_factory=list)
    listener_error: BaseException | None = None
    status: str = "failed"
    left_out: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._writers: dict[str, str] = {}
        self._event_lock = threading.RLock()  # a node may stream text from a thread of its own
        self._schedule: Schedule

    @property
    def values(self) -> dict[str, Values]:
        """The outputs of the wanted nodes that were not left out."""
        wanted, values = {ref.node for ref in self.plan.wanted.values()}, self._schedule.values
        return {node: values[node] for node in wanted - self.left_out}

    def emit(self, event: Event) -> None:
        """Call the listener, with one event at a time even if events come from several threads."""
        if self.on_event is None:
            return
        with self._event_lock:
            try:
                self.on_event(event)
            except BaseException as error:
                self.listener_error = error
                raise

    def warn(self, node: str, message: str, *, lost: bool = False) -> None:
        """Tell the listener, and the result, of something that the run goes on without."""
        self.warnings.append(RunWarning(node, message, lost))
        self.emit(self.warnings[-1])

    def run(self) -> None:
        """Run everything that is wanted; raises `NodeError`, `Cancelled`, or the listener's exception."""
        try:
            for name, node in self.plan.left_out.items():
                self._leave_out(name, node)
            with self.cancel.abruptly():  # the keys of a model and its pictures import torch
                self._schedule = Schedule(self.plan, self._look_up, self._reuse, self._leave_out)
            self._check_cancelled()
            while step := self._schedule.take():
                inputs = self._inputs(step)
                if inputs is not None:
                    self._schedule.finish(step.name, self._execute(step, inputs))
                self._check_cancelled()
            if recorded := self.plan.graph.recorded:
                for node, message in differences([self.plan.steps[name] for name in self.facts], recorded):
                    self.warn(node, message)
            self.status = "done"
        except Cancelled:
            self.status = "cancelled"
            raise

    def _check_cancelled(self) -> None:
        if self.cancel.is_cancelled():
            raise Cancelled

    # -- inputs -------------------------------------------------------------------------------------------------------

    def _inputs(self, step: Step) -> dict[str, Any] | None:
        """The inputs of a node; None if it waits for lazy inputs that have to be evaluated first, or need not run."""
        try:
            ready = {name: self._value(step, name) for name in step.inputs if name not in step.open}
            if step.open and not self._ask(step, ready):
                return None
        except Exception as error:
            if error is self.listener_error:
                raise
            raise self._failure(step, error, step.inputs) from error
        return {name: ready[name] if name in ready else not_asked(step.spec, name) for name in step.inputs}

    def _ask(self, step: Step, ready: dict[str, Any]) -> bool:
        """Add the lazy inputs that the node's ``needs`` asks for to ``ready``; False if the node cannot run yet.

        It sees those that it has asked for, and no other that happens to be known: its outputs depend on nothing else.
        """
        keys, schedule = self.plan.keys, self._schedule
        hook = step.spec.cls().needs  # type: ignore[attr-defined]  # types with lazy inputs have it
        while True:
            asked = keys.asked(step.name)
            ready |= {name: self._value(step, name) for name in asked}
            names = settle(hook(**(accepts(hook, ready) or {})))
            if unknown := [name for name in names if name not in step.inputs]:
                raise ValueError(f"needs() asked for {unknown[0]!r}, which is no input")
            more = step.open.intersection(names) - asked
            keys.settle(step.name, asked | more, final=not more)
            if not more:
                return not schedule.find(step.name)
            if missing := [node for node in step.read_by(more) if not schedule.is_finished(node)]:
                if not schedule.find_early(step.name):
                    schedule.wait_for(step.name, missing)
                return False

    def _value(self, step: Step, name: str) -> Any:
        value = step.inputs[name]
        if not has_refs(value):
            return unwrapped(value)
        return _within_bounds(step.spec.inputs[name], replace_refs(value, self._output))

    def _output(self, ref: Ref) -> Any:
        return self._schedule.values[ref.node][ref.output or "output"]

    # -- calling ------------------------------------------------------------------------------------------------------

    def _execute(self, step: Step, inputs: Mapping[str, Any]) -> Values:
        """Call a node and keep its outputs."""
        self._check_cancelled()
        self.emit(NodeStarted(step.name, step.spec.type))
        begin = time.perf_counter()
        try:
            values = step.spec.pack(step.spec.cls().call(inputs, self._context(step)))
            ms = (time.perf_counter() - begin) * 1000
            fact = Fact.of(values, ms, cached=False)
        except Cancelled:
            raise
        except Exception as error:
            if error is self.listener_error:
                raise
            if not self._can_be_spared(step, error):
                raise self._failure(step, error, inputs) from error
            self.warn(step.name, str(error), lost=True)
            return dict.fromkeys(step.spec.outputs)
        self._keep(step, values)
        self._record(step, fact)
        return values

    def _can_be_spared(self, step: Step, error: Exception) -> bool:
        """Whether a node only failed to write its file, so that the answer of the others must not be lost."""
        read = any(step.name in reader.parents for reader in self.plan.steps.values())
        return step.spec.output and not read and any(isinstance(cause, OSError) for cause in (error, error.__cause__))

    def _failure(self, step: Step, error: Exception, inputs: Mapping[str, Any]) -> NodeError:
        self.emit(NodeFailed(step.name, error))
        described = {name: str(value) if isinstance(value, Ref) else describe(value) for name, value in inputs.items()}
        source = None if is_built_in(step.spec) else step.spec.source
        return NodeError(step.name, step.spec.type, step.location, error, described, list(self.facts), source)

    def _record(self, step: Step, fact: Fact) -> None:
        self.facts[step.name] = fact
        self.emit(NodeFinished(step.name, fact.ms, fact.cached, fact.report))

    # -- caches -------------------------------------------------------------------------------------------------------

    def _look_up(self, step: Step) -> Values | None:
        if step.cache == "never":
            return None
        values = self.cache.get(step.key) if self.cache is not None else None
        if values is not None and step.spec.output and not self._is_done(step, values):
            return None
        if values is None and self.disk is not None and step.cache == "disk":
            try:
                values = self.disk.get(step.key)
            except CorruptEntry as error:
                self.warn(step.name, str(error))
            if values is not None and self.cache is not None:
                self.cache.put(step.key, values)
        if values is not None:
            self._reuse(step, values)
        return values

    def _reuse(self, step: Step, values: Values) -> None:
        self._record(step, Fact.of(values, 0.0, cached=True))

    def _leave_out(self, name: str, node: str) -> None:
        self.left_out.add(name)
        self.emit(NodeSkipped(name, left_out(node)))

    def _is_done(self, step: Step, values: Values) -> bool:
        """Whether the node's ``done`` says that the effect of an earlier run with the same inputs is still there."""
        hook = step.spec.cls().done  # type: ignore[attr-defined]  # nodes without it are not cached
        literals = {name: value for name, value in step.inputs.items() if not has_refs(value)}
        given = accepts(hook, literals | values | {"ctx": self._context(step)})
        try:
            return given is not None and bool(settle(hook(**given)))
        except Exception:  # unknown, so the node runs again
            return False

    def _context(self, step: Step) -> Context:
        return Context(
            step.name,
            out=self.out,
            emit=self.emit,
            cancel=self.cancel,
            key=step.key,
            writers=self._writers,
            pipeline=self.plan.graph.name,
            warn=self.warn,
        )

    def _keep(self, step: Step, values: Values) -> None:
        if step.cache == "never":
            return
        if self.cache is not None:
            self.cache.put(step.key, values)
        if self.disk is not None and step.cache == "disk":
            try:
                self.disk.put(step.key, values)
            except Exception as error:  # of the disk or of a codec's library: a cache never costs the answer
                self.warn(step.name, f"the outputs cannot be kept on disk: {error}")


def _within_bounds(socket: Socket, value: Any) -> Any:
    """A linked number or text, converted and checked like a literal: bounds and choices hold for links too."""
    if socket.is_link_only or not isinstance(value, (bool, int, float, str)):
        return value
    try:
        return socket.read(value)
    except BadLiteral as error:
        raise UserError(f"{socket.name} {error.message}", error.hint) from None
