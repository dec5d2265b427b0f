"""The slow, obvious way to prune inside any language model: nothing is dropped, keys are hidden in stock masks.

The stock layers are told where each token stands, so that every numbering of the tokens that are left has a reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.positions import Numbering
from fopru_graph.lvlm.inputs.prompt import Prompt

Cut = tuple[int, float]  # first short layer, share of the visual tokens kept


def told_positions(prompt: Prompt, hidden: Collection[int], numbering: Numbering) -> torch.Tensor:
    """Positions of one prompt that is not pruned, token by token; hidden tokens keep theirs, which nobody sees."""
    if numbering == "original":
        return prompt.positions
    unpruned = prompt.positions.flatten(0, -2).T.tolist()  # of each token, its positions on the axes
    told, following, image, shift = list(unpruned), unpruned[0][0], None, 0
    for place in sorted(set(range(len(told))) - set(hidden)):
        inside = next((span for span in prompt.images[0] if place in span), None)
        if inside is not None and inside != image:  # it begins where the text before it has come to
            begins = max(unpruned[inside.start - 1]) + 1 if inside.start else unpruned[0][0]
            shift = begins - following
        image = inside
        keeps = inside is not None and numbering == "rebased"
        told[place] = [axis - shift if keeps else following for axis in unpruned[place]]
        following = max(following, *(axis + 1 for axis in told[place]))
    return torch.tensor(told).T.reshape(prompt.positions.shape)


@dataclass(frozen=True)
class Hiding:
    """One prompt whose layers each hide some keys from all but themselves, told where its tokens stand.

    ``windows`` are those of layers whose masks are made without; they count the positions before the first layer.
    """

    family: Family
    prompt: Prompt
    hidden: Sequence[set[int]]
    numbering: Numbering
    windows: Sequence[int | None] = ()

    @contextlib.contextmanager
    def hooks(self) -> Iterator[list[torch.Tensor]]:
        """Every layer gets its mask and its positions; attention weights that layers return are listed."""
        layers = self.family.layer_kinds
        told = [told_positions(self.prompt, hidden, self.numbering) for hidden in self.hidden]

        def before(index: int, args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
            mask = given["attention_mask"].clone()  # (1, 1, L, L) additive: eager attention
            for key in self.hidden[index]:
                diagonal = mask[:, :, key, key].clone()
                mask[:, :, :, key] = torch.finfo(mask.dtype).min
                mask[:, :, key, key] = diagonal
            if window := self.windows[index] if self.windows else None:
                mask.masked_fill_(told[0] <= told[0].T - window, torch.finfo(mask.dtype).min)
            given = given | {"attention_mask": mask}
            if self.numbering != "original":
                states = args[0] if args else given["hidden_states"]
                given["position_embeddings"] = self.family.rotary(states, told[index])[layers[index]]
            return given

        weights: list[torch.Tensor] = []
        hooks = [
            hook
            for i, layer in enumerate(self.family.layers)
            for hook in (
                layer.register_forward_pre_hook(
                    lambda _layer, args, given, i=i: (args, before(i, args, given)), with_kwargs=True
                ),
                layer.self_attn.register_forward_hook(lambda _module, _args, output: weights.append(output[1])),
            )
        ]
        try:
            yield weights
        finally:
            for hook in hooks:
                hook.remove()

    def forward(self, asked: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Hidden states (1, L, E) and each layer's attention weights.

        What comes after the first ``asked`` tokens was generated and looks back only.
        """
        more = self.family.prefill_inputs(self.prompt)
        if self.family.model_type == "paligemma":  # 0 is the type of a prompt that sees itself, 1 that of an answer
            more["token_type_ids"][:, asked:] = 1
        with self.hooks() as weights:
            state = self.family.decoder(
                inputs_embeds=self.prompt.embeds.clone(),
                attention_mask=self.prompt.attention_mask,
                position_ids=told_positions(self.prompt, self.hidden[0], self.numbering),
                use_cache=False,
                **more,
            ).last_hidden_state
        return state, weights


@torch.inference_mode()
def answer_by_hiding(
    eager: Family,
    prompt: Prompt,
    cuts: Sequence[Cut],
    steps: int,
    dropped: Collection[int] = (),
    numbering: Numbering = "original",
    windows: Sequence[int | None] = (),
) -> tuple[list[int], torch.Tensor, list[set[int]]]:
    """Greedy answer to one unpadded prompt: ids, logits (steps, V), and each layer's hidden prompt positions.

    ``dropped`` are positions that no layer sees; ``numbering`` and ``windows`` as in `Hiding`. The whole sequence runs
    anew at every step, through the stock forward with eager attention and without a cache.
    """
    depth = len(eager.layers)
    hidden: list[set[int]] = [set(dropped) for _ in range(depth)]
    ids, logits = [], []
    asked = prompt.lengths[0]
    for step in range(steps):
        for first, ratio in sorted(cuts) if step == 0 else ():
            _, weights = Hiding(eager, prompt, hidden, numbering, windows).forward(asked)
            row = weights[first - 1][0, :, -1].float().mean(0)  # of the last token, the mean over heads
            seen = prompt.visual[0].nonzero()[:, 0].tolist()
            alive = [p for p in seen if p not in hidden[first - 1]]
            ranked = sorted(alive, key=lambda p: (-row[p].item(), p))
            hides = set(ranked[max(1, int(len(alive) * ratio + 1e-6)) :]) | hidden[first - 1]
            for later in range(first, depth):
                hidden[later] = hides
        state, _ = Hiding(eager, prompt, hidden, numbering, windows).forward(asked)
        logits.append(eager.logits(state[:, -1])[0])
        ids.append(int(logits[-1].argmax()))
        prompt = _longer(eager, prompt, ids[-1])
    return ids, torch.stack(logits), hidden


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
