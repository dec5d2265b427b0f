"""OpenVINO GenAI: a compiled pipeline, with CDPruner where the model's family has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino
import openvino_genai

from benchmarks.peers.workers.protocol import PROMPT, Pixels, Times, serve


class GenAI:
    """See `protocol.Peer`. ``weights``: float32, auto (the precision that OpenVINO prefers here), or int8.

    Of its fused MLP for AMX, 2026.4 divides the threads by two: with one thread the process dies of a division by zero.
    There it gets two threads, on one core like everybody.
    """

    packages = ("openvino", "openvino-genai")

    def __init__(self, folder: Path, weights: str, threads: int) -> None:
        preferred = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
        options: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
        self.note = f"computes in {preferred}"
        if weights == "float32":
            options["INFERENCE_PRECISION_HINT"] = "f32"
            self.note = "computes in f32"
        elif weights == "auto" and threads == 1 and "amx_bf16" in Path("/proc/cpuinfo").read_text():
            options["INFERENCE_NUM_THREADS"] = 2
            self.note += "; two threads on one core, as one thread divides by zero"
        self._pipeline = openvino_genai.VLMPipeline(str(folder), "CPU", **options)

    def answer(self, picture: Pixels, new_tokens: int, keep: float) -> Times:
        """See `protocol.Peer`; the times are OpenVINO's own and begin with the call."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = new_tokens, True, False
        if keep < 1:
            config.pruning_ratio = round(100 * (1 - keep))
        images = [openvino.Tensor(picture[None])]
        metrics = self._pipeline.generate(PROMPT, images=images, generation_config=config).perf_metrics
        steps = metrics.get_num_generated_tokens() - 1
        if steps != new_tokens - 1:
            raise RuntimeError(f"{steps + 1} tokens instead of {new_tokens}")
        return Times(metrics.get_ttft().mean, metrics.get_tpot().mean if steps else None)


if __name__ == "__main__":
    serve(GenAI)
