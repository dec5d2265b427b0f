"""A pipeline as a function of pictures and questions, on the demo model."""

from __future__ import annotations

import pytest

from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled, CancelToken, Graph
from fopru_graph.lvlm.inputs.images import load_image
from fopru_graph.pipeline_model import PipelineModel

SIGN, TAXI = (("sign", load_image("demo:street-sign").picture), ("taxi", load_image("demo:taxi-rank").picture))
TEXT, COLOUR = "what does the text say ?", "what colour is the star ?"


@pytest.fixture(scope="module")
def loaded():
    return {}


@pytest.fixture(scope="module")
def model(loaded):
    return PipelineModel(Graph.load("pipelines/fopru_fastv.yaml"), loaded)


def test_answers_are_those_of_the_pipeline_itself(model):
    for name, picture in (("street-sign", SIGN), ("taxi-rank", TAXI)):
        graph = Graph.load("pipelines/fopru_fastv.yaml")
        graph.set("image", f"demo:{name}")
        generation = graph.run(to="generate")["generation"]
        answered = model.answer(TEXT, [picture])
        assert answered.text == generation.texts[0]
        assert answered.report["visual_tokens"] == generation.report()["visual_tokens"]


def test_a_picture_is_a_path_or_pixels_and_needs_no_list(model, tmp_path):
    pixels = SIGN[1]
    pixels.save(tmp_path / "sign.png")
    expected = model.answer(TEXT, [SIGN]).text
    assert model.answer(TEXT, "demo:street-sign").text == expected
    for given in (pixels, [pixels], tmp_path / "sign.png", [str(tmp_path / "sign.png")]):
        answer = model.answer(TEXT, given)
        assert answer.text == expected and answer.ttft_ms is None, "the same pixels are encoded once"
    TAXI[1].save(tmp_path / "sign.png")
    assert model.answer(TEXT, tmp_path / "sign.png").text == model.answer(TEXT, [TAXI]).text != expected
    assert model.answer("<image> or <image> ?", ["demo:street-sign", TAXI[1]]).report["visual_tokens"]["encoded"] == 512
    with pytest.raises(UserError, match="not int"):
        model.answer(TEXT, 3)


def test_it_is_part_of_the_public_interface():
    import fopru_graph

    assert fopru_graph.PipelineModel is PipelineModel


def test_a_picture_is_encoded_once_and_then_its_time_is_not_known(model):
    first, second = model.answer(TEXT, [("again", SIGN[1])]), model.answer(COLOUR, [("again", SIGN[1])])
    assert first.ttft_ms > 0 and second.ttft_ms is None
    assert "encode" in first.result.timings and "encode" not in second.result.timings


def test_an_answer_does_not_depend_on_the_questions_before(model, loaded):
    alone = PipelineModel(Graph.load("pipelines/fopru_fastv.yaml"), loaded).answer(COLOUR, [TAXI])
    model.answer(TEXT, [TAXI])
    after = model.answer(COLOUR, [TAXI])
    assert (after.text, after.report["kv_bytes"]) == (alone.text, alone.report["kv_bytes"])
    assert after.report["reused_tokens"] == 0
    again = model.answer(COLOUR, [TAXI])
    assert again.report is not None and again.text == after.text


def test_several_pictures_in_one_question(model):
    answered = model.answer("<image> or <image> ?", [SIGN, TAXI])
    assert answered.report["visual_tokens"]["encoded"] == 512
    assert model.answer(TEXT, [SIGN, TAXI]).report["visual_tokens"]["final"] == 128


def test_a_look_gives_all_values_of_the_last_answer(model):
    model.answer(TEXT, [SIGN])
    seen = model.last_run().by_node
    assert len(seen["prune"]["output"].indices[0]) == 128 and seen["encode"]["output"].counts == (256,)


def test_the_model_is_shared_between_pipelines(loaded, model):
    other = PipelineModel(Graph.load("pipelines/baseline.yaml"), loaded)
    assert other.handle is model.handle


def test_a_question_reaches_every_node_that_reads_the_pipelines_prompt():
    graph = Graph.load("pipelines/baseline.yaml")
    graph.input("extra", "str", "x")
    graph.set("generate.prompt", "fixed in the file")
    assert PipelineModel(graph).answer(TEXT, [SIGN]).text == "stop"


def test_pipelines_that_cannot_be_asked_are_refused(loaded):
    graph = Graph.load("pipelines/baseline.yaml")
    graph.add("LoadImage", "second", path="demo:zoo-gate")
    with pytest.raises(UserError, match="there are 2"):
        PipelineModel(graph, loaded)
    graph.remove("second")
    given = graph.node("generate").inputs
    graph.output(
        "more", graph.add("LLMGenerate", "again", model=given["model"], tokens=given["tokens"], prompt="x").text
    )
    with pytest.raises(UserError, match="generating node"):
        PipelineModel(graph, loaded)


def test_it_can_be_stopped(loaded):
    token = CancelToken()
    model = PipelineModel(Graph.load("pipelines/baseline.yaml"), loaded, token)
    token.cancel()
    with pytest.raises(Cancelled):
        model.answer(TEXT, [SIGN])
    token.clear()
    assert model.answer(TEXT, [SIGN]).text == "stop"
