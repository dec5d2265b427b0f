"""Ours: the shipped pipelines fopru_rank and, for a share of 1, baseline."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import PIL.Image
import torch

from benchmarks.peers.workers.protocol import PROMPT, VISUAL_TOKENS, Pixels, Times, serve
from fopru_graph.graph import Graph
from fopru_graph.pipeline_model import PipelineModel

PIPELINES = Path(__file__).resolve().parents[3] / "pipelines"


class Ours:
    """See `protocol.Peer`; the pipelines share one model."""

    packages = ("fopru-graph", "transformers", "torch")
    note = ""

    def __init__(self, folder: Path, weights: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._inputs = {"model.name": str(folder), "model.dtype": weights}
        self._loaded: dict[str, Any] = {}
        self._models: dict[tuple[float, int], PipelineModel] = {}
        self._model(1, 1)

    def _model(self, keep: float, new_tokens: int) -> PipelineModel:
        if (keep, new_tokens) not in self._models:
            graph = Graph.load(PIPELINES / ("fopru_rank.yaml" if keep < 1 else "baseline.yaml"))
            lengths = {f"generate.{name}_new_tokens": new_tokens for name in ("min", "max")}
            pruning = {"prune.ratio": keep} if keep < 1 else {}
            for name, value in (self._inputs | lengths | pruning).items():
                graph.set(name, value)
            self._models[keep, new_tokens] = PipelineModel(graph, self._loaded)
        return self._models[keep, new_tokens]

    def answer(self, picture: Pixels, new_tokens: int, keep: float) -> Times:
        """See `protocol.Peer`; the time to first token is all that is no later step, detokenising too."""
        model, begin = self._model(keep, new_tokens), time.perf_counter()
        answer = model.answer(PROMPT, PIL.Image.fromarray(picture))
        wall_ms = (time.perf_counter() - begin) * 1e3
        steps, kept = answer.report["step_ms"], answer.report["visual_tokens"]["kept"]
        if len(steps) != new_tokens - 1 or kept != round(VISUAL_TOKENS * keep):
            raise RuntimeError(f"{len(steps) + 1} tokens and {kept} visual tokens")
        return Times(wall_ms - sum(steps), sum(steps) / len(steps) if steps else None)


if __name__ == "__main__":
    serve(Ours)
