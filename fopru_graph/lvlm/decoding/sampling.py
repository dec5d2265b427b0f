"""From logits to token ids, and from token ids to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import LogitsProcessorList

from fopru_graph.lvlm.decoding.finite import NotFinite, finite_rows, of_samples
from fopru_graph.lvlm.decoding.settings import logits_processors, wrong_setting
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt


class Sampler:
    """Picks the next token of every sample, and notices when all of them have ended.

    Args:
        family: its stop tokens end an answer.
        prompt: the prompts.
        arguments: what a node's inputs say, see `settings.node_arguments`; the checkpoint says the rest.
        seed: of the drawing.
    """

    def __init__(self, family: Family, prompt: Prompt, arguments: dict[str, Any], seed: int) -> None:
        self._family, self._prompt, self._arguments = family, prompt, arguments
        self._device = family.device
        self._processors: LogitsProcessorList | None = None
        self._ids: torch.Tensor  # (B, U + picked), which processors read
        self._stop = family.to_device(torch.tensor(sorted(family.stop_ids), dtype=torch.int64))
        self._pad = family.pad_id
        self._finished = torch.zeros(len(prompt.texts), dtype=torch.bool, device=self._device)
        self._finite = ~self._finished
        self._generator = torch.Generator(device=self._device).manual_seed(seed) if arguments["do_sample"] else None

    def pick(self, logits: torch.Tensor) -> torch.Tensor:
        """Next ids (B,) from logits (B, V); samples that have ended get padding."""
        logits = logits.to(self._device)
        self._finite &= finite_rows(logits) | self._finished
        if self._processors is None:  # made while the device is busy with the prompt
            self._ids = self._family.to_device(self._prompt.unpruned_ids)
            self._processors = logits_processors(self._family, self._ids, self._prompt.unpruned_mask, self._arguments)
        if not self._processors and self._generator is None:
            return torch.where(self._finished, self._pad, logits.argmax(-1))
        try:
            scores = self._processors(self._ids, logits.to(torch.float32, copy=True))  # some write into what they get
        except (ValueError, IndexError) as error:
            raise wrong_setting(error) from error
        if self._generator is None:
            ids = scores.argmax(-1)
        else:
            ids = torch.multinomial(torch.softmax(scores, -1), 1, generator=self._generator)[:, 0]
        ids = torch.where(self._finished, self._pad, ids)
        self._ids = torch.cat([self._ids, ids[:, None]], 1)
        return ids

    def all_finished(self, ids: torch.Tensor, scores_finite: Sequence[torch.Tensor] = ()) -> bool:
        """Whether every sample has a stop token now; waits until ``ids`` are known.

        Args:
            ids: (B,) of the last `pick`.
            scores_finite: () bool each, on any device: whether the scores that tokens were dropped by are finite.

        Raises:
            NotFinite: scores or logits are not finite.
        """
        self._finished = self._finished | torch.isin(ids, self._stop)
        flags = [self._finished, self._finite, *(flag.to(self._device).expand(len(ids)) for flag in scores_finite)]
        finished, finite, *scored = (all(samples) for samples in torch.stack(flags).tolist())
        if not all(scored):
            raise NotFinite("the scores that visual tokens were to be chosen by")
        if not finite:
            raise NotFinite(self._culprit())
        return finished

    def _culprit(self) -> str:
        """What is not finite, and in which prompt: the visual tokens, or logits that were made of finite ones."""
        prompt, bad = self._prompt, ~self._finite
        visual = bad & ~(prompt.embeds.isfinite().all(-1) | ~prompt.visual).all(1)
        what, rows = ("visual tokens", visual) if visual.any() else ("logits", bad)
        return f"the {what}{of_samples(rows.nonzero()[:, 0].tolist(), len(bad))}"


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
