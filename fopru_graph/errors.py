"""The one exception that every layer may raise for a mistake of the user's: a clear sentence and a hint."""

from __future__ import annotations


class UserError(Exception):
    """An expected failure: ``message`` is one clear sentence, ``hint`` says what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
