"""One run of a plan: looks nodes up in the caches, calls them, tells what happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.graph.cache import CorruptEntry, DiskCache, MemoryCache, Values
from fopru_graph.graph.context import CancelToken, Context
from fopru_graph.graph.declare.hooks import accepts, settle
from fopru_graph.graph.describe import describe
from fopru_graph.graph.errors import Cancelled, NodeError
from fopru_graph.graph.events import CacheWarning, Event, NodeFailed, NodeFinished, NodeStarted
from fopru_graph.graph.plan import Plan, Step
from fopru_graph.graph.run.schedule import Schedule
from fopru_graph.graph.sockets import BadLiteral, Socket
from fopru_graph.graph.values import Ref, has_refs, refs_in, replace_refs


@dataclass(frozen=True)
class Fact:
    """What is known of a finished node once its values may be gone."""

    ms: float
    cached: bool
    outputs: Mapping[str, str]
    report: Mapping[str, Any] | None


class Runner:
    """The state of one run; see `Executor.run` for the meaning of the arguments."""

    def __init__(
        self,
        plan: Plan,
        cache: MemoryCache | None,
        disk: DiskCache | None,
        jobs: int,
        model_lock: AbstractContextManager[Any],
        on_event: Callable[[Event], None] | None,
        cancel: CancelToken | None,
        out: Path | None,
    ) -> None:
        self.facts: dict[str, Fact] = {}
        self.listener_error: BaseException | None = None
        self.status = "failed"
        self._plan = plan
        self._cache = cache
        self._disk = disk
        self._jobs = jobs
        self._model_lock = model_lock
        self._on_event = on_event
        self._event_lock = threading.RLock()
        self._cancel = cancel or CancelToken()
        self._stopping = False
        self._out = out
        self._schedule: Schedule

    @property
    def values(self) -> dict[str, Values]:
        """The outputs of the wanted nodes."""
        return {ref.node: self._schedule.values[ref.node] for ref in self._plan.wanted.values()}

    def emit(self, event: Event) -> None:
        """Tell the listener, one event at a time whatever thread it comes from."""
        if self._on_event is None:
            return
        with self._event_lock:
            try:
                self._on_event(event)
            except BaseException as error:
                self.listener_error = error
                raise

    def run(self) -> None:
        """Run everything that is wanted; raises `NodeError`, `Cancelled`, or what the listener raised."""
        try:
            self._schedule = Schedule(self._plan, self._look_up)
            if self._jobs == 1:
                self._check_cancelled()
                while step := self._schedule.take():
                    self._run_here(step)
                    self._check_cancelled()
            else:
                self._run_in_threads()
            self.status = "done"
        except Cancelled:
            self.status = "cancelled"
            raise

    def _run_here(self, step: Step) -> None:
        inputs = self._inputs(step)
        if inputs is not None:
            self._schedule.finish(step.name, self._execute(step, inputs))

    def _run_in_threads(self) -> None:
        running: dict[Future[Values], Step] = {}
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="fopru") as pool:
            try:
                self._start(pool, running)
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        self._schedule.finish(running.pop(future).name, future.result())
                    self._start(pool, running)
            except BaseException:
                self._stopping = True  # the other nodes notice it through their context
                raise

    def _start(self, pool: ThreadPoolExecutor, running: dict[Future[Values], Step]) -> None:
        while len(running) < self._jobs:
            self._check_cancelled()
            busy = any(step.spec.device == "model" for step in running.values())
            step = self._schedule.take(busy)
            if step is None:
                return
            inputs = self._inputs(step)
            if inputs is not None:
                running[pool.submit(self._execute, step, inputs)] = step

    def _is_cancelled(self) -> bool:
        return self._stopping or self._cancel.is_cancelled()

    def _check_cancelled(self) -> None:
        if self._is_cancelled():
            raise Cancelled

    # -- inputs -------------------------------------------------------------------------------------------------------

    def _inputs(self, step: Step) -> dict[str, Any] | None:
        """The values for a node's ``run``; None when it asked for lazy inputs that are not there yet."""
        lazy = step.spec.lazy_inputs()
        try:
            ready = {name: self._value(step, name) for name in step.inputs if name not in lazy}
            ready |= {name: self._value(step, name) for name in lazy if self._is_ready(step.inputs[name])}
            missing = self._asked_for(step, ready, lazy)
        except Exception as error:
            raise self._failure(step, error, step.inputs) from error
        if missing:
            self._schedule.wait_for(step.name, missing)
            return None
        return {name: ready.get(name) for name in step.inputs}

    def _asked_for(self, step: Step, ready: Mapping[str, Any], lazy: list[str]) -> set[str]:
        """The nodes whose outputs the node's ``needs`` asks for and which have not run."""
        if all(name in ready for name in lazy):
            return set()
        hook = step.spec.cls().needs  # type: ignore[attr-defined]  # required of types with lazy inputs
        names = settle(hook(**(accepts(hook, ready) or {})))
        if unknown := [name for name in names if name not in step.inputs]:
            raise ValueError(f"needs() asked for {unknown[0]!r}, which is no input")
        refs = [ref for name in names for _, ref in refs_in(step.inputs[name])]
        return {ref.node for ref in refs if not self._schedule.is_finished(ref.node)}

    def _is_ready(self, value: Any) -> bool:
        return all(ref.node in self._schedule.values for _, ref in refs_in(value))

    def _value(self, step: Step, name: str) -> Any:
        value = step.inputs[name]
        if not has_refs(value):
            return value
        return _within_bounds(step.spec.inputs[name], replace_refs(value, self._output))

    def _output(self, ref: Ref) -> Any:
        return self._schedule.values[ref.node][ref.output or "output"]

    # -- calling ------------------------------------------------------------------------------------------------------

    def _execute(self, step: Step, inputs: Mapping[str, Any]) -> Values:
        """Call one node, in whatever thread, and keep what it gives."""
        context = self._context(step)
        with self._model_lock if step.spec.device == "model" else nullcontext():
            self._check_cancelled()
            self.emit(NodeStarted(step.name, step.spec.type))
            begin = time.perf_counter()
            try:
                values = step.spec.pack(step.spec.cls().call(inputs, context))
                ms = (time.perf_counter() - begin) * 1000
                fact = Fact(ms, False, {name: describe(value) for name, value in values.items()}, _report(values))
            except Cancelled:
                raise
            except Exception as error:
                if error is self.listener_error:
                    raise
                raise self._failure(step, error, inputs) from error
        self._keep(step, values)
        self._tell_finished(step, fact)
        return values

    def _failure(self, step: Step, error: Exception, inputs: Mapping[str, Any]) -> NodeError:
        self.emit(NodeFailed(step.name, error))
        described = {name: str(value) if isinstance(value, Ref) else describe(value) for name, value in inputs.items()}
        return NodeError(step.name, step.spec.type, step.place, error, described, list(self.facts))

    def _tell_finished(self, step: Step, fact: Fact) -> None:
        self.facts[step.name] = fact
        self.emit(NodeFinished(step.name, fact.ms, fact.cached, fact.report))

    # -- caches -------------------------------------------------------------------------------------------------------

    def _look_up(self, step: Step) -> Values | None:
        if step.cache == "never":
            return None
        values = self._cache.get(step.key) if self._cache is not None else None
        if values is not None and step.spec.output and not self._is_done(step, values):
            return None
        if values is None and self._disk is not None and step.cache == "disk":
            try:
                values = self._disk.get(step.key)
            except CorruptEntry as error:
                self.emit(CacheWarning(step.name, str(error)))
            if values is not None and self._cache is not None:
                self._cache.put(step.key, values)
        if values is not None:
            described = {name: describe(value) for name, value in values.items()}
            self._tell_finished(step, Fact(0.0, True, described, _report(values)))
        return values

    def _is_done(self, step: Step, values: Values) -> bool:
        """Whether the effect of an earlier run with the same inputs is still there, as the node's ``done`` says."""
        hook = step.spec.cls().done  # type: ignore[attr-defined]  # others are never kept
        literals = {name: value for name, value in step.inputs.items() if not has_refs(value)}
        given = accepts(hook, literals | values | {"ctx": self._context(step)})
        try:
            return given is not None and bool(settle(hook(**given)))
        except Exception:  # it cannot tell: the node runs again
            return False

    def _context(self, step: Step) -> Context:
        return Context(step.name, out=self._out, emit=self.emit, cancelled=self._is_cancelled, key=step.key)

    def _keep(self, step: Step, values: Values) -> None:
        if step.cache == "never":
            return
        if self._cache is not None:
            self._cache.put(step.key, values)
        if self._disk is not None and step.cache == "disk":
            try:
                self._disk.put(step.key, values)
            except (OSError, TypeError, ValueError) as error:
                self.emit(CacheWarning(step.name, f"the outputs cannot be kept on disk: {error}"))


def _within_bounds(socket: Socket, value: Any) -> Any:
    """A linked number or text as its socket wants it: its bounds and choices hold for links as for literals."""
    if socket.is_link_only or not isinstance(value, (bool, int, float, str)):
        return value
    try:
        return socket.read(value)
    except BadLiteral as error:
        raise UserError(f"{socket.name} {error.message}", error.hint) from None


def _report(values: Values) -> dict[str, Any] | None:
    """The figures that the outputs carry: the ``report()`` of those that have one."""
    reports = [value.report() for value in values.values() if callable(getattr(value, "report", None))]
    return {key: figure for report in reports for key, figure in report.items()} if reports else None
