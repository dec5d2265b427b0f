"""SGLang's offline engine takes an item of the format ``precomputed_embedding`` with a prompt as token ids."""

from __future__ import annotations

import torch

from fopru_graph.errors import UserError
from fopru_graph.serving.engines import SGLANG
from fopru_graph.serving.handover import Handover
from fopru_graph.serving.tensors import packed


def item(handover: Handover) -> bytes:
    """A safetensors file: ``input_ids`` (L,) int64 for ``Engine.generate``, everything else is the one item.

    ``feature`` is (Σk, H), of Gemma 3 (1, Σk, H), for as many placeholders in ``input_ids``. With Qwen2.5-VL go
    ``image_grid_thw`` (n, 3) int64, the unpruned pictures' in patches, ``mrope_positions`` (3, L) int64 and
    ``mrope_position_delta`` (1, 1) int64: what a generated token's position is ahead of its index in the sequence.

    Raises:
        UserError: SGLang does not take the family, it is a video, or it would number the tokens otherwise.
    """
    SGLANG.check(handover.family)
    if handover.derived is None:
        raise UserError("a video cannot be handed to SGLang as image embeddings", "use a safetensors file")
    tensors = {"input_ids": handover.input_ids, "feature": torch.cat(handover.tokens.embeddings)}
    if len(handover.positions) == 3:
        side, last = handover.side, handover.positions.max()
        grids = [(frames, high * side, wide * side) for frames, high, wide in handover.tokens.grids]
        tensors["image_grid_thw"] = torch.tensor(grids)
        tensors["mrope_positions"] = handover.positions
        tensors["mrope_position_delta"] = (last + 1 - len(handover.input_ids)).view(1, 1)
    elif torch.equal(handover.positions, handover.derived):
        tensors["feature"] = tensors["feature"][None]
    else:
        raise UserError(
            f"SGLang numbers the tokens of {handover.family} one after the other, and these have "
            f"{handover.numbering} positions",
            "set positions: renumbered",
        )
    metadata = {"engine": "sglang", "format": "precomputed_embedding", "model": handover.model}
    return packed(tensors, metadata | {"positions": handover.numbering})
