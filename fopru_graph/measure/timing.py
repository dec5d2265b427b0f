"""The times of a run: from its record, as ``fopru-graph run --json`` prints them, or from its events, for a bench."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from fopru_graph.graph import RunResult
from fopru_graph.graph.events import Event, NodeFinished, NodeStarted
from fopru_graph.measure.machine import peak_memory_bytes, peaks

_FIGURES = ("visual_tokens", "ttft_ms", "tpot_ms", "new_tokens", "kv_bytes", "device", "dtype")  # of a generation
NOT_TIMED = "load"  # category of the nodes whose time is no part of the time to first token
_FLOW = "flow"  # category of those that hand values on, which takes no time worth naming
_STAGE_OF = {  # category of a node -> its stage; `generate` splits into prefill and decode by its report
    "encode": "encode",
    "score": "score",
    "prune": "select",
    "merge": "select",
    "order": "select",
    "project": "project",
}


def summarise(result: RunResult) -> dict[str, Any]:
    """The figures of a finished run as a JSON object.

    ``generations`` has those of every node that generated, by its name. They also stand in the object itself if there
    is one such node; else they are null there.

    ``ttft_ms`` (time to first token) adds up the times of all nodes that the generating node depends on, without
    loading and preparing pictures, and its prefill: from the pixels in memory to the first token's id, as in a bench.
    It is null when any part of that came from a cache.
    """
    record = result.record
    nodes = {name: {"ms": entry["ms"], "cached": entry["cached"]} for name, entry in record.nodes.items()}
    generated = [name for name, entry in record.nodes.items() if "prefill_ms" in (entry.get("report") or {})]
    generations = {name: _figures(result, name) for name in generated}
    figures = generations[generated[0]] if len(generated) == 1 else dict.fromkeys(_FIGURES)
    device = next((each["device"] for each in generations.values()), "cpu")
    return {
        "pipeline": result.plan.graph.name,
        "outputs": record.outputs,
        **{key: figures[key] for key in _FIGURES[:-2]},
        "peak_memory_bytes": peak_memory_bytes(peaks(device)),
        **{key: figures[key] for key in _FIGURES[-2:]},
        "nodes": nodes,
        "generations": generations,
    }


def _figures(result: RunResult, generate: str) -> dict[str, Any]:
    report = result.record.nodes[generate]["report"] | {"ttft_ms": time_to_first_token(result, generate)}
    figures = {key: report.get(key) for key in _FIGURES}
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}


def time_to_first_token(result: RunResult, generate: str, constant: Container[str] = ()) -> float | None:
    """Milliseconds until the node ``generate`` had its first token, see `summarise`; None where a part was cached.

    ``constant`` nodes do not depend on the question, so that they may come from a cache. What an equal node of the run
    has computed counts as computed for this one.
    """
    steps, nodes = result.plan.steps, result.record.nodes
    computed = {entry["key"]: name for name, entry in nodes.items() if not entry["cached"]}

    def source(name: str) -> str:
        return computed.get(nodes[name]["key"], name) if name in nodes and nodes[name]["cached"] else name

    generate = source(generate)
    before: set[str] = set()
    stack = [generate]
    while stack:
        new = {source(name) for name in result.plan.keys.parents(stack.pop())} - before
        before |= new
        stack += new
    timed = [name for name in before if name in nodes and steps[name].spec.category not in (NOT_TIMED, _FLOW)]
    if any(nodes[name]["cached"] for name in [*timed, generate] if name not in constant):
        return None
    timed = [name for name in timed if not nodes[name]["cached"]]
    preprocess = sum((nodes[name]["report"] or {}).get("preprocess_ms", 0.0) for name in timed)
    ttft: float = sum(nodes[name]["ms"] for name in timed) - preprocess + nodes[generate]["report"]["prefill_ms"]
    return ttft


@dataclass(frozen=True)
class RunTimes:
    """The times of a run in milliseconds, see `results.bench.Variant`; ``steps`` are those of the decoding steps.

    ``tower_tokens`` are those that the vision tower saw of every tile, ``encoded`` counts the visual tokens of all
    tiles, ``projects_all``: they were projected when they were encoded. ``report`` is that of the generating node.
    """

    ttft: float
    ttft_with_preprocessing: float
    steps: tuple[float, ...]
    end_to_end: float
    stages: Mapping[str, float]
    tower_tokens: tuple[int, ...]
    encoded: int
    projects_all: bool
    report: Mapping[str, Any]


class Timeline:
    """Listens to the events of one run.

    Args:
        categories: the category of every node.
        target: the generating node; the run ends with it.
        clock: seconds.
        settle: called before the clock is read. On a GPU it may wait for the device, so that each stage is charged with
            the work that it started. The time to first token is then a little longer.
    """

    def __init__(
        self, categories: Mapping[str, str], target: str, clock: Callable[[], float], settle: Callable[[], None]
    ) -> None:
        self._categories, self._target, self._clock, self._settle = categories, target, clock, settle
        self._started: dict[str, float] = {}  # by node, in the order of the run
        self._end = 0.0
        self._stages: dict[str, float] = {}
        self._preprocess = 0.0
        self._tower_tokens: tuple[int, ...] = ()
        self._encoded = 0
        self._projects_all = False
        self._report: Mapping[str, Any] = {}

    def __call__(self, event: Event) -> None:
        """Take an event of the run."""
        if isinstance(event, NodeStarted) and self._categories[event.node] != NOT_TIMED:
            self._settle()
            self._started[event.node] = self._clock()
        elif isinstance(event, NodeFinished) and event.node in self._started:
            self._settle()
            self._end = self._clock()
            self._finish(event, self._end - self._started[event.node])

    def _finish(self, event: NodeFinished, seconds: float) -> None:
        report = event.report or {}
        preprocess = report.get("preprocess_ms", 0.0)
        self._preprocess += preprocess
        self._tower_tokens += tuple(report.get("tower_tokens", ()))
        self._encoded += sum(report.get("tile_tokens", ()))
        self._projects_all |= report.get("projected", False)
        if event.node == self._target:
            self._report = report
        stage = _STAGE_OF.get(self._categories[event.node])
        if stage is not None:
            self._stages[stage] = self._stages.get(stage, 0.0) + seconds * 1e3 - preprocess

    def times(self) -> RunTimes:
        """The times of the finished run."""
        begin = next(iter(self._started.values()))
        steps, prefill = tuple(self._report["step_ms"]), self._report["prefill_ms"]
        preprocess = self._report.get("preprocess_ms", 0.0)  # of a generating node that prepares pictures itself
        ttft = (self._started[self._target] - begin) * 1e3 + preprocess + prefill
        stages = self._stages | {"decode": sum(steps)}
        if not preprocess:  # else its prefill includes the encoding, and the parts are not known
            stages["prefill"] = prefill
        return RunTimes(
            ttft=ttft - self._preprocess,
            ttft_with_preprocessing=ttft,
            steps=steps,
            end_to_end=(self._end - begin) * 1e3,
            stages=stages,
            tower_tokens=self._tower_tokens,
            encoded=self._encoded,
            projects_all=self._projects_all,
            report=self._report,
        )
