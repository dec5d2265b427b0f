"""The events of a run as the messages that ComfyUI's frontend waits for, in the order in which ComfyUI sends them."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from fopru_graph.errors import UserError
from fopru_graph.graph import (
    Event,
    NodeError,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    NodeText,
    RunFinished,
)

Message: TypeAlias = tuple[str, dict[str, Any]] | bytes
Shown: TypeAlias = dict[str, Any]  # what a node shows, by kind: text, images

MOST_TEXT = 2000  # characters of a message about a failure
LOST = "the job was lost: the server ended while it ran, and it is not run a second time on its own"
_OFTEN = 0.1  # seconds between two messages of one kind: each holds all that was said before
_TEXT = 3  # the kind of a binary message that holds a node's text


class Messages:
    """Listens to one run, in whatever thread that is, and sends its messages.

    Args:
        job: the job's id.
        types: the nodes' types on the canvas, by id.
        resting: given the nodes that were found in the cache, all that need not run, those behind them too.
        show: what a node shows that has just finished: nothing for most.
        send: takes the messages.

    Attributes:
        shown: what was shown so far, by node.
        kept: the messages that belong to the history.
        node: the node that runs; empty before the first.
    """

    def __init__(
        self,
        job: str,
        types: Mapping[str, str],
        resting: Callable[[Collection[str]], list[str]],
        show: Callable[[str], Shown],
        send: Callable[[Message], None],
    ) -> None:
        self.shown: dict[str, Shown] = {}
        self.kept: list[tuple[str, dict[str, Any]]] = []
        self.node = ""
        self._job, self._types, self._resting, self._show, self._send = job, types, resting, show, send
        self._states: dict[str, dict[str, Any]] = {}
        self._found: dict[str, Shown] | None = {}  # in the cache, before the first node runs; then None
        self._texts: dict[str, list[str]] = {}
        self._next = dict.fromkeys(("progress", "text"), 0.0)
        self._keep("execution_start")

    # -- while it runs ------------------------------------------------------------------------------------------------

    def __call__(self, event: Event) -> None:
        """Tell an event."""
        if isinstance(event, NodeFinished) and event.cached and self._found is not None:
            self._found[event.node] = self._show(event.node)
            return
        if isinstance(event, (NodeStarted, NodeFinished, NodeFailed, RunFinished)):
            self._tell_found()
        if isinstance(event, NodeStarted):
            self.node = event.node
            self._state(event.node, "running")
            self._message("executing", node=event.node, display_node=event.node)
        elif isinstance(event, NodeProgress):
            if self._is_time("progress") or event.i >= event.n:
                self._state(event.node, "running", event.i, event.n)
        elif isinstance(event, NodeText):
            self._texts.setdefault(event.node, []).append(event.chunk)
            if self._is_time("text"):
                self._tell_text(event.node)
        elif isinstance(event, NodeFinished):
            if event.node in self._texts:
                self._tell_text(event.node)
            self._finish(event.node, self._show(event.node))

    def show_late(self, node: str, shown: Shown) -> None:
        """What a node shows that no cache keeps, once the run is over."""
        if node not in self.shown:
            self._finish(node, shown)

    def _tell_found(self) -> None:
        """What was in the cache, all of it before the first node that runs."""
        if self._found is None:
            return
        found, self._found = self._found, None
        self._keep("execution_cached", nodes=self._resting(found))
        for node, shown in found.items():
            if shown:
                self._finish(node, shown)

    def _finish(self, node: str, shown: Shown) -> None:
        if shown:
            self.shown[node] = shown
            self._message("executed", node=node, display_node=node, output=shown)
        self._state(node, "finished", 1, 1)

    def _state(self, node: str, state: str, value: float = 0, most: float = 1) -> None:
        self._states[node] = {
            "value": value, "max": most, "state": state, "node_id": node, "prompt_id": self._job,
            "display_node_id": node, "parent_node_id": None, "real_node_id": node,
        }  # fmt: skip
        self._message("progress_state", nodes=dict(self._states))

    def _tell_text(self, node: str) -> None:
        self._send(text_message(node, "".join(self._texts[node])))

    def _is_time(self, kind: str) -> bool:
        now = time.monotonic()
        if now < self._next[kind]:
            return False
        self._next[kind] = now + _OFTEN
        return True

    # -- its end ------------------------------------------------------------------------------------------------------

    def succeeded(self) -> None:
        """All has run."""
        self._tell_found()
        self._keep("execution_success")

    def interrupted(self) -> None:
        """It was stopped."""
        self._tell_found()
        self._keep("execution_interrupted", node_id=self.node, node_type=self._type(self.node), executed=self._executed)

    def failed(self, error: Exception, clean: Callable[[str], str] = str) -> None:
        """A node failed, or something around it; ``clean`` takes out of a text what nobody else should read."""
        self._tell_found()
        node = error.node if isinstance(error, NodeError) else self.node
        cause = error.cause if isinstance(error, NodeError) else error
        inputs = error.inputs if isinstance(error, NodeError) else {}
        self._keep(
            "execution_error", node_id=node, node_type=self._type(node), executed=self._executed,
            exception_message=clean(sentence(cause))[:MOST_TEXT], exception_type=type(cause).__name__, traceback=[],
            current_inputs={name: [clean(text)] for name, text in inputs.items()}, current_outputs=[],
        )  # fmt: skip

    def finished(self, status: Callable[[], None]) -> None:
        """Nothing runs any more; ``status`` tells everybody how many jobs wait now."""
        status()
        self._send(("executing", {"node": None, "prompt_id": self._job}))

    def result(self) -> dict[str, Any]:
        """What is kept of the job: what was shown, and the messages of its history."""
        return {"outputs": self.shown, "messages": [list(message) for message in self.kept]}

    @property
    def _executed(self) -> list[str]:
        return [node for node, state in self._states.items() if state["state"] == "finished"]

    def _type(self, node: str) -> str:
        return self._types.get(node, "")

    def _message(self, kind: str, **data: Any) -> tuple[str, dict[str, Any]]:
        message = (kind, {**data, "prompt_id": self._job})
        self._send(message)
        return message

    def _keep(self, kind: str, **data: Any) -> None:
        self.kept.append(self._message(kind, **data, timestamp=round(time.time() * 1000)))


def text_message(node: str, text: str) -> bytes:
    """All that a node has said so far."""
    name = node.encode()
    return struct.pack(">II", _TEXT, len(name)) + name + text.encode(errors="replace")


def status_message(remaining: int, session: str | None = None) -> Message:
    """How many jobs wait or run, and, in the first message of a connection, how the server calls it."""
    data: dict[str, Any] = {"status": {"exec_info": {"queue_remaining": remaining}}}
    return ("status", data | ({"sid": session} if session is not None else {}))


def sentence(error: BaseException) -> str:
    """What a failure says, with the hint what to do."""
    if isinstance(error, UserError):
        return error.message + (f" ({error.hint})" if error.hint else "")
    return f"{type(error).__name__}: {error}"
