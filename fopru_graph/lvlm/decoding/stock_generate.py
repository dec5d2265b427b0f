"""Transformers' own ``generate`` with a clock and a check for NaN and nothing else: the baseline of every speed-up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import DynamicCache
from transformers.generation.streamers import BaseStreamer

from fopru_graph.errors import UserError, first_line
from fopru_graph.lvlm.decoding.finite import NotFinite, finite_rows
from fopru_graph.lvlm.decoding.generate import measured
from fopru_graph.lvlm.decoding.limit import answer_limit, warn_cut
from fopru_graph.lvlm.decoding.sampling import decode_text
from fopru_graph.lvlm.decoding.settings import Decoding
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.chat import Question, as_question, chat_text, distribute_images
from fopru_graph.lvlm.inputs.prompt import span
from fopru_graph.lvlm.inputs.token_ids import check_embedded
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.lvlm.loading.generation import check_generation_config
from fopru_graph.lvlm.loading.processor import PartsProcessor
from fopru_graph.values import Generation, Image

# Settings of a checkpoint's that choose the form of what `generate` keeps and returns, and change no answer.
_READABLE = {"use_cache": True, "cache_implementation": None, "return_dict_in_generate": False}


class _TokenClock(BaseStreamer):
    """Records when each token is known and whether its logits are finite; the prompt, which comes first, is skipped."""

    def __init__(self, on_token: Callable[[], None] | None) -> None:
        self.times: list[float] = []
        self._on_token, self._prompt = on_token, True
        self._finite: list[torch.Tensor] = []

    def look(self, _head: Any, _inputs: Any, logits: torch.Tensor) -> None:
        """The hook of the output head."""
        self._finite.append(finite_rows(logits[:, -1]).all())

    def put(self, value: torch.Tensor) -> None:
        """Take the ids of one step, on the CPU already."""
        if self._prompt:
            self._prompt = False
            return
        self.times.append(time.perf_counter())
        if len(self.times) == 1:
            self.check()
        if self._on_token is not None:
            self._on_token()

    def end(self) -> None:
        """Nothing is held back."""
        self.check()

    def check(self) -> None:
        """Refuse logits that are not finite; waits for the last ones."""
        finite, self._finite = self._finite, []
        if finite and not torch.stack(finite).all():
            raise NotFinite("the logits")


@torch.inference_mode()
def stock_generate(
    family: Family,
    images: Sequence[Image],
    prompt: str | Question,
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    on_token: Callable[[], None] | None = None,
    repetition_penalty: float | None = None,
    stop: Sequence[str] = (),
) -> Generation:
    """Answer one prompt about ``images`` greedily with the stock processor and the stock ``generate``.

    Whatever else the checkpoint's generation_config says holds; for the other arguments see `settings.Decoding`.

    Returns:
        As `generate.generate`, but ``prefill_ms`` includes the vision tower and the projector; ``preprocess_ms`` is
        the processor's time before it.

    Raises:
        UserError: images and prompt do not fit, transformers' own processor does not load here, or as for `generate`.
    """
    check_generation_config(family.model.generation_config)
    if isinstance(family.processor, PartsProcessor):
        raise UserError(
            f"transformers' own processor of {family.model_type} does not load here: {family.processor.lacks}",
            "install what it asks for, often torchvision; pipelines without StockGenerate do without it",
        )
    begin = time.perf_counter()
    decoding = Decoding(max_new_tokens, min_new_tokens, repetition_penalty=repetition_penalty, stop=tuple(stop))
    question = as_question(prompt)
    text = chat_text(family, question, distribute_images(family, [question], len(images))[0])
    pictures = [image.picture for image in images] or None
    inputs = family.processor(text=text, images=pictures, return_tensors="pt")
    preprocess_ms = (time.perf_counter() - begin) * 1e3
    check_embedded(family, inputs["input_ids"][0].tolist())
    asked = inputs["input_ids"].shape[1]
    limit = answer_limit(family, [asked], [_span(family, inputs)], max_new_tokens, min_new_tokens)
    clock, cache = _TokenClock(on_token), DynamicCache(config=family.language_model.config)
    with family.lock, contextlib.ExitStack() as stack:
        stack.callback(family.model.lm_head.register_forward_hook(clock.look).remove)
        start = time.perf_counter()
        inputs = inputs.to(family.device)
        if images:
            inputs["pixel_values"] = inputs["pixel_values"].to(family.dtype)
        options = replace(decoding, max_new_tokens=limit).arguments() | _READABLE | {cache_argument(): cache}
        if stop:
            options |= {"stop_strings": list(stop), "tokenizer": family.processor.tokenizer}
        try:
            output = family.model.generate(**inputs, **options, streamer=clock)
        except ValueError as error:
            raise UserError(
                f"transformers' own generate refuses its input: {first_line(error)}",
                "look into the checkpoint's generation_config.json; pipelines without StockGenerate may do without it",
            ) from error
    new = tuple(output[0, asked:].tolist())
    text = decode_text(family, new)
    ended = new[-1] in family.stop_ids or any(end in text for end in stop)
    warn_cut(family, not ended, limit, max_new_tokens)
    visual = int((inputs["input_ids"] == family.image_token_id).sum()) - family.newlines(images)
    return Generation(
        prompts=(question.last,),
        texts=(decode_text(family, new, stop),),
        token_ids=(new,),
        encoded=visual,
        projected=visual,
        visual_per_layer=(visual,) * len(family.layers),
        kept=(),
        preprocess_ms=preprocess_ms,
        loop="stock",
        positions="original",
        ended=(ended,),
        **measured(family, [(layer.keys, layer.values) for layer in cache.layers], start, clock.times),
    )


def _span(family: Family, inputs: Mapping[str, torch.Tensor]) -> int:
    """The positions that the stock prompt takes."""
    ids, side = inputs["input_ids"][0].tolist(), family.patches**0.5
    grids = inputs.get("image_grid_thw", torch.empty(0, 3, dtype=torch.int64)).tolist()
    return span(ids, family.positions(ids, [(t, int(h / side), int(w / side)) for t, h, w in grids]))
