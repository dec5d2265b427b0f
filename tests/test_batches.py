"""Many questions, one run: answers and figures are those of each question alone. On the demo model."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, Node, Ref, Registry, node
from fopru_graph.lvlm.inputs.images import load_image
from fopru_graph.pipeline_model import PipelineModel

TEXT = "what does the text say ?"


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.fixture(scope="module")
def model(loaded):
    return PipelineModel(Graph.load("pipelines/fopru_fastv.yaml"), loaded)


BATCH = [
    (TEXT, "demo:street-sign"),
    ("is there a yellow star ?", load_image("demo:taxi-rank").picture),
    ("what colour is the star in <image> ?", "demo:taxi-rank"),
    (TEXT, ("cafe", load_image("demo:night-cafe").picture)),
    (TEXT, "demo:street-sign"),
]
OF_EACH = ("visual_tokens", "new_tokens", "visual_per_layer", "kv_lengths", "kv_bytes", "positions")


@pytest.mark.parametrize("pipeline", ["fopru_fastv", "cdpruner"])
def test_a_batch_gives_each_question_the_answer_and_the_figures_that_it_has_alone(loaded, pipeline):
    model = PipelineModel(Graph.load(f"pipelines/{pipeline}.yaml"), loaded)
    together, alone = model.answers(BATCH), [model.answer(prompt, [picture]) for prompt, picture in BATCH]
    assert model.batches and [answer.text for answer in together] == [answer.text for answer in alone]
    for of_many, single in zip(together, alone, strict=True):
        assert {key: of_many.report[key] for key in OF_EACH} == {key: single.report[key] for key in OF_EACH}
    assert [answer.report["samples"] for answer in together] == [4, 4, 1, 4, 4]  # a marker makes a batch of its own
    assert len({id(answer.result) for answer in together}) == 2, "one run for all that have no marker"
    assert [answer.ttft_ms for answer in together] == [None] * 5, "no question has a first token of its own"
    assert "each" not in together[0].report


def test_a_batch_is_limited_like_its_questions_and_may_be_empty_or_one(model):
    assert model.answers([]) == []
    assert model.answers([BATCH[0]])[0].report["samples"] == 1
    assert {answer.report["new_tokens"] for answer in model.answers(BATCH[:2], 1)} == {1}


def test_a_picture_that_cannot_be_read_fails_its_batch_by_name(model):
    with pytest.raises(UserError, match=r"no file 'gone\.png'"):
        model.answers([BATCH[0], (TEXT, "gone.png")])


def test_an_answer_of_a_batch_knows_the_size_of_its_own_picture(model, monkeypatch):
    answers = model.answers(BATCH)
    seen = model._executor.run(answers[1].result.plan.graph, targets=["encode"]).by_node["encode"]["output"]
    pixels = [tile[:, : 100 + number] for number, tile in enumerate(seen.pixels)]
    monkeypatch.setattr(type(model._executor), "run", lambda *_, **__: SimpleNamespace(
        by_node={"encode": {"output": replace(seen, pixels=tuple(pixels))}}
    ))  # fmt: skip
    assert [model.seen_size(answers[place])[1] for place in (0, 1, 3)] == [100, 101, 102]


@node(category="order")
class OneQuestion(Node):
    """Takes no list of questions."""

    def run(self, question: str, tokens: values.VisualTokens) -> values.VisualTokens:
        return tokens


@node(category="encode")
class OnePicture(Node):
    """Takes no list."""

    def run(self, image: values.Image) -> values.Image:
        return image


@pytest.mark.parametrize("reason", ["a node takes one picture", "a node takes one question", "sampled", "stock"])
def test_a_pipeline_that_cannot_take_a_batch_answers_one_by_one(loaded, reason):
    registry = Registry.default()
    registry.add(OneQuestion, OnePicture)
    graph = Graph.load("pipelines/baseline.yaml", registry)
    given = graph.node("generate").inputs
    if reason == "sampled":
        graph.set("generate.temperature", 0.5)
    elif reason == "a node takes one picture":
        graph.set("encode.image", graph.add("OnePicture", "look", image=Ref("image")))
    elif reason == "a node takes one question":
        graph.set(
            "generate.tokens", graph.add("OneQuestion", "asked", question=given["prompt"], tokens=given["tokens"])
        )
    else:
        asked = {"model": given["model"], "image": Ref("image"), "prompt": given["prompt"]}
        stock = graph.add("StockGenerate", "stock", **asked)
        graph.remove("picture")
        graph.remove("generate")
        graph.outputs.clear()
        graph.output("text", stock.text)
    model = PipelineModel(graph, loaded)
    answers = model.answers(BATCH[:2], 2)
    assert not model.batches and [answer.report["samples"] for answer in answers] == [1, 1]
    assert answers[0].text == "stop" and answers[0].ttft_ms is not None
