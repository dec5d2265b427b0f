"""The slow, obvious way to prune inside a language model: nothing is dropped, keys are hidden; no cache, one sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fopru_graph.lvlm.families.llava import Llava

Cut = tuple[int, float]  # first short layer, share of the visual tokens kept


def _layer_mask(length: int, hidden_keys: set[int], window: int | None) -> torch.Tensor:
    """(1, 1, L, L) additive mask: causal, inside the sliding window, without the hidden keys."""
    mask = torch.zeros(length, length)
    for query in range(length):
        for key in range(length):
            outside = window is not None and query - key >= window
            if key > query or outside or (key in hidden_keys and key != query):
                mask[query, key] = torch.finfo(torch.float32).min
    return mask[None, None]


@torch.inference_mode()
def answer_by_masking(
    eager: Llava, embeds: torch.Tensor, visual: torch.Tensor, cuts: Sequence[Cut], steps: int, window: int | None = None
) -> tuple[list[int], torch.Tensor, list[set[int]]]:
    """Greedy answer to one unpadded prompt, hiding keys where a pruner would drop tokens.

    Args:
        eager: the model with eager attention, whose modules return their weights.
        embeds: (L, E) prompt; visual: (L,) bool.
        cuts: in ascending layer order.
        steps: tokens to generate.
        window: sliding window of the language model.

    Returns:
        ids, logits (steps, V), and for every layer the hidden prompt positions.
    """
    language, layers = eager.language_model, eager.layers
    sequence = embeds.float()
    hidden_keys: list[set[int]] = [set() for _ in layers]
    ids, all_logits = [], []
    for step in range(steps):
        x = sequence[None].to(embeds.dtype)
        length = x.shape[1]
        positions = torch.arange(length)[None]
        rotary = language.rotary_emb(x, positions)
        for index, layer in enumerate(layers):
            weights: list[torch.Tensor] = []
            hook = layer.self_attn.register_forward_hook(lambda _m, _i, out, weights=weights: weights.append(out[1]))
            mask = _layer_mask(length, hidden_keys[index], window).to(x.dtype)
            x = layer(x, attention_mask=mask, position_embeddings=rotary, position_ids=positions)
            hook.remove()
            for first, ratio in cuts if step == 0 else ():
                if first != index + 1:
                    continue
                row = weights[0][0, :, -1].float().mean(0)  # (L,)
                alive = [p for p in range(length) if visual[p] and p not in hidden_keys[index]]
                ranked = sorted(alive, key=lambda p: (-row[p].item(), p))
                dropped = set(ranked[max(1, int(len(alive) * ratio + 1e-6)) :]) | hidden_keys[index]
                for later in range(first, len(layers)):
                    hidden_keys[later] = dropped
        logits = eager.logits(language.norm(x[:, -1]))[0]
        all_logits.append(logits)
        ids.append(int(logits.argmax()))
        word = eager.model.get_input_embeddings()(torch.tensor([ids[-1]]))
        sequence = torch.cat([sequence, word.float()])
    return ids, torch.stack(all_logits), hidden_keys
