"""Answering prompts: prefill, then token by token until the stop token, with exact times, streaming and cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.captured import CapturedRunner
from fopru_graph.lvlm.decoding.finite import NotFinite
from fopru_graph.lvlm.decoding.kept import check_pruners
from fopru_graph.lvlm.decoding.limit import answer_limit, warn_cut
from fopru_graph.lvlm.decoding.prefix_cache import keep_prefix, known_prefix
from fopru_graph.lvlm.decoding.runner import DecoderRunner, KeyValues, StockRunner
from fopru_graph.lvlm.decoding.sampling import Sampler, decode_text
from fopru_graph.lvlm.decoding.segments import SegmentRunner, fits_segments
from fopru_graph.lvlm.decoding.settings import node_arguments
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt, build_prompt
from fopru_graph.lvlm.loading.generation import check_generation_config
from fopru_graph.values import Generation, InLLMPruner, VisualTokens

OnStep = Callable[[torch.Tensor, torch.Tensor], None]
Loop = Literal["auto", "thin", "segments", "static"]


@torch.inference_mode()
def generate(
    family: Family,
    tokens: VisualTokens,
    prompts: Sequence[str],
    pruners: Sequence[InLLMPruner] = (),
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
    on_step: OnStep | None = None,
    min_new_tokens: int = 0,
    loop: Loop = "auto",
) -> Generation:
    """Answer ``prompts`` about the images behind ``tokens``.

    Args:
        family: the model.
        tokens: projected visual tokens of all images, in prompt order.
        prompts: B prompts; `prompt.distribute_images` says which images belong to which.
        pruners: pruning inside the language model, in any number and at any layers.
        max_new_tokens: most tokens of an answer, the stop token included.
        temperature: 0 takes the most likely token; above 0 tokens are drawn with ``seed``, as the stock ``generate``
            draws them at that temperature.
        seed: of the sampling only.
        on_step: called after each token with its ids (B,) and logits (B, V); an exception from it ends the run cleanly.
            The logits may be overwritten by the next step.
        min_new_tokens: stop tokens are not taken before so many others; 0 leaves it to the checkpoint.
        loop: what drives the decoder: ``thin`` is `StockRunner`, ``segments`` is `SegmentRunner` and ``static`` is
            `CapturedRunner`. Where they fit the model, ``auto`` takes ``static`` on CUDA, ``segments`` elsewhere and
            with flash kernels; it takes ``thin`` for all other models. All give the same answers.

    All other settings of the checkpoint's generation_config hold, see `settings.logits_processors`. An answer ends
    where the model's positions do, with a warning.

    Returns:
        Texts, counts and times. ``prefill_ms`` includes embedding the prompt and ends when the first token's id is
        known.

    Raises:
        UserError: images, prompts or pruners do not fit the model, no token is asked for, ``loop`` cannot drive it,
            the checkpoint's generation_config has a setting that is not served, the prompt exceeds the model's
            positions, or what an answer follows from is not finite.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}", "an answer has at least one token")
    check_pruners(family, pruners)
    check_generation_config(family.model.generation_config)
    runner_class = _runner_class(family, loop)
    with family.lock:
        start = time.perf_counter()  # the device may still be busy with the image: the first token waits for both
        prompt = build_prompt(family, prompts, tokens)
        limit = answer_limit(family, prompt.lengths, prompt.spans, max_new_tokens, min_new_tokens)
        runner = runner_class(
            family, prompt, pruners, limit - 1, [] if pruners else known_prefix(family, tokens, prompt)
        )
        sampler = Sampler(family, prompt, node_arguments(limit, min_new_tokens, temperature), seed)
        try:
            with runner.hooks():
                ids, times = _answer(runner, sampler, tokens.scores_finite, limit, on_step)
        except NotFinite:
            family.forget()  # buffers that later prompts share may hold NaN, and 0 times NaN is NaN
            raise
        if not pruners:
            keep_prefix(family, tokens, prompt, runner.filled())
        generation = _collect(runner, tokens, ids, start, times)
    warn_cut(family, generation.token_ids, limit, max_new_tokens)
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
    runner: DecoderRunner, tokens: VisualTokens, ids: torch.Tensor, start: float, times: Sequence[float]
) -> Generation:
    """Read every figure of the finished run from its tensors."""
    family, prompt = runner.family, runner.prompt
    answers = [_until_stop(sample, family.stop_ids) for sample in ids.tolist()]
    visual = [runner.cuts.visual_in_layer(layer) for layer in range(len(family.layers))]
    return Generation(
        prompts=prompt.texts,
        texts=tuple(decode_text(family, answer) for answer in answers),
        token_ids=tuple(map(tuple, answers)),
        encoded=sum(tokens.encoded),
        projected=int(prompt.visual.sum()),
        visual_per_layer=tuple(int(seen.sum()) for seen in visual),
        kept=_kept(prompt, tokens, visual[-1].cpu()),
        reused=runner.reused,
        loop=runner.loop,
        captured=runner.captured,
        once=runner.once,
        **measured(family, runner.filled(), start, times),
    )


def measured(family: Family, filled: Sequence[KeyValues], start: float, times: Sequence[float]) -> dict[str, Any]:
    """The fields of `Generation` that are read from KV caches and clocks; ``times`` are those of the tokens."""
    return {
        "kv_lengths": tuple(keys.shape[-2] for keys, _ in filled),
        "kv_bytes": sum(part.numel() * part.element_size() for pair in filled for part in pair),
        "prefill_ms": (times[0] - start) * 1e3,
        "step_ms": tuple((after - before) * 1e3 for before, after in pairwise(times)),
        "device": str(family.device),
        "dtype": str(family.dtype).removeprefix("torch."),
    }


def _kept(prompt: Prompt, tokens: VisualTokens, last: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Each image's origins (K, 2) of the visual tokens that the last layer sees, ``last`` (B, L) bool."""
    seen = torch.zeros(sum(map(len, tokens.origin)), dtype=torch.bool)
    seen[prompt.embedding_index[last]] = True
    parts = seen.split([len(origin) for origin in tokens.origin])
    return tuple(origin.cpu()[part] for origin, part in zip(tokens.origin, parts, strict=True))


def _until_stop(ids: list[int], stop: frozenset[int]) -> list[int]:
    """``ids`` up to and including the first stop token."""
    end = next((i + 1 for i, token in enumerate(ids) if token in stop), len(ids))
    return ids[:end]
