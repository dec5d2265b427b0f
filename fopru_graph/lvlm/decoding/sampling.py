"""From logits to token ids, and from token ids to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import LogitsProcessorList
from transformers.generation.stopping_criteria import StopStringCriteria

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.finite import NotFinite, finite_rows, of_samples
from fopru_graph.lvlm.decoding.settings import Decoding, logits_processors, wrong_setting
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt


class Sampler:
    """Picks the next token of every sample, and notices when all of them have ended.

    Args:
        family: its stop tokens end an answer.
        prompt: the prompts.
        decoding: what a node's inputs say; the checkpoint says the rest.
        logprobs: keep the log-probability of every token that is picked.
    """

    def __init__(self, family: Family, prompt: Prompt, decoding: Decoding, logprobs: bool = False) -> None:
        self._family, self._prompt, self._arguments = family, prompt, decoding.arguments()
        self._device = family.device
        self._processors: LogitsProcessorList | None = None
        self._ids: torch.Tensor  # (B, U + picked), which processors and stop strings read
        self._stop = family.to_device(torch.tensor(sorted(family.stop_ids), dtype=torch.int64))
        self._strings = _stop_strings(family, decoding.stop) if decoding.stop else None
        self._pad, self.stop = family.pad_id, decoding.stop
        self._finished = torch.zeros(len(prompt.texts), dtype=torch.bool, device=self._device)
        self._finite = ~self._finished
        # Counted on the host, from what it reads after every token anyway.
        self.ended = [False] * len(prompt.texts)  # which answers have come to their end
        self.lengths = [0] * len(prompt.texts)  # tokens of each answer so far, the one that ended it included
        self._logprobs: list[torch.Tensor] | None = [] if logprobs else None
        drawn = decoding.temperature > 0
        self._generator = torch.Generator(device=self._device).manual_seed(decoding.seed) if drawn else None

    def pick(self, logits: torch.Tensor) -> torch.Tensor:
        """Next ids (B,) from logits (B, V); samples that have ended get padding."""
        logits = logits.to(self._device)
        self._finite &= finite_rows(logits) | self._finished
        if self._processors is None:  # made while the device is busy with the prompt
            self._ids = self._family.to_device(self._prompt.unpruned_ids)
            self._processors = logits_processors(self._family, self._ids, self._prompt.unpruned_mask, self._arguments)
        ids = torch.where(self._finished, self._pad, self._choose(logits))
        if self._processors or self._generator is not None or self._strings is not None:
            self._ids = torch.cat([self._ids, ids[:, None]], 1)
        if self._logprobs is not None:
            self._logprobs.append(torch.log_softmax(logits.float(), -1).gather(1, ids[:, None])[:, 0])
        return ids

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        if not self._processors and self._generator is None:
            return logits.argmax(-1)
        assert self._processors is not None
        try:
            scores = self._processors(self._ids, logits.to(torch.float32, copy=True))  # some write into what they get
        except (ValueError, IndexError) as error:
            raise wrong_setting(error) from error
        if self._generator is None:
            return scores.argmax(-1)
        return torch.multinomial(torch.softmax(scores, -1), 1, generator=self._generator)[:, 0]

    def all_finished(self, ids: torch.Tensor, scores_finite: Sequence[torch.Tensor] = ()) -> bool:
        """Whether every sample has ended now; waits until ``ids`` are known.

        Args:
            ids: (B,) of the last `pick`.
            scores_finite: () bool each, on any device: whether the scores that tokens were dropped by are finite.

        Raises:
            NotFinite: scores or logits are not finite.
        """
        self._finished = self._finished | torch.isin(ids, self._stop)
        if self._strings is not None:
            self._finished = self._finished | self._strings(self._ids, None)
        flags = [self._finished, self._finite, *(flag.to(self._device).expand(len(ids)) for flag in scores_finite)]
        finished, *checks = torch.stack(flags).tolist()
        self.lengths = [length + (not ended) for length, ended in zip(self.lengths, self.ended, strict=True)]
        self.ended = finished
        finite, *scored = map(all, checks)
        if not all(scored):
            raise NotFinite("the scores that visual tokens were to be chosen by")
        if not finite:
            raise NotFinite(self._culprit())
        return all(finished)

    @property
    def logprobs(self) -> list[list[float]]:
        """Each answer's log-probabilities of its tokens, as the model gave them, before anything changed logits."""
        kept = torch.stack(self._logprobs, 1).tolist() if self._logprobs else []
        return [row[:length] for row, length in zip(kept, self.lengths, strict=True)] if kept else []

    def _culprit(self) -> str:
        """What is not finite, and in which prompt: the visual tokens, or logits that were made of finite ones."""
        prompt, bad = self._prompt, ~self._finite
        visual = bad & ~(prompt.embeds.isfinite().all(-1) | ~prompt.visual).all(1)
        what, rows = ("visual tokens", visual) if visual.any() else ("logits", bad)
        return f"the {what}{of_samples(rows.nonzero()[:, 0].tolist(), len(bad))}"


def _stop_strings(family: Family, stop: Sequence[str]) -> StopStringCriteria:
    try:
        return StopStringCriteria(family.processor.tokenizer, list(stop))
    except ValueError as error:  # it searches the vocabulary, which must spell its tokens as they appear in texts
        raise UserError(
            "transformers cannot look for texts of `stop` in what this model's tokenizer writes",
            "leave stop out, and cut the answer yourself",
        ) from error


def decode_text(family: Family, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
    """The text of an answer's token ids, without special tokens, up to the first of the strings that end it."""
    text = str(family.processor.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
    return text[: min(found for found in (len(text), *map(text.find, stop)) if found >= 0)]


class TextStream:
    """Emits text while its tokens are generated.

    Held back is a character whose bytes are not all there yet, and what may become a string that ends the answer.

    Args:
        family: its tokenizer decodes.
        emit: called with each piece; all pieces joined are the decoded answer.
        stop: strings that end the answer.
    """

    def __init__(self, family: Family, emit: Callable[[str], None], stop: Sequence[str] = ()) -> None:
        self._family, self._emit, self._stop = family, emit, stop
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
        text = decode_text(self._family, self._ids, self._stop)
        if not final:
            begun = (n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
            text = text[: len(text) - max(begun, default=0)]
        if (final or not text.endswith("\ufffd")) and len(text) > self._shown:
            self._emit(text[self._shown :])
            self._shown = len(text)
