"""A pipeline as a function of pictures and questions, on the demo model."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import PIL.Image
import pytest

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled, CancelToken, Graph, Node, PipelineError, Ref, Registry, node
from fopru_graph.lvlm.inputs.images import load_image
from fopru_graph.pipeline_model import PipelineModel
from tests.lvlm.zoo import ZOO

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
    with pytest.raises(UserError, match="made of int"):
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


def test_other_inputs_are_set_for_one_question(model):
    chat = [{"role": "user", "content": f"<image> {TEXT}"}, {"role": "assistant", "content": "stop"}]
    sets = {"ratio": 0.5, f"{model.generating}.messages": chat}
    answer = model.answer(COLOUR, [SIGN], sets=sets)
    assert answer.report["visual_tokens"]["final"] == 127
    assert answer.report["kv_lengths"][0] > model.answer(COLOUR, [SIGN], sets={"ratio": 0.5}).report["kv_lengths"][0]
    assert model.answer(COLOUR, [SIGN]).report["visual_tokens"]["final"] == 64, "nothing of it stays"
    both = model.answers([(TEXT, SIGN), (COLOUR, TAXI)], 8, sets={"ratio": 0.5})
    assert [each.report["visual_tokens"]["final"] for each in both] == [127, 127]
    assert {each.report["samples"] for each in both} == {2}
    sampled = model.answers([(TEXT, SIGN), (COLOUR, TAXI)], sets={f"{model.generating}.temperature": 0.5})
    assert {each.report["samples"] for each in sampled} == {1}, "a batch would draw for all of it in turn"
    with pytest.raises(PipelineError, match="less than or equal to 1"):
        model.answer(TEXT, [SIGN], sets={"ratio": 2})


@pytest.mark.parametrize("pipeline", ["fopru_fastv", "sparsevlm", "baseline"])
def test_a_question_about_no_picture_goes_to_the_language_model_alone(loaded, pipeline):
    answer = PipelineModel(Graph.load(pipeline), loaded).answer(TEXT, [])
    assert answer.report["visual_tokens"]["encoded"] == 0
    graph = Graph.load("baseline")
    graph.set("generate.tokens", None)
    assert answer.text == graph.run(to="generate")["text"]


def test_an_answer_says_whether_it_came_to_its_end(model):
    whole, cut = model.answer(TEXT, [SIGN]), model.answer(TEXT, [SIGN], 1)
    assert (whole.result["generation"].ended, cut.result["generation"].ended) == ((True,), (False,))
    assert model.answers([(TEXT, SIGN), (COLOUR, TAXI)], 1)[0].result["generation"].ended == (False, False)


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
    with pytest.raises(UserError, match="exactly one generating node is needed, there are 2: generate, again"):
        PipelineModel(graph, loaded)


def test_it_can_be_stopped(loaded):
    token = CancelToken()
    model = PipelineModel(Graph.load("pipelines/baseline.yaml"), loaded, token)
    token.cancel()
    with pytest.raises(Cancelled):
        model.answer(TEXT, [SIGN])
    token.clear()
    assert model.answer(TEXT, [SIGN]).text == "stop"


def sub_graph(**inputs):
    graph = Graph("sign")
    graph.folder = Path()
    sign = graph.add("./pipelines/fopru_rank.yaml", "sign", **inputs)
    graph.output("text", sign.text)
    return graph


@pytest.mark.parametrize("prompt", [None, "fixed in the file", "$inputs"])
def test_a_pipeline_in_a_sub_graph_answers_like_the_pipeline_itself(loaded, prompt):
    graph = sub_graph(image="demo:night-cafe")
    if prompt is not None:
        graph.nodes["sign"].inputs["prompt"] = graph.input("q", "str", "x") if prompt == "$inputs" else prompt
    graph.set("sign/prune.ratio", 0.5)
    model, plain = PipelineModel(graph, loaded), Graph.load("pipelines/fopru_rank.yaml")
    plain.set("prune.ratio", 0.5)
    alone = PipelineModel(plain, loaded)
    assert model.handle is alone.handle
    for question, picture in ((TEXT, SIGN), (COLOUR, TAXI), (TEXT, TAXI)):
        ours, its = model.answer(question, [picture]), alone.answer(question, [picture])
        assert (ours.text, ours.report["visual_tokens"]) == (its.text, its.report["visual_tokens"])
    assert "sign/prune" in model.last_run().by_node


@node(category="order")
class Asked(Node):
    """Remembers the question that it is asked."""

    questions: ClassVar[list[str]] = []

    def run(self, question: str, tokens: values.VisualTokens) -> values.VisualTokens:
        self.questions.append(question)
        return tokens


def test_a_question_reaches_every_node_of_a_sub_graph_that_holds_the_same_text(loaded, tmp_path):
    text = Path("pipelines/baseline.yaml").read_text()
    text = text.replace("tokens: $project", "tokens: $asked").replace(
        "  generate:", "  asked: {type: Asked, inputs: {question: $inputs.prompt, tokens: $project}}\n  generate:"
    )
    (tmp_path / "block.yaml").write_text(text)
    registry = Registry.default()
    registry.add(Asked)
    graph = Graph("asked", registry=registry)
    graph.folder = tmp_path
    graph.output("text", graph.add("./block.yaml", "block").text)
    PipelineModel(graph, loaded).answer(TEXT, [SIGN])
    assert Asked.questions == [TEXT]


def switched(when):
    graph = Graph.load("pipelines/fopru_rank.yaml")
    given = dict(graph.node("generate").inputs)
    all_tokens = graph.add("Project", "all", model=given["model"], features=Ref("encode"))
    other = graph.add("LLMGenerate", "baseline", **given | {"tokens": all_tokens})
    graph.outputs.clear()
    graph.add("Switch", "switch", when=when, then=Ref("generate", "text"), otherwise=other.text)
    graph.output("text", Ref("switch"))
    return graph


def test_of_a_switch_the_branch_that_is_taken_answers(loaded):
    for when, kept in ((True, 64), (False, 256)):
        answer = PipelineModel(switched(when), loaded).answer(TEXT, [SIGN])
        assert answer.report["visual_tokens"]["kept"] == kept


def test_the_size_that_the_model_saw_is_that_after_every_resizing(tmp_path):
    family = ZOO["qwen2_5_vl"].build("eager")
    family.model.save_pretrained(tmp_path)
    family.processor.image_processor.save_pretrained(tmp_path)
    family.processor.tokenizer.chat_template = family.processor.chat_template
    family.processor.tokenizer.save_pretrained(tmp_path)
    picture, seen = PIL.Image.new("RGB", (300, 170)), {}
    for name in ("baseline", "downsample"):
        graph = Graph.load(f"pipelines/{name}.yaml")
        graph.set("model", str(tmp_path))
        model = PipelineModel(graph)
        for question in ("where is it ?", "where is another ?"):  # the second finds its picture in the cache
            report = model.answer(question, picture, 2).report
            seen[name] = model.seen_size()
            width, height = seen[name]
            patch = family.tower.config.patch_size * family.merge_side
            assert width * height // patch**2 == report["visual_tokens"]["encoded"] and width > height
    assert seen["downsample"] < seen["baseline"] != picture.size


def test_a_pipeline_that_encodes_elsewhere_knows_no_size(loaded):
    model = PipelineModel(Graph.load("pipelines/baseline.yaml"), loaded)
    model._encoders = []
    with pytest.raises(UserError, match="tells the size"):
        model.seen_size()
