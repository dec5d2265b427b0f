"""From logits to token ids, and from token ids to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fopru_graph.lvlm.families.family import Family


class Sampler:
    """Picks the next token of every sample, and notices when all of them have ended.

    Args:
        family: its stop tokens end an answer.
        batch: number of samples B.
        temperature: 0 takes the most likely token; above 0 tokens are drawn from softmax(logits / temperature).
        seed: of the drawing.
        min_new_tokens: stop tokens are not taken before so many others.
    """

    def __init__(self, family: Family, batch: int, temperature: float, seed: int, min_new_tokens: int = 0) -> None:
        self._temperature, self._min_new_tokens, self._picked = temperature, min_new_tokens, 0
        self._stop = torch.tensor(sorted(family.stop_ids), device=family.device) if family.stop_ids else None
        self._pad = family.pad_id
        self._finished = torch.zeros(batch, dtype=torch.bool, device=family.device)
        self._device = family.device
        self._generator = torch.Generator(device=family.device).manual_seed(seed) if temperature else None

    def pick(self, logits: torch.Tensor) -> torch.Tensor:
        """Next ids (B,) from logits (B, V); samples that have ended get padding."""
        logits = logits.to(self._device)
        if self._stop is not None and self._picked < self._min_new_tokens:
            logits = logits.index_fill(1, self._stop, -torch.inf)
        self._picked += 1
        if self._generator is None:
            ids = logits.argmax(-1)
        else:
            probabilities = torch.softmax(logits.float() / self._temperature, -1)
            ids = torch.multinomial(probabilities, 1, generator=self._generator)[:, 0]
        return ids if self._stop is None else torch.where(self._finished, self._pad, ids)

    def all_finished(self, ids: torch.Tensor) -> bool:
        """Whether every sample has a stop token now; waits until ``ids`` are known."""
        if self._stop is None:
            ids.cpu()
            return False
        self._finished = self._finished | torch.isin(ids, self._stop)
        return bool(self._finished.all())


def decode_text(family: Family, ids: Sequence[int]) -> str:
    """The text of an answer's token ids, without special tokens."""
    return str(family.processor.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


class TextStream:
    """Emits text while its tokens are generated; a character whose bytes are not all there yet is held back.

    Args:
        family: its tokenizer decodes.
        emit: called with each piece; all pieces joined are the decoded answer.
    """

    def __init__(self, family: Family, emit: Callable[[str], None]) -> None:
        self._family, self._emit = family, emit
        self._ids: list[int] = []
        self._shown = 0  # characters

    def put(self, token: int) -> None:
        """Take one more token; stop tokens and unfinished characters show nothing."""
        if token not in self._family.stop_ids:
            self._ids.append(token)
            self._show(final=False)

    def end(self) -> None:
        """Show what was held back."""
        self._show(final=True)

    def _show(self, final: bool) -> None:
        text = decode_text(self._family, self._ids)
        if (final or not text.endswith("\ufffd")) and len(text) > self._shown:
            self._emit(text[self._shown :])
            self._shown = len(text)
