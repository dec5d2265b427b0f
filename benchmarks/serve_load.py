"""Many clients of `fopru-graph serve` at once, with and without batches, against a loop without a server; in one run.

    python benchmarks/serve_load.py --clients 32 --rounds 3
    python benchmarks/serve_load.py --model random:llava-cpu --new-tokens 16

Two servers of one pipeline run beside each other, one of which answers each question by itself. Every round asks as
many questions as there are clients, about pictures that nothing is cached of: one after the other by `PipelineModel`,
then all at once of each server. Ratios are of seconds, medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import aiohttp
import PIL.Image

from fopru_graph.graph import Graph
from fopru_graph.lvlm.inputs.images import load_image, samples
from fopru_graph.pipeline_model import PipelineModel

PROMPTS = ("what does the text say ?", "is there a yellow star ?", "what colour is the circle ?", "how many stars ?")
Questions: TypeAlias = Sequence[tuple[str, bytes]]


def main() -> None:
    """Print a line for each way of answering."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="fopru_fastv")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=8, help="length of every answer")
    given = parser.parse_args()
    with server(given, 1) as alone, server(given, given.batch_size) as batched:
        measure(given, {"server, one by one": alone, f"server, batches of {given.batch_size}": batched})


@contextlib.contextmanager
def server(given: argparse.Namespace, batch_size: int) -> Iterator[str]:
    """A server of the pipeline in a process of its own; gives its address."""
    sets = [f"--set={name}={value}" for name, value in settings(given).items()]
    command = [sys.executable, "-m", "fopru_graph.cli", "serve", given.pipeline, "--port", "0", "--json", *sets]
    command += ["--batch-size", str(batch_size), "--no-canvas"]
    with contextlib.ExitStack() as stack:
        command += ["--data", stack.enter_context(tempfile.TemporaryDirectory())]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
        stack.callback(process.terminate)
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["address"]


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """The inputs that are set in the pipeline, for the loop as for the servers."""
    lengths = {f"generate.{name}_new_tokens": given.new_tokens for name in ("min", "max")}
    return {"model": given.model, **lengths}


def measure(given: argparse.Namespace, addresses: Mapping[str, str]) -> None:
    """Time all ways in turn, after a round that warms up, and print medians and ratios."""
    graph = Graph.load(given.pipeline)
    for name, value in settings(given).items():
        graph.set(name, value)
    model = PipelineModel(graph)
    times: dict[str, list[float]] = {name: [] for name in ("a loop, no server", *addresses)}
    texts: dict[str, list[str]] = {}
    for number in range(given.rounds + 1):
        for place, way in enumerate(times):
            questions = asked(given.clients, number * len(times) + place)
            begin = time.perf_counter()
            if way in addresses:
                texts[way] = asyncio.run(ask_all(addresses[way], graph.name, questions))
            else:
                texts[way] = [model.answer(prompt, picture).text for prompt, picture in questions]
            if number:
                times[way].append(time.perf_counter() - begin)
    show(given, times, texts)


def asked(count: int, seed: int) -> list[tuple[str, bytes]]:
    """Questions about pictures, as PNG files, that are new to every cache: a pixel tells them apart."""
    questions = []
    pictures = [load_image(f"demo:{name}").picture for name in samples()]
    for number in range(count):
        picture = pictures[number % len(pictures)].copy()
        picture.putpixel((0, 0), (seed % 256, number % 256, 0))
        questions.append((PROMPTS[number % len(PROMPTS)], png(picture)))
    return questions


def png(picture: PIL.Image.Image) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


async def ask_all(address: str, pipeline: str, questions: Questions) -> list[str]:
    """The answers of a server that gets all questions at once."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=3600)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def ask(prompt: str, picture: bytes) -> str:
            url = "data:image/png;base64," + base64.b64encode(picture).decode()
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
            body = {"model": pipeline, "messages": [{"role": "user", "content": content}]}
            async with session.post(f"{address}/v1/chat/completions", json=body) as response:
                response.raise_for_status()
                said: str = (await response.json())["choices"][0]["message"]["content"]
                return said

        return await asyncio.gather(*(ask(*question) for question in questions))


def show(given: argparse.Namespace, times: Mapping[str, list[float]], texts: Mapping[str, list[str]]) -> None:
    """Print the medians of all ways, and their ratios to the loop."""
    loop = next(iter(times))
    for way, seconds in times.items():
        ratio = statistics.median(base / other for base, other in zip(times[loop], seconds, strict=True))
        same = sum(a == b for a, b in zip(texts[loop], texts[way], strict=True))
        print(
            f"{given.pipeline} {given.model} {given.clients} questions, {way:24}: "
            f"{statistics.median(seconds) / given.clients * 1e3:8.1f} ms a question; ×{ratio:.2f}; "
            f"{same}/{given.clients} answers equal",
            flush=True,
        )


if __name__ == "__main__":
    main()
