"""The default executor: prefill and decode over the stock decoder stack, with exact times, streaming and cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache

from fopru_graph.errors import UserError
from fopru_graph.lvlm.cut import Cuts, pruned
from fopru_graph.lvlm.family import Family
from fopru_graph.lvlm.prompt import Prompt, build_prompt
from fopru_graph.lvlm.sampling import pick_tokens
from fopru_graph.values import Generation, InLLMPruner, VisualTokens

OnStep = Callable[[torch.Tensor, torch.Tensor], None]


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

    Returns:
        Texts, counts and times. ``prefill_ms`` runs from the embedded prompt's making to the first token's id.

    Raises:
        UserError: images, prompts or pruners do not fit the model, or no token is asked for.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens must be at least 1, not {max_new_tokens}", "an answer has at least one token")
    with family.lock:
        start = _now(family)
        prompt = build_prompt(family, prompts, tokens)
        with pruned(family, pruners, prompt.visual, prompt.attention_mask) as cuts:
            ids, times, cache = _loop(family, prompt, max_new_tokens, temperature, seed, on_step)
        return _collect(family, tokens, prompt, cuts, ids, [start, *times], cache)


def _loop(
    family: Family, prompt: Prompt, max_new_tokens: int, temperature: float, seed: int, on_step: OnStep | None
) -> tuple[torch.Tensor, list[float], DynamicCache]:
    """Ids (B, new), the time each token was known, and the filled cache."""
    # A cache made without the config has full layers only: sliding windows are then kept by the mask, which can be cut.
    cache = DynamicCache()
    generator = torch.Generator(device=family.device).manual_seed(seed)
    mask = prompt.attention_mask if prompt.padded else None  # without padding no mask at all: the fast kernels
    positions = (prompt.attention_mask.cumsum(-1) - 1).clamp(min=0)
    stop = torch.tensor(sorted(family.stop_ids), device=family.device)
    pad = family.processor.tokenizer.pad_token_id or 0
    finished = torch.zeros(len(prompt.embeds), dtype=torch.bool, device=family.device)
    embeds, ids, times = prompt.embeds, [], []
    for _ in range(max_new_tokens):
        hidden = family.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        logits = family.logits(hidden).to(family.device)
        picked = torch.where(finished, pad, pick_tokens(logits, temperature, generator))
        finished = finished | torch.isin(picked, stop)
        ids.append(picked)
        done = bool(finished.all())  # also waits for the device, so the time below is the token's
        times.append(_now(family))
        if on_step is not None:
            on_step(picked, logits)
        if done:
            break
        embeds = family.model.get_input_embeddings()(picked[:, None])
        positions = positions[:, -1:] + 1
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    return torch.stack(ids, 1), times, cache


def _collect(
    family: Family,
    tokens: VisualTokens,
    prompt: Prompt,
    cuts: Cuts,
    ids: torch.Tensor,
    times: list[float],
    cache: DynamicCache,
) -> Generation:
    """Read every figure of the finished run from its tensors."""
    answers = [_until_stop(row, family.stop_ids) for row in ids.tolist()]
    visual = [cuts.visual_in_layer(i) for i in range(len(family.layers))]
    alive = set(prompt.row[visual[-1].to(prompt.row.device)].tolist())
    first, kept = 0, []
    for origin in tokens.origin:
        kept.append(origin[[first + i in alive for i in range(len(origin))]])
        first += len(origin)
    filled = cache.layers
    return Generation(
        prompts=prompt.texts,
        texts=tuple(family.processor.tokenizer.decode(answer, skip_special_tokens=True).strip() for answer in answers),
        token_ids=tuple(tuple(answer) for answer in answers),
        encoded=sum(tokens.encoded),
        projected=int(prompt.visual.sum()),
        visual_per_layer=tuple(int(seen.sum()) for seen in visual),
        kv_lengths=tuple(layer.keys.shape[-2] for layer in filled),
        kv_bytes=sum(t.numel() * t.element_size() for layer in filled for t in (layer.keys, layer.values)),
        prefill_ms=(times[1] - times[0]) * 1e3,
        step_ms=tuple((after - before) * 1e3 for before, after in zip(times[1:], times[2:], strict=False)),
        device=str(family.device),
        dtype=str(family.dtype).removeprefix("torch."),
        kept=tuple(kept),
    )


def _until_stop(ids: list[int], stop: frozenset[int]) -> list[int]:
    """``ids`` up to and including the first stop token."""
    end = next((i + 1 for i, token in enumerate(ids) if token in stop), len(ids))
    return ids[:end]


def _now(family: Family) -> float:
    """Seconds, after the device has finished all work queued so far."""
    if family.device.type == "cuda":
        torch.cuda.synchronize(family.device)
    return time.perf_counter()
