"""The one exception that every layer may raise for a mistake of the user's: a clear sentence and a hint."""

from __future__ import annotations


class UserError(Exception):
    """An expected failure: ``message`` is one clear sentence, ``hint`` says what to do about it (may be empty)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
