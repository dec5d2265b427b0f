"""Small nodes for the engine's tests; their values are torch-free classes and plain numbers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from fopru_graph.graph import Context, Graph, Lazy, MemoryCache, Node, OutputFile, Outputs, RunResult, UserError, node

CALLS: list[str] = []
_LOCK = threading.Lock()


def note(name: str) -> None:
    """Remember that a node ran."""
    with _LOCK:
        CALLS.append(name)


def fresh(graph: Graph, **options: Any) -> RunResult:
    """Run without the memory that a graph has of its earlier runs."""
    return graph.run(cache=MemoryCache(0), **options)


@dataclass(frozen=True, eq=False)
class Picture:
    """A toy value that is no JSON."""

    pixels: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.pixels),)


@dataclass(frozen=True, eq=False)
class Photo(Picture):
    """A picture with a name."""

    name: str = "photo"


@dataclass(frozen=True, eq=False)
class Scores:
    """Another toy value."""

    values: tuple[float, ...]

    def report(self) -> dict[str, Any]:
        return {"count": len(self.values)}


@node(category="toy")
class Load(Node):
    """Make a picture of a given size."""

    def run(self, size: Annotated[int, Field(ge=1, le=64, description="pixels")] = 4) -> Picture:
        note("Load")
        return Picture(tuple(range(size)))


@node(category="toy")
class TakePhoto(Node):
    """Make a photo, which is a picture."""

    def run(self) -> Photo:
        note("TakePhoto")
        return Photo((1, 2, 3))


@node(category="toy")
class Score(Node):
    """Score every pixel."""

    def run(self, picture: Picture, scale: float = 1.0) -> Scores:
        note("Score")
        return Scores(tuple(pixel * scale for pixel in picture.pixels))


class Halves(Outputs):
    """Two outputs."""

    low: Picture
    high: Picture


@node(category="toy")
class Split(Node):
    """Cut a picture in two."""

    def run(self, picture: Picture) -> Halves:
        note("Split")
        middle = len(picture.pixels) // 2
        return Halves(Picture(picture.pixels[:middle]), Picture(picture.pixels[middle:]))


@node(category="toy")
class Keep(Node):
    """Keep the best share of the scores."""

    def run(
        self,
        scores: Scores,
        ratio: Annotated[float, Field(gt=0, le=1, description="share kept")] = 0.5,
        order: Literal["best", "first"] = "best",
        tokens: int | None = None,
    ) -> list[float]:
        note("Keep")
        count = tokens or max(1, int(len(scores.values) * ratio))
        values = sorted(scores.values, reverse=True) if order == "best" else scores.values
        return list(values)[:count]


@node(category="toy")
class Total(Node):
    """Add up everything."""

    def run(self, values: list[float]) -> float:
        note("Total")
        return float(sum(values))


@node(category="toy")
class Add(Node):
    """a + b."""

    def run(self, a: float, b: float = 1.0) -> float:
        note("Add")
        return a + b


@node(category="toy")
class Whole(Node):
    """An integer passes through."""

    def run(self, value: int = 1) -> int:
        note("Whole")
        return value


@node(category="toy")
class Flag(Node):
    """A bool passes through."""

    def run(self, value: bool = True) -> bool:
        note("Flag")
        return value


@node(category="toy")
class Text(Node):
    """A text passes through."""

    def run(self, text: str = "") -> str:
        note("Text")
        return text


@node(category="toy")
class Join(Node):
    """Join texts, one or many."""

    def run(self, texts: str | list[str], by: str = " ") -> str:
        note("Join")
        return texts if isinstance(texts, str) else by.join(texts)


@node(category="toy")
class Gather(Node):
    """Take any number of pictures."""

    def run(self, pictures: list[Picture] = []) -> int:  # noqa: B006 - the engine copies defaults
        note("Gather")
        return len(pictures)


@node(category="toy")
class Echo(Node):
    """Anything passes through."""

    def run(self, value: Any = None) -> Any:
        note("Echo")
        return value


@node(category="toy")
class Choose(Node):
    """One of two values; the other is not evaluated."""

    def run(self, which: bool, yes: Annotated[Any, Lazy()] = None, no: Annotated[Any, Lazy()] = None) -> Any:
        return yes if which else no

    def needs(self, which: bool) -> list[str]:
        return ["yes" if which else "no"]


@node(category="toy", output=True)
class Show(Node):
    """Runs for its effect."""

    def run(self, value: Any, context: Context) -> int:
        note(f"Show:{context.node}")
        return 1


@node(category="toy", output=True)
class Write(Node):
    """Writes a file."""

    def run(self, ctx: Context, text: str = "", file: Annotated[str, OutputFile()] = "a.txt") -> str:
        note(f"Write:{ctx.node}")
        path = ctx.output_path(file)
        path.write_text(text)
        return str(path)


@node(category="toy")
class Boom(Node):
    """Always fails."""

    def run(self, value: Any = None, expected: bool = False) -> float:
        note("Boom")
        if expected:
            raise UserError("the picture is empty", hint="take another")
        raise RuntimeError("it went boom")


@node(category="toy", cache="never")
class Uncached(Node):
    """Runs whenever it is needed."""

    def run(self, value: float = 1.0) -> float:
        note("Uncached")
        return value


@node(category="toy", cache="disk")
class Kept(Node):
    """Kept on disk."""

    def run(self, value: Any = 1) -> dict[str, Any]:
        note("Kept")
        return {"value": value}


@node(category="toy")
class ReadFile(Node):
    """The content of a file, whose cache key follows the content."""

    def run(self, path: str) -> str:
        note("ReadFile")
        with open(path, encoding="utf-8") as stream:
            return stream.read()

    def fingerprint(self, path: str) -> str:
        with open(path, encoding="utf-8") as stream:
            return stream.read()


@node(category="toy")
class Even(Node):
    """Has an opinion on its literals."""

    def run(self, value: int = 2) -> int:
        note("Even")
        return value

    def check(self, value: int) -> Iterable[str]:
        if value % 2:
            yield f"value must be even, but is {value}"


@node(category="toy")
class Steps(Node):
    """Reports progress and streams text."""

    def run(self, ctx: Context, count: int = 3) -> str:
        note("Steps")
        for index in range(count):
            ctx.check_cancelled()
            ctx.progress(index + 1, count)
            ctx.text(f"{index}")
        return "done"


@node(category="toy")
class Sleepy(Node):
    """A coroutine."""

    async def run(self, value: float = 1.0) -> float:
        await asyncio.sleep(0)
        note("Sleepy")
        return value


ALL = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, Node) and value is not Node
]
