"""The events of a run, which are frozen data classes that ``on_event`` is called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class RunStarted:
    """A run begins; ``nodes`` are the nodes that may run, in an order in which they could run."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class NodeStarted:
    """A node's ``run`` is about to be called."""

    node: str
    type: str


@dataclass(frozen=True)
class NodeProgress:
    """Step ``i`` of ``n`` of a node is done."""

    node: str
    i: int
    n: int
    text: str = ""


@dataclass(frozen=True)
class NodeText:
    """A piece of streamed text from a node."""

    node: str
    chunk: str


@dataclass(frozen=True)
class NodeFinished:
    """A node has its outputs, after ``ms`` milliseconds or from a cache; ``report`` holds their figures."""

    node: str
    ms: float
    cached: bool
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class NodeFailed:
    """A node raised ``error``; the run ends."""

    node: str
    error: BaseException


@dataclass(frozen=True)
class NodeSkipped:
    """A node that would run for its effect does not, because it hangs on a branch that is not taken."""

    node: str
    why: str


@dataclass(frozen=True)
class RunWarning:
    """Something could not be read or written, or differs from the record that is replayed; the run goes on.

    ``node`` is ``replay`` for what concerns all nodes. ``lost`` is what the user asked for: a file of a node that runs
    for its effect, not an entry of a cache.
    """

    node: str
    message: str
    lost: bool = False


@dataclass(frozen=True)
class RunFinished:
    """The run is over; ``status`` is ``done``, ``failed`` or ``cancelled``."""

    status: str
    ms: float


Event: TypeAlias = (
    RunStarted
    | NodeStarted
    | NodeProgress
    | NodeText
    | NodeFinished
    | NodeFailed
    | NodeSkipped
    | RunWarning
    | RunFinished
)
