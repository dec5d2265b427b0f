"""One run's figures as the JSON object that ``fopru-graph run --json`` prints."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import networkx as nx

from fopru_graph.graph import RunResult
from fopru_graph.measure.memory import peak_memory_bytes

NOT_TIMED = "load"  # category of the nodes whose time is no part of the time to first token


def summarise(result: RunResult) -> dict[str, Any]:
    """Figures of a finished run; those of the generation are null where the pipeline generates nothing.

    ``ttft_ms`` (time to first token) is the time of every node that the first generating node depends on, loading and
    the preparing of pictures left out, plus its prefill: from the pixels in memory to the first token's id, as in a
    bench. It is null when any part of that came from a cache.
    """
    record = result.record
    nodes = {name: {"ms": entry["ms"], "cached": entry["cached"]} for name, entry in record.nodes.items()}
    summary: dict[str, Any] = {"pipeline": result.plan.graph.name, "outputs": record.outputs}
    figures: dict[str, Any] = {}
    name = next((n for n, entry in record.nodes.items() if "prefill_ms" in (entry.get("report") or {})), None)
    if name is not None:
        figures = record.nodes[name]["report"]
    summary["visual_tokens"] = figures.get("visual_tokens")
    summary["ttft_ms"] = time_to_first_token(result, name) if name is not None else None
    for key in ("tpot_ms", "new_tokens", "kv_bytes"):
        summary[key] = figures.get(key)
    summary["peak_memory_bytes"] = peak_memory_bytes(figures.get("device", "cpu"))
    summary |= {"device": figures.get("device"), "dtype": figures.get("dtype"), "nodes": nodes}
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in summary.items()}


def time_to_first_token(result: RunResult, generate: str, constant: Container[str] = ()) -> float | None:
    """Milliseconds until the node ``generate`` knew its first token, see `summarise`; None where a part was cached.

    ``constant`` nodes give the same whatever is asked, so that they may come from a cache.
    """
    steps, nodes = result.plan.steps, result.record.nodes
    before = [name for name in nx.ancestors(result.plan.flat.links(), generate) if name in nodes]
    timed = [name for name in before if steps[name].spec.category != NOT_TIMED]
    if any(nodes[name]["cached"] for name in [*timed, generate] if name not in constant):
        return None
    timed = [name for name in timed if not nodes[name]["cached"]]
    prepared = sum((nodes[name]["report"] or {}).get("preprocess_ms", 0.0) for name in timed)
    return sum(nodes[name]["ms"] for name in timed) - prepared + nodes[generate]["report"]["prefill_ms"]
