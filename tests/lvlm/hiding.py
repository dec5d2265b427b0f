"""The slow, obvious way to prune inside any language model: nothing is dropped, keys are hidden in stock masks."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt

Cut = tuple[int, float]  # first short layer, share of the visual tokens kept


@contextlib.contextmanager
def _hiding(family: Family, hidden: Sequence[set[int]]) -> Iterator[None]:
    """Every layer gets its mask with some key columns hidden from all but themselves."""

    def before(index: int) -> Any:
        def hide(_layer: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            mask = given["attention_mask"].clone()  # (1, 1, L, L) additive: eager attention
            for key in hidden[index]:
                diagonal = mask[:, :, key, key].clone()
                mask[:, :, :, key] = torch.finfo(mask.dtype).min
                mask[:, :, key, key] = diagonal
            return args, given | {"attention_mask": mask}

        return hide

    hooks = [layer.register_forward_pre_hook(before(i), with_kwargs=True) for i, layer in enumerate(family.layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def answer_by_hiding(
    eager: Family, prompt: Prompt, cuts: Sequence[Cut], steps: int, dropped: Collection[int] = ()
) -> tuple[list[int], torch.Tensor, list[set[int]]]:
    """Greedy answer to one unpadded prompt: ids, logits (steps, V), and each layer's hidden prompt positions.

    ``dropped`` are positions that no layer sees. The whole sequence runs anew at every step, through the stock forward
    with eager attention and without a cache.
    """
    depth = len(eager.layers)
    hidden: list[set[int]] = [set(dropped) for _ in range(depth)]
    ids, logits = [], []
    asked = prompt.lengths[0]
    for step in range(steps):
        for first, ratio in sorted(cuts) if step == 0 else ():
            row = _last_row(eager, prompt, hidden, first - 1)
            seen = prompt.visual[0].nonzero()[:, 0].tolist()
            alive = [p for p in seen if p not in hidden[first - 1]]
            ranked = sorted(alive, key=lambda p: (-row[p].item(), p))
            hides = set(ranked[max(1, int(len(alive) * ratio + 1e-6)) :]) | hidden[first - 1]
            for later in range(first, depth):
                hidden[later] = hides
        with _hiding(eager, hidden):
            state = _forward(eager, prompt, asked)
        logits.append(eager.logits(state[:, -1])[0])
        ids.append(int(logits[-1].argmax()))
        prompt = _longer(eager, prompt, ids[-1])
    return ids, torch.stack(logits), hidden


def _forward(family: Family, prompt: Prompt, asked: int) -> torch.Tensor:
    """Hidden states (1, L, E); what comes after the first ``asked`` tokens was generated and looks back only."""
    more = family.prefill_inputs(prompt)
    if family.model_type == "paligemma":  # 0 is the type of a prompt that sees itself, 1 that of an answer
        more["token_type_ids"][:, asked:] = 1
    return family.decoder(
        inputs_embeds=prompt.embeds.clone(),
        attention_mask=prompt.attention_mask,
        position_ids=prompt.positions,
        use_cache=False,
        **more,
    ).last_hidden_state


def _last_row(family: Family, prompt: Prompt, hidden: Sequence[set[int]], layer: int) -> torch.Tensor:
    """(L,) head-averaged attention of the last token in a layer, as its module returns it."""
    weights: list[torch.Tensor] = []
    hook = family.layers[layer].self_attn.register_forward_hook(lambda _m, _i, out: weights.append(out[1]))
    with _hiding(family, hidden):
        _forward(family, prompt, prompt.lengths[0])
    hook.remove()
    return weights[0][0, :, -1].float().mean(0)


def _longer(family: Family, prompt: Prompt, token: int) -> Prompt:
    """The prompt with one more token of text."""
    ids = torch.tensor([[token]])
    return replace(
        prompt,
        lengths=(prompt.lengths[0] + 1,),
        input_ids=torch.cat([prompt.input_ids, ids], 1),
        embeds=torch.cat([prompt.embeds, family.embed(ids)], 1),
        attention_mask=torch.nn.functional.pad(prompt.attention_mask, (0, 1), value=1),
        positions=torch.cat([prompt.positions, prompt.positions[..., -1:] + 1], -1),
        visual=torch.nn.functional.pad(prompt.visual, (0, 1)),
        embedding_index=torch.nn.functional.pad(prompt.embedding_index, (0, 1), value=-1),
    )
