"""The nodes that take long say how far they are, and end on the way where the run is cancelled."""

from __future__ import annotations

import pytest

from fopru_graph.graph import Cancelled, CancelToken, Executor, Graph, MemoryCache, NodeProgress, NodeStarted, Ref

TOKENS = 5


@pytest.fixture(scope="module")
def executor():
    """Keeps the model and the encoded picture."""
    return Executor(cache=MemoryCache())


def pipeline():
    graph = Graph.load("pipelines/fopru_rank.yaml")
    graph.set("generate.max_new_tokens", TOKENS)
    graph.set("generate.min_new_tokens", TOKENS)
    return graph


def told(events, text):
    """What was told of the steps called ``text``: how many were done, in turn; and of how many."""
    found = [event for event in events if isinstance(event, NodeProgress) and event.text == text]
    return [event.i for event in found], {event.n for event in found}


def test_loading_encoding_and_generating_tell_how_far_they_are(executor):
    events = []
    result = executor.run(pipeline(), to="generate", on_event=events.append)
    model = executor.run(pipeline(), to="model")["output"]
    weights, (count,) = told(events, "weights")
    assert weights == list(range(count + 1)) and count > 1
    layers = model.family.run_layers
    assert told(events, "layers") == (list(range(layers + 1)), {layers})
    assert len(result["generation"].token_ids[0]) == TOKENS
    assert told(events, "tokens") == ([1, 2, 3, 4, 5], {TOKENS})
    started = [event.node for event in events if isinstance(event, NodeStarted)]
    nodes = [event.node for event in events if isinstance(event, NodeProgress)]
    assert list(dict.fromkeys(nodes)) == [node for node in started if node in ("model", "encode", "generate")]


def test_each_token_of_a_batch_is_told_once(executor):
    graph, events = pipeline(), []
    graph.set("encode.image", [Ref("image"), Ref("image")])
    graph.set("generate.prompt", ["what does the text say ?", "what colour is the star ?"])
    result = executor.run(graph, to="generate", on_event=events.append)
    assert len(result["text"]) == 2 and told(events, "tokens") == ([1, 2, 3, 4, 5], {TOKENS})


def test_stock_generate_tells_how_far_it_is(executor):
    graph, events = pipeline(), []
    graph.add("StockGenerate", "stock", model=Ref("model"), image=Ref("image"), prompt="what ?", max_new_tokens=TOKENS)
    generation = executor.run(graph, to="stock", on_event=events.append)["generation"]
    count = len(generation.token_ids[0])
    assert count and told(events, "tokens") == (list(range(1, count + 1)), {TOKENS})


@pytest.mark.parametrize("node", ["model", "encode", "generate"])
def test_a_run_that_is_cancelled_ends_at_the_next_step(node):
    token, events = CancelToken(), []

    def on_event(event):
        events.append(event)
        if isinstance(event, NodeProgress) and event.node == node:
            token.cancel()

    with pytest.raises(Cancelled) as stopped:
        Executor().run(pipeline(), to="generate", on_event=on_event, cancel=token)
    assert sum(isinstance(event, NodeProgress) and event.node == node for event in events) == 1
    assert node not in stopped.value.record.nodes


def test_a_listener_that_fails_while_a_model_loads_is_heard():
    def on_event(event):
        if isinstance(event, NodeProgress):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Executor().run(pipeline(), to="model", on_event=on_event)
