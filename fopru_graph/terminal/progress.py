"""The progress of a run on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.status import Status
from rich.text import Text

from fopru_graph.graph.events import (
    Event,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeSkipped,
    NodeStarted,
    NodeText,
    RunFinished,
    RunWarning,
)
from fopru_graph.terminal.console import console, say, show_warning
from fopru_graph.terminal.stdout import stdout


class RunDisplay:
    """Takes the events of a run: shows the running node on stderr, and writes answers to stdout as they come.

    Args:
        labels: the nodes whose text is written, each with what stands in front of it.

    Attributes:
        streamed: the text of each of these nodes that was written so far, so that the caller does not print it again.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._status: Status | None = None
        self._open_line: str | None = None  # the node whose line has not ended
        self.streamed: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, NodeStarted):
            self._show_spinner(Text.assemble(event.node, (f" {event.type}", "dim")))
        elif isinstance(event, NodeProgress) and self._open_line is None:  # streamed text shows how far it is
            self._show_spinner(Text.assemble(f"{event.node} {event.i}/{event.n}", (f" {event.text}", "dim")))
        elif isinstance(event, NodeText) and event.node in self._labels:
            self._stop_spinner()
            if self._open_line != event.node:
                self._end_line()
                stdout.write(self._labels[event.node])
            self.streamed[event.node] = self.streamed.get(event.node, "") + event.chunk
            self._open_line = event.node
            stdout.write(event.chunk)
        elif isinstance(event, RunWarning):
            self._stop_spinner()
            self._end_line()
            show_warning(f"{event.node}: {event.message}")
        elif isinstance(event, NodeSkipped):
            say(("skipped:", "yellow"), f" {event.node}: {event.why}")
        elif isinstance(event, NodeFinished | NodeFailed | RunFinished):
            self._stop_spinner()
            self._end_line()

    def _end_line(self) -> None:
        """End the line of streamed text, so that a spinner or an error does not write over it."""
        if self._open_line is not None:
            stdout.write("\n")
            self._open_line = None

    def _show_spinner(self, text: Text) -> None:
        if self._status is None:
            self._status = console.status(text, spinner="dots")
            self._status.start()
        else:
            self._status.update(text)

    def _stop_spinner(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
