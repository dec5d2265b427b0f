"""The one exception that every layer may raise for a mistake of the user's: a clear sentence and a hint."""

from __future__ import annotations


class UserError(Exception):
    """An expected failure: ``message`` is one clear sentence, ``hint`` says what to do about it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
