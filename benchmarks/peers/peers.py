"""Who is compared: the processes that hold a model, and the rows of the table that each of them answers for."""

from __future__ import annotations

from dataclasses import dataclass

MODELS = ("llava", "qwen2-vl")
PRUNED = 0.25
OURS = "ours, fopru_rank"
HERE = ""  # the environment that runs the benchmark


@dataclass(frozen=True)
class Worker:
    """A process: ``module`` of `workers`, run in ``environment`` on ``folder`` ({model} is the model's name)."""

    peer: str
    module: str
    environment: str
    folder: str
    weights: str


@dataclass(frozen=True)
class Row:
    """A row of the table: what ``worker`` answers with the share ``keep`` of the visual tokens."""

    worker: Worker
    name: str
    weights: str
    keep: float


_STOCK = {weights: Worker("stock", "stock", HERE, "models/{model}", weights) for weights in ("float32", "bfloat16")}
_OURS = {weights: Worker("ours", "ours", HERE, "models/{model}", weights) for weights in ("float32", "bfloat16")}
_SPARSE = Worker("sparsevlm", "sparse", "sparsevlm", "models/{model}", "float32")
_OPENVINO = {
    "float32": Worker("openvino", "genai", "openvino", "ir/{model}-fp32", "float32"),
    "bfloat16": Worker("openvino", "genai", "openvino", "ir/{model}-fp32", "auto"),
    "int8": Worker("openvino", "genai", "openvino", "ir/{model}-int8", "int8"),
}
PEERS = ("stock", "openvino", "sparsevlm", "ours")


def rows_of(model: str, peers: tuple[str, ...] = PEERS) -> list[Row]:
    """The rows of a model, in the table's order. OpenVINO GenAI prunes Qwen2-VL and not LLaVA."""
    rows = [Row(worker, "transformers", weights, 1) for weights, worker in _STOCK.items()]
    rows += [Row(worker, "OpenVINO GenAI", weights, 1) for weights, worker in _OPENVINO.items()]
    if model == "qwen2-vl":
        rows += [Row(worker, "OpenVINO GenAI, CDPruner", weights, PRUNED) for weights, worker in _OPENVINO.items()]
    rows += [Row(_SPARSE, "sparsevlm", "float32", PRUNED)]
    rows += [Row(worker, "ours, baseline", weights, 1) for weights, worker in _OURS.items()]
    rows += [Row(worker, OURS, weights, PRUNED) for weights, worker in _OURS.items()]
    return [row for row in rows if row.worker.peer in peers]
