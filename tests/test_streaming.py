"""Pieces of an answer, with and without asyncio: they come at once, errors come through, who leaves stops the work."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import pytest

from fopru_graph.answer import Answer
from fopru_graph.graph import Cancelled
from fopru_graph.streaming import Stream

LONG = 60  # seconds until a test gives up


class Endless:
    """Work that goes on until it is told to end."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def __call__(self, put, cancel):
        number = 0
        while not cancel.wait(0.001):
            put(str(number))
            number += 1
        self.ended.set()
        raise Cancelled


def three(put, cancel):
    for piece in ("a", "b", "c"):
        put(piece)
    return Answer("abc", {}, None, None)


def broken(put, cancel):
    put("a")
    raise ValueError("on the way")


async def collect(stream: Stream, most: int = 100) -> list[str]:
    pieces: list[str] = []
    async for piece in stream:
        pieces.append(piece)
        if len(pieces) == most:
            break
    return pieces


def test_the_pieces_are_the_answer():
    stream = Stream(three)
    assert list(stream) == ["a", "b", "c"] and list(stream) == []
    assert stream.answer.text == "abc"
    assert Stream(three).answer.text == "abc", "without reading the pieces"
    assert asyncio.run(collect(Stream(three))) == ["a", "b", "c"]


def test_an_error_comes_through_every_time():
    stream = Stream(broken)
    assert next(stream) == "a"
    for _ in range(2):
        with pytest.raises(ValueError, match="on the way"):
            next(stream)
    with pytest.raises(ValueError, match="on the way"):
        _ = stream.answer
    with pytest.raises(ValueError, match="on the way"):
        asyncio.run(collect(Stream(broken)))


def test_a_loop_that_is_left_ends_the_work():
    work = Endless()
    for piece in Stream(work):
        if piece == "3":
            break
    assert work.ended.wait(LONG)
    work = Endless()
    assert asyncio.run(collect(Stream(work), 3)) == ["0", "1", "2"]
    assert work.ended.wait(LONG)


def test_an_error_in_the_loop_ends_the_work():
    work = Endless()

    def read() -> None:
        for _ in Stream(work):
            raise KeyError("mine")

    with pytest.raises(KeyError):
        read()
    assert work.ended.wait(LONG)


@pytest.mark.parametrize("how", ["with", "close"])
def test_a_stream_with_a_name_is_closed(how):
    work = Endless()
    stream = Stream(work)
    if how == "with":
        with stream:
            next(stream)
    else:
        stream.close()
    assert work.ended.wait(LONG)
    assert list(stream) == []
    with pytest.raises(Cancelled):
        _ = stream.answer


def test_a_task_that_is_cancelled_ends_the_work():
    work = Endless()

    async def main() -> None:
        stream = Stream(work)
        task = asyncio.create_task(collect(stream, 10**9))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with aclosing(Stream(Endless())) as other:
            await anext(other)

    asyncio.run(main())
    assert work.ended.wait(LONG)


def test_waiting_leaves_the_event_loop_free():
    ticked = threading.Event()

    def work(put, cancel):
        assert ticked.wait(LONG), "the loop did nothing else while it waited"
        put("a")
        return Answer("a", {}, None, None)

    async def tick() -> None:
        await asyncio.sleep(0.01)
        ticked.set()

    async def main() -> list[str]:
        pieces, _ = await asyncio.gather(collect(Stream(work)), tick())
        return pieces

    assert asyncio.run(main()) == ["a"]
