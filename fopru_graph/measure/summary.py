"""One run's figures as the JSON object that ``fopru-graph run --json`` prints."""

from __future__ import annotations

from typing import Any

import networkx as nx

from fopru_graph.graph import Graph, RunRecord
from fopru_graph.measure.memory import peak_memory_bytes

NOT_TIMED = "load"  # category of the nodes whose time is no part of the time to first token


def summarise(record: RunRecord, graph: Graph) -> dict[str, Any]:
    """Figures of a finished run; those of the generation are null where the pipeline generates nothing.

    ``ttft_ms`` (time to first token) is the time of every node that the first generating node depends on, loading left
    out, plus its prefill: from the decoded picture in memory, preprocessing included, to the first token's id. It is
    null when any part of that came from a cache. ``graph`` is the expanded graph that ran.
    """
    nodes = {name: {"ms": round(entry["ms"], 3), "cached": entry["cached"]} for name, entry in record.nodes.items()}
    summary: dict[str, Any] = {"pipeline": graph.name, "outputs": record.outputs}
    figures: dict[str, Any] = {}
    name = next((n for n, entry in record.nodes.items() if "prefill_ms" in (entry.get("report") or {})), None)
    if name is not None:
        figures = record.nodes[name]["report"]
    summary["visual_tokens"] = figures.get("visual_tokens")
    summary["ttft_ms"] = _time_to_first_token(record, graph, name) if name is not None else None
    for key in ("tpot_ms", "new_tokens", "kv_bytes"):
        summary[key] = figures.get(key)
    summary["peak_memory_bytes"] = peak_memory_bytes(figures.get("device", "cpu"))
    summary |= {"device": figures.get("device"), "dtype": figures.get("dtype"), "nodes": nodes}
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in summary.items()}


def _time_to_first_token(record: RunRecord, graph: Graph, generate: str) -> float | None:
    before = [name for name in nx.ancestors(graph.store, generate) if name in record.nodes]
    timed = [name for name in before if graph.registry.get(record.nodes[name]["type"]).category != NOT_TIMED]
    if any(record.nodes[name]["cached"] for name in [*timed, generate]):
        return None
    return sum(record.nodes[name]["ms"] for name in timed) + record.nodes[generate]["report"]["prefill_ms"]
