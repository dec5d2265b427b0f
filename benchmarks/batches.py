"""Questions in batches against the same questions one by one, in one process: how much faster, or slower, batches are.

    python benchmarks/batches.py pipelines/baseline.yaml pipelines/fopru_fastv.yaml --model random:llava-cpu

Every round asks the same questions at every size, each size once, about pictures that nothing is cached of. Ratios are
of CPU seconds, which other work on the machine disturbs less than the clock, and of seconds, medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import PIL.Image

from fopru_graph.graph import Graph
from fopru_graph.lvlm.inputs.images import load_image, samples
from fopru_graph.pipeline_model import PipelineModel

PROMPTS = ("what does the text say ?", "is there a yellow star ?", "what colour is the circle ?", "how many stars ?")


def main() -> None:
    """Print a line for each pipeline and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipelines", nargs="+")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--sizes", default="1,2,4,8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=8)
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    loaded: dict[str, Any] = {}
    pictures = [load_image(f"demo:{name}").picture for name in samples()]
    for file in given.pipelines:
        graph = Graph.load(file)
        graph.set("model", given.model)
        model = PipelineModel(graph, loaded)
        texts: dict[int, list[str]] = {}
        times: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
        for number in range(given.rounds + 1):  # the first warms up
            for size in sizes:
                questions = asked(pictures, given.questions, f"{number}.{size}")
                begin = time.process_time(), time.perf_counter()
                texts[size] = [
                    answer.text for batch in batched(questions, size) for answer in answers(model, batch, given)
                ]
                if number:
                    times[size].append((time.process_time() - begin[0], time.perf_counter() - begin[1]))
        show(graph.name, given, times, texts)


def asked(pictures: Sequence[PIL.Image.Image], count: int, key: str) -> list[tuple[str, tuple[str, PIL.Image.Image]]]:
    """Questions about pictures that are new to every cache."""
    return [(PROMPTS[n % len(PROMPTS)], (f"{key}.{n}", pictures[n % len(pictures)])) for n in range(count)]


def batched(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """The items in lists of ``size``."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def answers(model: PipelineModel, batch: Sequence[Any], given: argparse.Namespace) -> list[Any]:
    """The answers of a batch; a batch of one goes the way of a single question."""
    return model.answers(batch, given.new_tokens)


def show(
    name: str, given: argparse.Namespace, times: dict[int, list[tuple[float, float]]], texts: dict[int, list[str]]
) -> None:
    """Print the medians of every size, and its ratios to the first."""
    first = next(iter(times))
    for size, rounds in times.items():
        cpu, wall = (statistics.median(of_round) for of_round in zip(*rounds, strict=True))
        ratios = [
            statistics.median(base[n] / other[n] for base, other in zip(times[first], rounds, strict=True))
            for n in range(2)
        ]
        same = sum(a == b for a, b in zip(texts[first], texts[size], strict=True))
        print(
            f"{given.model:18} {name:14} batch {size:2}: {cpu / given.questions * 1e3:8.1f} CPU ms a question, "
            f"{wall / given.questions * 1e3:8.1f} ms; ×{ratios[0]:.2f} by CPU, ×{ratios[1]:.2f} by clock; "
            f"{same}/{given.questions} answers equal",
            flush=True,
        )


if __name__ == "__main__":
    main()
