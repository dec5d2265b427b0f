"""An answer and the figures of the run that made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fopru_graph.describing import Described

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, repr=False)
class PromptFigures(Described):
    """What one prompt of a batch took, without the padding that its batch gave it: as in `Generation`, but not sums.

    ``kv_lengths`` count its tokens whose keys and values each layer holds, ``kv_bytes`` what these take.
    """

    encoded: int
    projected: int
    visual_per_layer: tuple[int, ...]
    new_tokens: int
    kv_lengths: tuple[int, ...]
    kv_bytes: int

    def report(self) -> dict[str, Any]:
        """The figures by the names that they have in a run record; plain JSON values."""
        return {
            "visual_tokens": visual_counts(self.encoded, self.projected, self.visual_per_layer),
            "new_tokens": self.new_tokens,
            "visual_per_layer": list(self.visual_per_layer),
            "kv_lengths": list(self.kv_lengths),
            "kv_bytes": self.kv_bytes,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Generation(Described):
    """Generated answers of B prompts and the figures of the run, which are read from tensors.

    Token counts and KV bytes are sums over the batch: ``encoded`` visual tokens leave the vision tower, ``projected``
    enter the language model, ``visual_per_layer`` pass through each layer. ``kv_lengths`` is each layer's cache length
    at the end, ``kv_bytes`` what they take in the type they are held in. ``token_ids`` end with the stop token if one
    was generated. ``kept`` holds, for each image, the origin (K, 2) of the tokens that the last layer saw: tile and
    index. ``prefill_ms`` is the time until the first token was known; ``reused`` prompt tokens came from the cache of
    the previous question (prefix caching). ``preprocess_ms`` is not 0 if the generation itself preprocessed the
    pictures. ``loop`` drove the decoder, ``captured`` says whether as a CUDA graph, and ``once`` are the indices of the
    decoding steps that also did work that is done once. ``positions``
    says how kept tokens were numbered. ``logprobs`` are those of each answer's tokens as the model gave them, if they
    were asked for. ``ended`` says of each answer whether it came to an end by itself, not by the limit of its length.
    ``each`` has the figures of every prompt; of a single one they are those of the run, and it is empty.
    """

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    encoded: int
    projected: int
    visual_per_layer: tuple[int, ...]
    kv_lengths: tuple[int, ...]
    kv_bytes: int
    prefill_ms: float
    step_ms: tuple[float, ...]
    device: str
    dtype: str
    kept: tuple[torch.Tensor, ...]
    reused: int = 0
    preprocess_ms: float = 0.0
    loop: str = ""
    captured: bool = False
    once: frozenset[int] = frozenset({0})
    positions: str = ""
    logprobs: tuple[tuple[float, ...], ...] = ()
    ended: tuple[bool, ...] = ()
    each: tuple[PromptFigures, ...] = ()

    @property
    def tpot_ms(self) -> float | None:
        """Mean time of the decoding steps that did no work that is done once; None without any."""
        settled = [ms for index, ms in enumerate(self.step_ms) if index not in self.once]
        return sum(settled) / len(settled) if settled else None

    @property
    def one_time_ms(self) -> float | None:
        """How much longer the other steps took, e.g. by capturing a CUDA graph; None without a `tpot_ms`."""
        tpot = self.tpot_ms
        if tpot is None:
            return None
        return max(0.0, sum(ms - tpot for index, ms in enumerate(self.step_ms) if index in self.once))

    def report(self) -> dict[str, Any]:
        """The figures of this generation for the run record; plain JSON values."""
        prepared = {"preprocess_ms": self.preprocess_ms} if self.preprocess_ms else {}
        return (
            prepared
            | {
                "visual_tokens": visual_counts(self.encoded, self.projected, self.visual_per_layer),
                "prefill_ms": self.prefill_ms,
                "step_ms": [round(ms, 3) for ms in self.step_ms],
                "samples": len(self.prompts),
                "tpot_ms": self.tpot_ms,
                "one_time_ms": self.one_time_ms,
                "loop": self.loop,
                "captured": self.captured,
                "positions": self.positions,
                "new_tokens": sum(len(ids) for ids in self.token_ids),
                "visual_per_layer": list(self.visual_per_layer),
                "reused_tokens": self.reused,
                "kv_lengths": list(self.kv_lengths),
                "kv_bytes": self.kv_bytes,
                "device": self.device,
                "dtype": self.dtype,
            }
            | ({"logprobs": [list(answer) for answer in self.logprobs]} if self.logprobs else {})
            | ({"each": [prompt.report() for prompt in self.each]} if self.each else {})
        )


def visual_counts(encoded: int, projected: int, per_layer: Sequence[int]) -> dict[str, Any]:
    """The numbers of visual tokens as results show them; the arguments are fields of `Generation`."""
    return {
        "encoded": encoded,
        "kept": projected,
        "final": per_layer[-1],
        "layer_average": round(sum(per_layer) / len(per_layer), 2),
    }
