"""PyPI's sparsevlm: keeps the visual tokens of most attention in the KV cache, after a whole prefill."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from sparsevlm import sparsevlm_generate

from benchmarks.peers.workers.checkpoint import Checkpoint
from benchmarks.peers.workers.protocol import VISUAL_TOKENS, Pixels, Times, from_stamps, serve


class Sparse:
    """See `protocol.Peer`; it scores by attention maps, so it needs eager attention."""

    packages = ("sparsevlm", "transformers", "torch")
    note = ""

    def __init__(self, folder: Path, weights: str, threads: int) -> None:
        self._checkpoint = Checkpoint(folder, weights, threads, "eager")
        if not hasattr(self._checkpoint.model.model, "rope_deltas"):  # it is written for Qwen, whose models have them
            self._checkpoint.model.model.rope_deltas = torch.zeros(1, 1, dtype=torch.long)
            self.note = "written for Qwen; given LLaVA's missing rope_deltas"

    @torch.inference_mode()
    def answer(self, picture: Pixels, new_tokens: int, keep: float) -> Times:
        """See `protocol.Peer`."""
        stamps: list[float] = []

        def look(*_: Any) -> None:
            stamps.append(time.perf_counter())

        model = self._checkpoint.model
        begin = time.perf_counter()
        inputs = self._checkpoint.inputs(picture)
        hook = model.lm_head.register_forward_hook(look)
        try:
            kept = round(VISUAL_TOKENS * keep)
            sparsevlm_generate(model, None, inputs, VISUAL_TOKENS, kept, max_new_tokens=new_tokens, device="cpu")
        finally:
            hook.remove()
        return from_stamps(begin, stamps[1:])  # it drops the token of its prefill and asks for it again


if __name__ == "__main__":
    serve(Sparse)
