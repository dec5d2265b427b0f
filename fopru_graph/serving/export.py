"""A handover as the content of a file, for each target."""

from __future__ import annotations

from fopru_graph.serving import sglang, tensors, vllm
from fopru_graph.serving.engines import Target
from fopru_graph.serving.handover import Handover

_WRITERS = {
    "safetensors": tensors.saved,
    "vllm": vllm.chat_request,
    "vllm-offline": vllm.offline,
    "sglang": sglang.item,
}


def exported(handover: Handover, to: Target) -> bytes:
    """The content of the file that the target takes.

    Raises:
        UserError: the engine cannot take it; the message has the reason.
    """
    return _WRITERS[to](handover)
