"""A process of `paired.py`: runs pipelines with the code that PYTHONPATH names, a line of JSON in, a line out."""

from __future__ import annotations

import json
import resource
import sys
import time
from statistics import mean
from typing import Any

import fopru_graph
from fopru_graph.graph import Executor, Graph, MemoryCache
from fopru_graph.measure.pipelines import BenchedPipeline, benched_pipelines, load_models
from fopru_graph.measure.timing import Timeline


def main() -> None:
    """Load everything, then answer: None with what there is, a label with the times of one run of it."""
    task = json.loads(sys.argv[1])
    if task["clock"] == "cpu":
        time.perf_counter = time.process_time  # wherever the code reads the clock
    rows, loaded = _rows(task)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = _facts(rows) if asked is None else _run(rows[asked["row"]], loaded, task["new_tokens"])
        print(json.dumps(answer), flush=True)


def _rows(task: dict[str, Any]) -> tuple[dict[str, BenchedPipeline], dict[str, dict[str, Any]]]:
    """The pipelines at every ratio by label, and the outputs of their loading nodes."""
    rows: dict[str, BenchedPipeline] = {}
    loaded: dict[str, dict[str, Any]] = {}
    for path in task["pipelines"]:
        graph = Graph.load(path)
        for name, _, value in (text.partition("=") for text in task["sets"]):
            graph.set(name, value)
        for row in benched_pipelines(graph, [float(ratio) for ratio in task["ratios"].split(",")]):
            load_models(row.graph, row.plan, loaded)
            rows[row.label] = row
    return rows, loaded


def _facts(rows: dict[str, BenchedPipeline]) -> dict[str, Any]:
    code = str(fopru_graph.__file__)
    return {"labels": list(rows), "code": code, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _run(row: BenchedPipeline, loaded: dict[str, dict[str, Any]], new_tokens: int) -> dict[str, float | None]:
    """Milliseconds to the first token, and the mean of a step after the first."""
    cache = MemoryCache()
    for key, outputs in loaded.items():
        cache.put(key, outputs)
    timeline = Timeline(row.categories, row.target, time.perf_counter, lambda: None)
    Executor(row.graph.registry, cache=cache).run(
        row.graph, to=row.target, sets=row.answer_length(new_tokens), on_event=timeline
    )
    times = timeline.times()
    return {"ttft": times.ttft, "tpot": mean(times.steps[1:]) if len(times.steps) > 1 else None}


if __name__ == "__main__":
    main()
