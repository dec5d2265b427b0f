"""Transformers' own ``generate`` with nothing added but a clock: the baseline of every speed-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache
from transformers.generation.streamers import BaseStreamer

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.generate import measured
from fopru_graph.lvlm.decoding.sampling import decode_text
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import chat_text, distribute_images
from fopru_graph.lvlm.inputs.token_ids import check_embedded
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.lvlm.loading.processor import PartsProcessor
from fopru_graph.values import Generation, Image


class _TokenClock(BaseStreamer):
    """Records when each token is known; the prompt, which comes first, is skipped."""

    def __init__(self, on_token: Callable[[], None] | None) -> None:
        self.times: list[float] = []
        self._on_token, self._prompt = on_token, True

    def put(self, value: torch.Tensor) -> None:
        """Take the ids of one step, on the CPU already."""
        if self._prompt:
            self._prompt = False
            return
        self.times.append(time.perf_counter())
        if self._on_token is not None:
            self._on_token()

    def end(self) -> None:
        """Nothing is held back."""


@torch.inference_mode()
def stock_generate(
    family: Family,
    images: Sequence[Image],
    prompt: str,
    max_new_tokens: int = 64,
    min_new_tokens: int = 0,
    on_token: Callable[[], None] | None = None,
) -> Generation:
    """Answer one prompt about ``images`` greedily with the stock processor and the stock ``generate``.

    Returns:
        As `generate.generate`, but ``prefill_ms`` includes the vision tower and the projector; ``preprocess_ms`` is
        the processor's time before it.

    Raises:
        UserError: images and prompt do not fit, or transformers' own processor does not load here.
    """
    if isinstance(family.processor, PartsProcessor):
        raise UserError(
            f"transformers' own processor of {family.model_type} does not load here: {family.processor.lacks}",
            "install what it asks for, often torchvision; pipelines without StockGenerate do without it",
        )
    begin = time.perf_counter()
    text = chat_text(family, prompt, distribute_images([prompt], len(images))[0])
    inputs = family.processor(text=text, images=[image.picture for image in images], return_tensors="pt")
    preprocess_ms = (time.perf_counter() - begin) * 1e3
    check_embedded(family, inputs["input_ids"][0].tolist())
    clock, cache = _TokenClock(on_token), DynamicCache(config=family.language_model.config)
    with family.lock:
        start = time.perf_counter()
        inputs = inputs.to(family.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(family.dtype)
        output = family.model.generate(
            **inputs,
            **{cache_argument(): cache},
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens or None,
            do_sample=False,
            streamer=clock,
        )
    new = tuple(output[0, inputs["input_ids"].shape[1] :].tolist())
    visual = int((inputs["input_ids"] == family.image_token_id).sum()) - family.newlines(images)
    return Generation(
        prompts=(prompt,),
        texts=(decode_text(family, new),),
        token_ids=(new,),
        encoded=visual,
        projected=visual,
        visual_per_layer=(visual,) * len(family.layers),
        kept=(),
        preprocess_ms=preprocess_ms,
        **measured(family, [(layer.keys, layer.values) for layer in cache.layers], start, clock.times),
    )
