"""stdout: the results of a command and nothing else, whatever it can encode and whoever else prints.

While a command works, what nodes and their libraries print goes to stderr. Writing never fails in the middle of the
work: that stdout is full or closed is kept as `Stdout.failure` until the end.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from fopru_graph.graph import Problem


class Stream(io.TextIOBase):
    """A text stream that goes on when it cannot write, and that writes an escape for what its encoding lacks.

    Attributes:
        failure: why something could not be written; None if everything was.
    """

    def __init__(self, target: TextIO | None = None) -> None:
        self.failure: OSError | None = None
        self._target = target

    @property
    def target(self) -> TextIO:
        """The real stream; ``sys.stdout`` while the program does not run."""
        return self._target or sys.stdout

    def write(self, text: str) -> int:
        """Write the text as it is, and flush; bytes are refused also where nothing is written any more.

        Libraries find out by such a call whether a stream takes bytes, and remember the answer.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.failure is None:
            try:
                self.target.write(text)
                self.target.flush()
            except OSError as error:
                self.failure = error
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Nothing: every write is flushed."""

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self.target.isatty()

    def fileno(self) -> int:
        """The number of the real stream, if it has one."""
        return self.target.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # as every text stream has it
        """That of the real stream."""
        return self.target.encoding or "utf-8"

    def _give_up(self) -> None:
        """Let the interpreter flush what is left into nothing; it would report the failure a second time."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.target.fileno())
            os.close(null)


class Stdout(Stream):
    """The stream of results."""

    def __init__(self) -> None:
        super().__init__()
        self._as_json = self._written = False
        self._error: dict[str, Any] | None = None

    def write(self, text: str) -> int:
        """Write the text as it is."""
        self._written = self._written or bool(text)
        return super().write(text)

    # -- results ------------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Write a text and end its line."""
        self.write(f"{text}\n")

    def json(self, data: Any, indent: int | None = None) -> None:
        """Write JSON; as ASCII where the encoding is not UTF-8, because its escapes for bytes are not those of JSON."""
        utf_8 = codecs.lookup(self.encoding).name == "utf-8"
        self.line(json.dumps(data, ensure_ascii=not utf_8, indent=indent))

    def note_error(
        self,
        message: str,
        hint: str | None = None,
        *,
        location: str | None = None,
        node: str | None = None,
        raised_at: str | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        """Remember why the command fails. With ``--json`` it is what stdout has in place of a result."""
        self._error = {
            "message": message,
            "hint": hint,
            "location": location,
            "node": node,
            "raised_at": raised_at,
            "problems": [problem.to_json() for problem in problems],
        }

    # -- the life of the program --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self, as_json: bool) -> Iterator[None]:
        """Stand in for ``sys.stdout``, and a stream that goes on for ``sys.stderr``.

        ``as_json``: a failed command without a result writes an error object.
        """
        before = sys.stdout, sys.stderr
        with contextlib.ExitStack() as stack:
            self._target, errors = (stack.enter_context(_with_escapes(stream)) for stream in before)
            self._as_json, self.failure = as_json, None
            self.begin()
            sys.stdout, sys.stderr = self, Stream(errors)
            try:
                yield
            finally:
                sys.stdout, sys.stderr = before
                self._target = None

    def begin(self) -> None:
        """Forget what was written, before a command's result, or the next of several."""
        self._written, self._error = False, None

    def finish(self, code: int) -> int:
        """The exit code of a command that ended with ``code``, after the error object that may be due."""
        if code and self._as_json and not self._written:
            if self._error is None:
                self.note_error("interrupted" if code == 130 else f"the command ended with exit code {code}")
            self.json({"error": self._error})
        return code or (1 if self.failure is not None else 0)

    @property
    def was_cut(self) -> bool:
        """Whether nobody reads stdout any more, e.g. ``head`` that has its lines: no reason to complain."""
        return self.failure is not None and self.failure.errno == errno.EPIPE

    @contextlib.contextmanager
    def only_results(self) -> Iterator[None]:
        """Send everything that is not written through this object to stderr, what libraries and children write too."""
        with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError, ValueError):  # streams that are no files, as in tests and notebooks
                self._move_to_free_descriptor(stack)
            yield

    def _move_to_free_descriptor(self, stack: contextlib.ExitStack) -> None:
        stream = self.target
        number, errors = stream.fileno(), sys.stderr.fileno()
        if number != 1:
            return
        copy = os.dup(number)
        stack.callback(os.close, copy)
        moved = open(copy, "w", encoding=stream.encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.dup2(errors, number)
        stack.callback(setattr, self, "_target", stream)
        stack.callback(os.dup2, copy, number)
        self._target = moved


@contextlib.contextmanager
def _with_escapes(stream: TextIO | None) -> Iterator[TextIO]:
    """The stream with escapes for what its encoding lacks; nothing is written to one that is closed (None)."""
    if stream is None:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            yield nothing
    elif isinstance(stream, io.TextIOWrapper):
        errors = stream.errors
        stream.reconfigure(errors="backslashreplace")
        try:
            yield stream
        finally:
            if not stream.closed:
                stream.reconfigure(errors=errors)
    else:
        yield stream


stdout = Stdout()
