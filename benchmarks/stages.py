"""What a pipeline's own nodes cost against the vision encoder, in processor time: others on the machine do not count.

    OMP_NUM_THREADS=1 python benchmarks/stages.py pipelines/hiprune.yaml --set model=random:llava-cpu --ratio 0.25

Everything that runs between the encoder and the language model counts, but projecting, which every pipeline does.
Printed as Markdown: medians in ms, and the share of the encoder. One thread, or the clock sees only a part.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch

from fopru_graph.graph import Executor, Graph, MemoryCache
from fopru_graph.graph.events import Event, NodeFinished, NodeStarted
from fopru_graph.measure.pipelines import benched_pipelines, load_models
from fopru_graph.measure.timing import NOT_TIMED

LEFT_OUT = {NOT_TIMED, "encode", "project"}


class Clock:
    """Milliseconds of processor time of every node of a run."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._begin = 0.0

    def __call__(self, event: Event) -> None:
        """Take the time when a node begins and ends."""
        if isinstance(event, NodeStarted):
            self._begin = time.thread_time()
        elif isinstance(event, NodeFinished) and not event.cached:
            self.ms[event.node] = (time.thread_time() - self._begin) * 1e3


def stage_times(graph: Graph, ratio: float, repeat: int) -> tuple[float, float]:
    """Medians in ms of a pipeline at a ratio: its encoder, and its own nodes before the language model."""
    (benched,) = benched_pipelines(graph, [ratio])
    loaded: dict[str, dict[str, object]] = {}
    load_models(benched.graph, benched.plan, loaded)
    rounds = []
    before = benched.plan.steps[benched.target].read_by(("tokens",))
    for _ in range(repeat + 1):
        cache, clock = MemoryCache(), Clock()
        for key, outputs in loaded.items():
            cache.put(key, outputs)
        Executor(graph.registry, cache=cache).run(benched.graph, targets=sorted(before), on_event=clock)
        by_category = [(benched.plan.steps[name].spec.category, ms) for name, ms in clock.ms.items()]
        encode = sum(ms for category, ms in by_category if category == "encode")
        rounds.append((encode, sum(ms for category, ms in by_category if category not in LEFT_OUT)))
    encodes, stages = zip(*rounds[1:], strict=True)  # the first warms up
    return median(encodes), median(stages)


def main() -> None:
    """Measure the pipelines of the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--ratio", type=float, default=0.25)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| pipeline | encoder ms | its stages ms | share |\n|---|---|---|---|")
    for file in given.files:
        graph = Graph.load(file)
        for assignment in given.sets:
            graph.set(*assignment.split("=", 1))
        encode, stages = stage_times(graph, given.ratio, given.repeat)
        print(f"| `{graph.name}` | {encode:.0f} | {stages:.1f} | {stages / encode:.1%} |", flush=True)


if __name__ == "__main__":
    main()
