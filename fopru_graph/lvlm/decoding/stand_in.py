"""The stock ``generate`` of a whole prompt while the decoder sees the pruned one in its place.

``generate`` counts, streams, penalises and returns the ids of the whole prompt, as without pruning. Only what enters
the decoder is replaced, so that prefill work and KV really shrink.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from fopru_graph.errors import UserError
from fopru_graph.lvlm.decoding.hooks import full_cache, pruned
from fopru_graph.lvlm.decoding.kept import Cuts
from fopru_graph.lvlm.decoding.runner import DecoderInputs, KeyValues, check_places
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.inputs.prompt import Prompt
from fopru_graph.lvlm.loading.compat import cache_argument
from fopru_graph.values import InLLMPruner


class StandIn:
    """The decoder's inputs during one ``generate`` of whole prompts, replaced by those of ``prompt``.

    Args:
        family: the model.
        prompt: the embedded, pruned prompts.
        pruners: pruning inside the language model.
        length: tokens of the whole prompts that ``generate`` gets, padding included.

    Raises:
        UserError: the pruners do not fit the model, or as for `runner.check_places`.
    """

    def __init__(self, family: Family, prompt: Prompt, pruners: Sequence[InLLMPruner], length: int) -> None:
        check_places(family, prompt)
        self.cuts = Cuts(family, pruners, prompt)
        self.prompt = prompt
        self._family, self._shape = family, (len(prompt.lengths), length)
        self._inputs = DecoderInputs(family, prompt)
        self._cache: Any = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Replace inside the block, which is for one call of the stock ``generate``.

        Raises:
            UserError: the decoder is driven otherwise than by one whole prompt and then token by token.
            NotFinite: at the end of the block, the scores of a cut hold NaN or infinity.
        """
        with contextlib.ExitStack() as stack:
            # Before the hooks of the cuts, which look at what the decoder gets.
            stack.callback(self._family.decoder.register_forward_pre_hook(self._replace, with_kwargs=True).remove)
            stack.enter_context(pruned(self._family, self.cuts))
            yield

    def filled(self) -> list[KeyValues]:
        """Each layer's keys and values, once the prompt has run."""
        return [(layer.keys, layer.values) for layer in self._cache.layers]

    def _replace(
        self, _decoder: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The pre-hook of the decoder."""
        ids: Any = args[0] if args else options.get("input_ids")  # or else embedded already
        embeds: Any = options.get("inputs_embeds")
        samples, tokens = (ids if embeds is None else embeds).shape[:2]
        prefill = self._cache is None
        if (samples, tokens) != (self._shape if prefill else (self._shape[0], 1)):
            raise UserError(
                f"the model was given {samples} × {tokens} tokens, where pruning takes one whole prompt of "
                f"{self._shape[0]} × {self._shape[1]} and then a token at a time",
                "leave out assisted decoding, chunked prefill and whatever runs the model a second time",
            )
        if prefill:
            self._cache = full_cache(options.get(cache_argument()))
            inputs = self._inputs.whole_prompt()
        else:
            inputs = self._inputs.next_tokens(self._family.embed(ids) if embeds is None else embeds)
        return (), options | {"input_ids": None, "use_cache": True, cache_argument(): self._cache} | inputs
