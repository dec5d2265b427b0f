"""The progress of a run on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from fopru_graph.graph.events import (
    Event,
    NodeFailed,
    NodeFinished,
    NodeProgress,
    NodeStarted,
    NodeText,
    RunFinished,
    RunWarning,
)
from fopru_graph.terminal.console import console, show_warning


class RunDisplay:
    """Takes the events of a run: shows the running node on stderr, and writes generated text to stdout as it comes.

    ``streamed`` is the text that was written so far, so that the caller does not print it again.
    """

    def __init__(self, stream_text: bool) -> None:
        self._stream_text = stream_text
        self._out = Console(highlight=False)
        self._status: Status | None = None
        self._open_line = False
        self.streamed = ""

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, NodeStarted):
            self._show_spinner(f"{event.node} [dim]{event.type}[/]")
        elif isinstance(event, NodeProgress):
            self._show_spinner(f"{event.node} {event.i}/{event.n} [dim]{escape(event.text)}[/]")
        elif isinstance(event, NodeText) and self._stream_text:
            self._stop_spinner()
            self.streamed += event.chunk
            self._open_line = True
            self._out.print(event.chunk, end="", markup=False, soft_wrap=True)
            self._out.file.flush()
        elif isinstance(event, RunWarning):
            self._stop_spinner()
            self._end_line()
            show_warning(f"{event.node}: {event.message}")
        elif isinstance(event, NodeFinished | NodeFailed | RunFinished):
            self._stop_spinner()
            self._end_line()

    def _end_line(self) -> None:
        """End the line of streamed text, so that a spinner or an error does not write over it."""
        if self._open_line:
            self._out.print()
            self._open_line = False

    def _show_spinner(self, text: str) -> None:
        if self._status is None:
            self._status = console.status(text, spinner="dots")
            self._status.start()
        else:
            self._status.update(text)

    def _stop_spinner(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
