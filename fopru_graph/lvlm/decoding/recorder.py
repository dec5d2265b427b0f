"""CUDA graphs: what a model's recordings share, its device, a stream of their own and a pool of memory."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Recorder:
    """Records functions that launch kernels on one device as CUDA graphs.

    The graphs share one memory pool, because only one of them runs at a time and nothing is left in its memory that a
    later one needs. Such graphs must be recorded on one stream.

    Args:
        device: where the functions' tensors are, whatever the current device of the thread is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Record what ``run`` launches; nothing is computed meanwhile. Other threads may go on using the device.

        Raises:
            RuntimeError: ``run`` does what cannot be recorded, or the device has no memory left.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            caller = torch.cuda.current_stream(self.device)
            self._stream.wait_stream(caller)
            # The outer block gives the caller its stream back where ending the recording fails, too.
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                run()
            caller.wait_stream(self._stream)
        return graph

    def replay(self, graph: torch.cuda.CUDAGraph) -> None:
        """Launch what was recorded on the current stream of the device."""
        with torch.cuda.device(self.device):
            graph.replay()

    def release_memory(self) -> None:
        """Give the device back what PyTorch holds of it for nobody."""
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error is for want of memory; the end of a failed recording may hide the first error behind its own."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
            return True
        error = error.__context__
    return False
