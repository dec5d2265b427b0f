"""What every layer may raise or warn of for the user: a clear sentence, with a hint if it ends the work."""

from __future__ import annotations


class UserError(Exception):
    """An expected failure: ``message`` is one clear sentence, ``hint`` says what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
        if hint:
            self.add_note(hint)  # a traceback ends with it


class Caution(UserWarning):
    """A sentence that the user should read, while the work goes on. The command line shows it like its own messages."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
