"""Answering prompts: prefill, then token by token until the stop token, with exact times, streaming and cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.captured import CapturedRunner
from fopru_graph.lvlm.decoding.kept import Survivors, check_pruners
from fopru_graph.lvlm.decoding.prefix_cache import keep_prefix, known_prefix
from fopru_graph.lvlm.decoding.runner import DecoderRunner, StockRunner
from fopru_graph.lvlm.decoding.sampling import Sampler
from fopru_graph.lvlm.decoding.segments import SegmentRunner, fits_segments
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt, build_prompt
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
        prompts: B prompts; see `prompt.distribute_images` for which images belong to which.
        pruners: pruning inside the language model, any chain.
        max_new_tokens: at most this many tokens, the stop token included.
        temperature: 0 takes the most likely token, above it samples with ``seed``.
        seed: of the sampling only.
        on_step: called after each token with its ids (B,) and logits (B, V); an exception from it ends the run cleanly.
            The logits may be overwritten by the next step.
        min_new_tokens: stop tokens are not taken before so many others.
        loop: how the decoder stack is driven (`stack`): ``auto`` takes ``static`` on CUDA and ``segments`` elsewhere,
            where the model allows them, and ``thin`` for all others. All agree.

    Returns:
        Texts, counts and times. ``prefill_ms`` runs from the embedded prompt's making to the first token's id.

    Raises:
        UserError: images, prompts or pruners do not fit the model, no token is asked for, or the model cannot be driven
            by ``loop``.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}", "an answer has at least one token")
    check_pruners(pruners, len(family.layers), family.first_cut)
    kind = _stack_for(family, loop)
    with family.lock:
        start = time.perf_counter()  # the device may still be busy with the image: the first token waits for both
        prompt = build_prompt(family, prompts, tokens)
        survivors = Survivors(
            pruners, prompt.visual, prompt.attention_mask.bool(), prompt.text_counts, prompt.visual_counts
        )
        sampler = Sampler(family, len(prompts), temperature, seed, min_new_tokens)
        with kind(family, prompt, survivors, max_new_tokens - 1) as stack:
            prefix = None if pruners else known_prefix(family, tokens, prompt)
            ids, times = _answer(stack, sampler, max_new_tokens, prefix, on_step)
            if not pruners:
                keep_prefix(family, tokens, prompt, stack.reusable())
            reused = 0 if prefix is None else prefix[0][0].shape[2]
            return _collect(stack, tokens, ids, [start, *times], reused)


def _stack_for(family: Family, loop: Loop) -> type[DecoderRunner]:
    if loop == "thin":
        return StockRunner
    if not fits_segments(family):
        if loop == "auto":
            return StockRunner
        config = family.language_model.config
        raise UserError(
            f"loop {loop!r} cannot drive {config.model_type!r} with {config._attn_implementation} attention",
            "use loop: auto or thin",
        )
    static = family.device.type == "cuda" and family.language_model.config._attn_implementation == "sdpa"
    return CapturedRunner if loop == "static" or (loop == "auto" and static) else SegmentRunner


def _answer(
    stack: DecoderRunner,
    sampler: Sampler,
    most: int,
    prefix: Sequence[tuple[torch.Tensor, torch.Tensor]] | None,
    on_step: OnStep | None,
) -> tuple[torch.Tensor, list[float]]:
    """Ids (B, new) and the time each token was known."""
    ids: list[torch.Tensor] = []
    times: list[float] = []
    logits = stack.prefill(prefix)
    while True:
        picked = sampler.pick(logits)
        ids.append(picked)
        done = sampler.all_finished(picked)  # also waits for the device, so the time below is the token's
        times.append(time.perf_counter())
        if on_step is not None:
            on_step(picked, logits)
        if done or len(ids) == most:
            return torch.stack(ids, 1), times
        logits = stack.step(picked)


def _collect(
    stack: DecoderRunner, tokens: VisualTokens, ids: torch.Tensor, times: list[float], reused: int
) -> Generation:
    """Read every figure of the finished run from its tensors."""
    family, prompt = stack.family, stack.prompt
    answers = [_until_stop(row, family.stop_ids) for row in ids.tolist()]
    visual = [stack.survivors.visual_in_layer(i) for i in range(len(family.layers))]
    filled = stack.filled()
    return Generation(
        prompts=prompt.texts,
        texts=tuple(family.processor.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers),
        token_ids=tuple(tuple(answer) for answer in answers),
        encoded=sum(tokens.encoded),
        projected=int(prompt.visual.sum()),
        visual_per_layer=tuple(int(seen.sum()) for seen in visual),
        kv_lengths=tuple(keys.shape[-2] for keys, _ in filled),
        kv_bytes=sum(t.numel() * t.element_size() for pair in filled for t in pair),
        prefill_ms=(times[1] - times[0]) * 1e3,
        step_ms=tuple((after - before) * 1e3 for before, after in zip(times[1:], times[2:], strict=False)),
        device=str(family.device),
        dtype=str(family.dtype).removeprefix("torch."),
        kept=_kept(prompt, tokens, visual[-1].cpu()),
        reused=reused,
    )


def _kept(prompt: Prompt, tokens: VisualTokens, last: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The origin (K, 2) of every image's rows that are alive where ``last`` (B, L) says so."""
    alive = torch.zeros(sum(map(len, tokens.origin)), dtype=torch.bool)
    alive[prompt.embedding_index[last]] = True
    parts = alive.split([len(origin) for origin in tokens.origin])
    return tuple(origin.cpu()[part] for origin, part in zip(tokens.origin, parts, strict=True))


def _until_stop(ids: list[int], stop: frozenset[int]) -> list[int]:
    """``ids`` up to and including the first stop token."""
    end = next((i + 1 for i, token in enumerate(ids) if token in stop), len(ids))
    return ids[:end]
