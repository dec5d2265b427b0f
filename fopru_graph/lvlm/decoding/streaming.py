"""Text as it is generated, cut where it can no longer change."""

from __future__ import annotations

from collections.abc import Callable

from fopru_graph.lvlm.families.family import Family


class TextStream:
    """Turns token ids into pieces of text: a character whose bytes are not all there yet is held back.

    Args:
        family: whose tokenizer decodes.
        emit: called with each piece; all pieces joined are the decoded answer.
    """

    def __init__(self, family: Family, emit: Callable[[str], None]) -> None:
        self._tokenizer, self._stop = family.processor.tokenizer, family.stop_ids
        self._emit = emit
        self._ids: list[int] = []
        self._shown = ""

    def put(self, token: int) -> None:
        """Take one more token; stop tokens and unfinished characters show nothing."""
        if token not in self._stop:
            self._ids.append(token)
            self._show(final=False)

    def end(self) -> None:
        """Show what was held back."""
        self._show(final=True)

    def _show(self, final: bool) -> None:
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True).strip()
        if (final or not text.endswith("\ufffd")) and len(text) > len(self._shown):
            self._emit(text[len(self._shown) :])
            self._shown = text
