"""Answering prompts: prefill, then token by token until the stop token, with exact times, streaming and cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.captured import CapturedRunner
from fopru_graph.lvlm.decoding.finite import NotFinite
from fopru_graph.lvlm.decoding.limit import answer_limit, warn_cut
from fopru_graph.lvlm.decoding.prefix_cache import keep_prefix, known_prefix
from fopru_graph.lvlm.decoding.runner import DecoderRunner, KeyValues, StockRunner, check_places
from fopru_graph.lvlm.decoding.sampling import Sampler, decode_text
from fopru_graph.lvlm.decoding.segments import SegmentRunner, fits_segments
from fopru_graph.lvlm.decoding.settings import Decoding
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.chat import Question
from fopru_graph.lvlm.inputs.positions import Numbering
from fopru_graph.lvlm.inputs.prompt import Prompt, build_prompt
from fopru_graph.lvlm.loading.generation import check_generation_config
from fopru_graph.values import Generation, InLLMPruner, PromptFigures, VisualTokens

OnStep = Callable[[torch.Tensor, torch.Tensor], None]
Loop = Literal["auto", "thin", "segments", "static"]


@torch.inference_mode()
def generate(
    family: Family,
    tokens: VisualTokens | None,
    prompts: Sequence[str | Question],
    pruners: Sequence[InLLMPruner] = (),
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    on_step: OnStep | None = None,
    min_new_tokens: int = 0,
    loop: Loop = "auto",
    top_p: float | None = None,
    top_k: int | None = None,
    repetition_penalty: float | None = None,
    stop: Sequence[str] = (),
    logprobs: bool = False,
    positions: Numbering | None = None,
) -> Generation:
    """Answer ``prompts`` about the images behind ``tokens``; without tokens they are questions about no image.

    Args:
        family: the model.
        tokens: projected visual tokens of all images, in prompt order.
        prompts: B questions; `chat.distribute_images` says which images belong to which.
        pruners: pruning inside the language model, in any number and at any layers.
        max_new_tokens, temperature, seed, min_new_tokens, top_p, top_k, repetition_penalty, stop: see `Decoding`.
        on_step: called after each token with its ids (B,) and logits (B, V); an exception from it ends the run cleanly.
            The logits may be overwritten by the next step.
        loop: what drives the decoder: ``thin`` is `StockRunner`, ``segments`` is `SegmentRunner` and ``static`` is
            `CapturedRunner`. Where they fit the model, ``auto`` takes ``static`` on CUDA, ``segments`` elsewhere and
            with flash kernels; it takes ``thin`` for all other models. All give the same
            answers but for rounding; ``thin`` rounds as stock does.
        positions: which positions kept tokens have before the language model and inside it, see `inputs.positions`;
            None: before it original where the model numbers on several axes and else renumbered, inside it original.
        logprobs: return the log-probability of each token, as the model gave it, before anything changed its logits.

    All other settings of the checkpoint's generation_config hold, see `settings.logits_processors`. An answer ends
    where the model's positions do, with a warning.

    Returns:
        Texts, counts and times. ``prefill_ms`` includes embedding the prompt and ends when the first token's id is
        known.

    Raises:
        UserError: images, prompts or pruners do not fit the model, a setting is out of range, ``loop`` cannot drive it,
            the checkpoint's generation_config has a setting that is not served, the prompt exceeds the model's
            positions, or what an answer follows from is not finite.
    """
    decoding = Decoding(
        max_new_tokens, min_new_tokens, temperature, seed, top_p, top_k, repetition_penalty, tuple(stop)
    )
    tokens = tokens or VisualTokens((), (), ())
    check_generation_config(family.model.generation_config)
    runner_class = _runner_class(family, loop)
    with family.lock:
        start = time.perf_counter()  # the device may still be busy with the image: the first token waits for both
        prompt = build_prompt(family, prompts, tokens, positions)
        if runner_class is StockRunner:
            check_places(family, prompt)
        limit = answer_limit(family, prompt.lengths, prompt.spans, max_new_tokens, min_new_tokens)
        runner = runner_class(
            family, prompt, pruners, limit - 1, [] if pruners else known_prefix(family, tokens, prompt)
        )
        sampler = Sampler(family, prompt, replace(decoding, max_new_tokens=limit), logprobs)
        try:
            with runner.hooks():
                ids, times = _answer(runner, sampler, tokens.scores_finite, limit, on_step)
        except NotFinite:
            family.forget()  # buffers that later prompts share may hold NaN, and 0 times NaN is NaN
            raise
        if not pruners:
            keep_prefix(family, tokens, prompt, ids[0].tolist(), runner.filled())
        generation = _collect(runner, tokens, ids, start, times, sampler)
    warn_cut(family, not all(sampler.ended), limit, max_new_tokens)
    return generation


def _runner_class(family: Family, loop: Loop) -> type[DecoderRunner]:
    config, fits = family.language_model.config, fits_segments(family)
    if loop == "thin" or (loop == "auto" and not fits):
        return StockRunner
    if not fits:
        kernel = f"{config._attn_implementation} attention"
        raise UserError(f"loop {loop!r} cannot drive {config.model_type!r} with {kernel}", "use loop: auto or thin")
    if loop == "static" and config._attn_implementation not in ("sdpa", "eager"):
        raise UserError("loop 'static' hides keys by masks, which flash kernels do not take", "use loop: auto")
    capturable = family.device.type == "cuda" and config._attn_implementation == "sdpa"
    return CapturedRunner if loop == "static" or (loop == "auto" and capturable) else SegmentRunner


def _answer(
    runner: DecoderRunner,
    sampler: Sampler,
    scores_finite: torch.Tensor | None,
    max_new_tokens: int,
    on_step: OnStep | None,
) -> tuple[torch.Tensor, list[float]]:
    """Ids (B, new) and the time at which each token was known."""
    ids: list[torch.Tensor] = []
    times: list[float] = []
    logits = runner.prefill()
    unread = [*([] if scores_finite is None else [scores_finite]), *runner.cuts.scores_finite]
    while True:
        ids.append(sampler.pick(logits))
        done = sampler.all_finished(ids[-1], unread)  # also waits for the device, so the time below is the token's
        times.append(time.perf_counter())
        unread = []
        if on_step is not None:
            on_step(ids[-1], logits)
        if done or len(ids) == max_new_tokens:
            return torch.stack(ids, 1), times
        logits = runner.step(ids[-1])


def _collect(
    runner: DecoderRunner,
    tokens: VisualTokens,
    ids: torch.Tensor,
    start: float,
    times: Sequence[float],
    sampler: Sampler,
) -> Generation:
    """Read every figure of the finished run from its tensors."""
    family, prompt = runner.family, runner.prompt
    answers = [sample[:length] for sample, length in zip(ids.tolist(), sampler.lengths, strict=True)]
    visual = [runner.cuts.visual_in_layer(layer) for layer in range(len(family.layers))]
    return Generation(
        prompts=prompt.texts,
        texts=tuple(decode_text(family, answer, sampler.stop) for answer in answers),
        token_ids=tuple(map(tuple, answers)),
        encoded=sum(tokens.encoded),
        projected=int(prompt.visual.sum()),
        visual_per_layer=tuple(int(seen.sum()) for seen in visual),
        kept=kept_origins(prompt, tokens, visual[-1].cpu()),
        reused=runner.reused,
        loop=runner.loop,
        captured=runner.captured,
        once=runner.once,
        positions=prompt.numbering,
        logprobs=tuple(map(tuple, sampler.logprobs)),
        ended=tuple(sampler.ended),
        each=_each(runner, tokens, visual, sampler.lengths) if len(answers) > 1 else (),
        **measured(family, runner.filled(), start, times),
    )


def _each(
    runner: DecoderRunner, tokens: VisualTokens, visual: Sequence[torch.Tensor], new: Sequence[int]
) -> tuple[PromptFigures, ...]:
    """The figures of every prompt; ``visual`` (B, L) are the visual tokens that each layer sees, ``new`` are (B,)."""
    prompt, held = runner.prompt, runner.filled()
    seen = torch.stack([layer.sum(1) for layer in visual], 1).tolist()
    real = torch.stack([runner.cuts.at(layer).real.sum(1) for layer in range(len(held))], 1).tolist()
    # Of what a layer holds, every token of every prompt takes the same number of bytes.
    token_bytes = [
        sum(part.element_size() * part.numel() // (part.shape[0] * part.shape[-2]) for part in pair) for pair in held
    ]
    encoded = iter(tokens.encoded)
    figures = []
    for sample, images in enumerate(prompt.images):
        lengths = tuple(length + new[sample] - 1 for length in real[sample])  # the last token's are never computed
        figures.append(
            PromptFigures(
                encoded=sum(next(encoded) for _ in images),
                projected=prompt.visual_counts[sample],
                visual_per_layer=tuple(seen[sample]),
                new_tokens=new[sample],
                kv_lengths=lengths,
                kv_bytes=sum(length * size for length, size in zip(lengths, token_bytes, strict=True)),
            )
        )
    return tuple(figures)


def measured(family: Family, filled: Sequence[KeyValues], start: float, times: Sequence[float]) -> dict[str, Any]:
    """The fields of `Generation` that are read from KV caches and clocks; ``times`` are those of the tokens."""
    return {
        **held(filled),
        "prefill_ms": (times[0] - start) * 1e3,
        "step_ms": tuple((after - before) * 1e3 for before, after in pairwise(times)),
        "device": str(family.device),
        "dtype": str(family.dtype).removeprefix("torch."),
    }


def held(filled: Sequence[KeyValues]) -> dict[str, Any]:
    """The fields of `Generation` that are read from KV caches."""
    return {
        "kv_lengths": tuple(keys.shape[-2] for keys, _ in filled),
        "kv_bytes": sum(part.numel() * part.element_size() for pair in filled for part in pair),
    }


def kept_origins(prompt: Prompt, tokens: VisualTokens, last: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Each image's origins (K, 2) of the visual tokens that the last layer sees, ``last`` (B, L) bool."""
    seen = torch.zeros(sum(map(len, tokens.origin)), dtype=torch.bool)
    seen[prompt.embedding_index[last]] = True
    parts = seen.split([len(origin) for origin in tokens.origin])
    return tuple(origin.cpu()[part] for origin, part in zip(tokens.origin, parts, strict=True))
