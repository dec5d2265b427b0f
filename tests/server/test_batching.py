"""Questions of many clients at once: what is answered together, what is not, and who goes away."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from fopru_graph.graph import Cancelled, Graph, NodeText
from fopru_graph.pipeline_model import PipelineModel
from fopru_graph.server.settings import Limits, Settings
from tests.server.asking import COLOUR, SIGN, SIGN_ASKED, TAXI, TAXI_ASKED, TEXT, image, user
from tests.server.conftest import Client, Serve, served


def openai_client(client: Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.address}/v1", api_key="none", max_retries=0, timeout=120)


def test_many_clients_at_once_get_the_answers_that_they_get_alone(serve: Serve) -> None:
    client = openai_client(serve(batch_size=4, batch_seconds=0.2))
    asked = [(SIGN_ASKED, TEXT, SIGN), (TAXI_ASKED, COLOUR, TAXI), (user(image(TAXI), TEXT), TEXT, TAXI)]
    model = PipelineModel(Graph.load("fopru_fastv"))
    alone = [model.answer(question, picture).text for _, question, picture in asked]

    def ask(number: int) -> Any:
        message = asked[number % len(asked)][0]
        ratio = 0.25 if number < 24 else 0.5
        return client.chat.completions.create(
            model="fopru_fastv", messages=[message], extra_body={"ratio": ratio}, max_tokens=16
        )

    with ThreadPoolExecutor(32) as threads:
        replies = list(threads.map(ask, range(32)))
    assert [reply.choices[0].message.content for reply in replies[:24]] == [alone[n % 3] for n in range(24)]
    assert {reply.fopru["visual_tokens"]["final"] for reply in replies[:24]} == {64}
    assert {reply.fopru["visual_tokens"]["final"] for reply in replies[24:]} == {127}
    batches = [reply.fopru["batch"] for reply in replies]
    assert 2 <= max(batches) <= 4
    counts = [(reply.usage.prompt_tokens, reply.usage.completion_tokens) for reply in replies[:24]]
    assert counts == [counts[n % 3] for n in range(24)], "the padding of a batch is no token of a question's"


def test_one_that_fails_spoils_no_other_answer(serve: Serve) -> None:
    client = openai_client(serve(batch_size=4, batch_seconds=0.5))
    messages = [SIGN_ASKED, user(image(SIGN)), SIGN_ASKED]  # the second asks nothing

    def ask(message: Any) -> Any:
        try:
            return client.chat.completions.create(model="fopru_fastv", messages=[message]).choices[0].message.content
        except openai.BadRequestError as error:
            return error.body["message"]

    with ThreadPoolExecutor(3) as threads:
        first, failed, second = threads.map(ask, messages)
    assert first == second == "stop" and "nothing is asked" in failed


class Endless:
    """In place of `PipelineModel.answer`: says a word again and again until it is told to end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started, self.ended = threading.Semaphore(0), threading.Semaphore(0)
        self.count = 0
        monkeypatch.setattr(PipelineModel, "answer", self._answer)

    def _answer(self, *_asked: Any, on_event: Any, cancel: Any, **_options: Any) -> None:
        self.count += 1
        self.started.release()
        while not cancel.wait(0.01):
            if on_event:
                on_event(NodeText("generate", "again "))
        self.ended.release()
        raise Cancelled


def test_a_client_that_closes_its_stream_ends_the_work(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    endless, client = Endless(monkeypatch), openai_client(serve())
    with client.chat.completions.create(model="fopru_fastv", messages=[SIGN_ASKED], stream=True) as stream:
        words = [chunk.choices[0].delta.content for chunk, _ in zip(stream, range(4), strict=False)]
        assert words == ["", "again ", "again ", "again "]
    assert endless.ended.acquire(timeout=60)
    monkeypatch.undo()
    reply = client.chat.completions.create(model="fopru_fastv", messages=[SIGN_ASKED])
    assert reply.choices[0].message.content == "stop", "the thread is free again"


def test_a_client_that_goes_away_before_its_turn_is_not_answered(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()
    endless, client = Endless(monkeypatch), openai_client(server)
    first = client.chat.completions.create(model="fopru_fastv", messages=[SIGN_ASKED], stream=True)
    assert endless.started.acquire(timeout=60)
    for stream in (False, True):
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="fopru_fastv", messages=[TAXI_ASKED], stream=stream, timeout=0.5)
    for _ in range(5):  # by then the server has noticed
        assert server.ask("GET", "/health").status == 200
    first.close()
    assert endless.ended.acquire(timeout=60)
    monkeypatch.undo()
    assert client.chat.completions.create(model="fopru_fastv", messages=[SIGN_ASKED]).fopru["batch"] == 1
    assert endless.count == 1


def test_more_than_may_wait_are_sent_away(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    endless, client = Endless(monkeypatch), openai_client(serve(limits=Limits(waiting=2)))
    options: dict[str, Any] = {"model": "fopru_fastv", "messages": [SIGN_ASKED], "stream": True}
    first = client.chat.completions.create(**options)
    assert endless.started.acquire(timeout=60)
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(client.chat.completions.create, **options)
        while True:  # until the second waits, the third is the second
            with pytest.raises((openai.RateLimitError, openai.APITimeoutError)) as refused:
                client.chat.completions.create(**options, timeout=0.2)
            if isinstance(refused.value, openai.RateLimitError):
                break
        assert refused.value.code == "busy"
        first.close()
        assert endless.started.acquire(timeout=60), "whoever waited has a turn"
        second.result(60).close()


def test_a_server_that_ends_does_not_wait_for_answers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Endless(monkeypatch)

    def ask(client: openai.OpenAI) -> str:
        words = ""
        for chunk in client.chat.completions.create(model="fopru_fastv", messages=[SIGN_ASKED], stream=True):
            words += chunk.choices[0].delta.content
        return words

    with ThreadPoolExecutor(1) as threads:
        with served(settings) as client:
            asked = threads.submit(ask, openai_client(client))
            assert endless.started.acquire(timeout=60)
        assert endless.ended.acquire(timeout=60)
        with pytest.raises(openai.APIError, match="the server ends"):
            asked.result(60)
