"""The chat interface as the official client sees it: answers are those of `PipelineModel`, on the bundled model."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from typing import Any

import openai
import pytest

from fopru_graph.graph import Graph
from fopru_graph.pipeline_model import PipelineModel
from tests.server.asking import COLOUR, SIGN, SIGN_ASKED, TAXI, TAXI_ASKED, TEXT, image, text, user
from tests.server.conftest import Answer, Client


@pytest.fixture(scope="package")
def client(server: Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="package")
def ask(client: openai.OpenAI) -> Callable[..., Any]:
    def asked(*messages: dict[str, Any], model: str = "fopru_fastv", **options: Any) -> Any:
        return client.chat.completions.create(model=model, messages=list(messages), **options)

    return asked


@pytest.fixture(scope="module")
def pipelines() -> dict[str, PipelineModel]:
    loaded: dict[str, Any] = {}
    return {name: PipelineModel(Graph.load(name), loaded) for name in ("fopru_fastv", "baseline")}


@pytest.fixture(scope="module")
def model(pipelines: dict[str, PipelineModel]) -> PipelineModel:
    return pipelines["fopru_fastv"]


# Answers


def test_a_picture_and_a_question(ask, model):
    reply, own = ask(SIGN_ASKED), model.answer(TEXT, SIGN)
    (choice,) = reply.choices
    assert (reply.object, reply.model, choice.index) == ("chat.completion", "fopru_fastv", 0)
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", own.text, "stop")
    assert own.text == "stop" and choice.logprobs is None
    new = own.report["new_tokens"]
    prompt = own.report["kv_lengths"][0] - new + 1
    assert (reply.usage.completion_tokens, reply.usage.prompt_tokens) == (new, prompt)
    assert reply.usage.total_tokens == new + prompt
    figures = reply.fopru
    assert figures["visual_tokens"] == {"encoded": 256, "kept": 128, "final": 64, "layer_average": 96.0}
    assert (figures["pipeline"], figures["ratio"], figures["batch"]) == ("fopru_fastv", 0.25, 1)
    assert figures["tpot_ms"] is None, "an answer of two tokens has no settled step"


def test_figures_have_times_where_they_are_this_questions_own(ask):
    picture = SIGN.copy()
    picture.putpixel((0, 0), (1, 2, 3))
    figures = ask(user(image(picture), TEXT), max_tokens=8).fopru
    assert figures["ttft_ms"] > 0


def test_a_text_as_content_is_a_question_about_no_picture(ask, model):
    reply, own = ask({"role": "user", "content": TEXT}), model.answer(TEXT, [])
    assert reply.choices[0].message.content == own.text
    assert reply.fopru["visual_tokens"]["encoded"] == 0


def test_several_pictures_stand_where_their_parts_do(ask, model):
    between = ask(user("is", image(SIGN), "or", image(TAXI), "a taxi ?"))
    own = model.answer("is<image>or<image>a taxi ?", [SIGN, TAXI])
    assert between.choices[0].message.content == own.text
    assert between.usage.prompt_tokens == own.report["kv_lengths"][0] - own.report["new_tokens"] + 1
    assert between.fopru["visual_tokens"]["encoded"] == 512
    first = ask(user(image(SIGN), image(TAXI), TEXT))
    assert first.choices[0].message.content == model.answer(TEXT, [SIGN, TAXI]).text
    after = ask(user(TEXT, image(SIGN)))
    assert after.choices[0].message.content == model.answer(f"{TEXT}<image>", SIGN).text


def test_history_and_system_are_the_models_to_read(ask, model):
    said = {"role": "assistant", "content": "stop"}
    rules = [{"role": "system", "content": "be brief"}, {"role": "developer", "content": [text("be kind")]}]
    reply = ask(*rules, SIGN_ASKED, said, user(COLOUR))
    before = [{"role": "user", "content": f"<image>{TEXT}"}, said]
    sets = {"generate.system": "be brief\nbe kind", "generate.messages": before}
    own = model.answer(COLOUR, SIGN, sets=sets)
    assert reply.choices[0].message.content == own.text
    assert reply.usage.prompt_tokens == own.report["kv_lengths"][0] - own.report["new_tokens"] + 1
    alone = ask(user(image(SIGN), COLOUR))
    assert reply.usage.prompt_tokens > alone.usage.prompt_tokens + 8
    later = ask(SIGN_ASKED, said, TAXI_ASKED)
    own = model.answer(f"<image>{COLOUR}", [SIGN, TAXI], sets={"generate.messages": before})
    assert later.choices[0].message.content == own.text


def test_inputs_of_the_pipeline_are_fields_of_the_request(ask):
    half = ask(SIGN_ASKED, extra_body={"ratio": 0.5, "positions": "original"}).fopru
    assert (half["ratio"], half["visual_tokens"]["kept"]) == (0.5, 181)
    assert ask(SIGN_ASKED).fopru["visual_tokens"]["kept"] == 128, "the next request has its own"
    assert ask(SIGN_ASKED, model="baseline").fopru["visual_tokens"]["final"] == 256
    assert ask(SIGN_ASKED, model="baseline").fopru["ratio"] is None


def test_an_answer_is_as_long_as_it_may_be(ask):
    for option in ({"max_tokens": 1}, {"max_completion_tokens": 1}, {"extra_body": {"max_new_tokens": 1}}):
        reply = ask(SIGN_ASKED, **option)
        assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (1, "length")


def test_sampling_follows_its_seed(ask, model):
    sets = {"generate.temperature": 2.0, "generate.seed": 7, "generate.top_p": 0.9}
    own = model.answer(COLOUR, TAXI, sets=sets).text
    for _ in range(2):
        reply = ask(TAXI_ASKED, temperature=2, seed=7, top_p=0.9)
        assert reply.choices[0].message.content == own
    assert ask(TAXI_ASKED, temperature=0, top_p=1, seed=3).choices[0].message.content == model.answer(COLOUR, TAXI).text


def test_logprobs_are_those_of_the_answers_tokens(ask, model):
    content = ask(SIGN_ASKED, logprobs=True).choices[0].logprobs.content
    own = model.answer(TEXT, SIGN, sets={"generate.logprobs": True}).report["logprobs"][0]
    assert [each.logprob for each in content] == pytest.approx(own)
    assert content[0].token == "stop" and bytes(content[0].bytes) == b"stop"


def test_what_others_clients_send_changes_nothing(ask):
    plain = ask(SIGN_ASKED).choices[0].message.content
    options = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "user": "me", "tools": [], "store": False}
    assert ask(SIGN_ASKED, response_format={"type": "text"}, **options).choices[0].message.content == plain
    names = ("max_tokens", "temperature", "top_p", "seed", "stop", "logprobs", "stream", "stream_options", "n", "tools")
    assert ask(SIGN_ASKED, **dict.fromkeys(names)).choices[0].message.content == plain, "null is no value"


# Streams


def test_a_stream_is_the_answer_in_pieces(ask, model):
    chunks = list(ask(SIGN_ASKED, stream=True, stream_options={"include_usage": True}))
    *pieces, last, usage = chunks
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"} and len({chunk.id for chunk in chunks}) == 1
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content for piece in pieces) == model.answer(TEXT, SIGN).text
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * len(pieces)
    assert last.choices[0].finish_reason == "stop" and last.fopru["visual_tokens"]["final"] == 64
    assert usage.choices == [] and usage.usage == ask(SIGN_ASKED).usage
    without = list(ask(SIGN_ASKED, stream=True))
    assert [chunk.usage for chunk in without] == [None] * len(without) and without[-1].choices[
        0
    ].finish_reason == "stop"


def test_a_stream_comes_piece_by_piece(server):
    body = {"model": "fopru_fastv", "messages": [SIGN_ASKED], "stream": True}
    answer = server.ask("POST", "/v1/chat/completions", json.dumps(body).encode(), content_type="application/json")
    assert answer.headers["Content-Type"] == "text/event-stream"
    *events, end = answer.body.decode().strip().split("\n\n")
    assert end == "data: [DONE]" and len(events) >= 3
    assert all(event.startswith("data: {") for event in events)


def test_what_fails_before_the_first_piece_is_told_as_without_a_stream(ask):
    with pytest.raises(openai.BadRequestError, match="less than or equal to 1"):
        ask(SIGN_ASKED, stream=True, extra_body={"ratio": 2})


def test_inputs_that_name_files_or_models_are_not_the_requests_to_set(serve):
    graph = Graph.load("fopru_rank")
    open_, closed = {"ratio", "max_new_tokens", "positions"}, {"model", "image", "prompt", "file", "device"}
    graph.set("picture.file", graph.input("file", "str", "kept.png"))
    graph.set("model.device", graph.input("device", "str", "cpu"))
    assert set(graph.inputs) == open_ | closed
    client = serve(pipelines={"fopru_rank": graph})
    described = json.loads(client.ask("GET", "/v1/models/fopru_rank").body)
    assert set(described["fopru"]["inputs"]) == open_
    for name in closed - {"model"}:  # which is the name of the pipeline
        body = json.dumps({"model": "fopru_rank", "messages": [SIGN_ASKED], name: "x"}).encode()
        answer = client.ask("POST", "/v1/chat/completions", body, content_type="application/json")
        assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, name)


# Models


def test_models_are_the_served_pipelines(client):
    models = {model.id: model for model in client.models.list()}
    assert list(models) == ["fopru_fastv", "fopru_rank", "baseline"]
    described = client.models.retrieve("fopru_fastv")
    assert described == models["fopru_fastv"] and described.owned_by == "fopru-graph"
    assert described.fopru["inputs"] == {"ratio": 0.25, "max_new_tokens": 64, "positions": None}
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("fopru_rang")
    assert error.value.code == "model_not_found" and "'fopru_rank'" in error.value.message


OTHERS = {
    "stock": """
        format: 1
        nodes:
          model: {type: LoadModel, inputs: {name: demo}}
          image: {type: LoadImage, inputs: {path: "demo:street-sign"}}
          answer: {type: StockGenerate, inputs: {model: $model, image: $image, prompt: "?"}}
        outputs: {text: $answer.text}
        """,
    "block": """
        format: 1
        inputs: {share: {type: float, default: 0.5}}
        nodes: {sign: {type: fopru_rank, inputs: {image: "demo:night-cafe", ratio: $inputs.share}}}
        outputs: {text: $sign.text}
        """,
}


def test_pipelines_of_other_forms_are_models_too(serve, model):
    server = serve(pipelines={name: Graph.loads(textwrap.dedent(text)) for name, text in OTHERS.items()})
    create = openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0).chat.completions.create
    reply = create(model="stock", messages=[SIGN_ASKED], temperature=0)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("stop", "stop")
    *pieces, last = create(model="stock", messages=[SIGN_ASKED], stream=True)
    assert "".join(piece.choices[0].delta.content for piece in pieces) == "stop", "it says nothing before its end"
    assert last.fopru["visual_tokens"]["final"] == 256
    with pytest.raises(openai.BadRequestError, match="does not take temperature") as error:
        create(model="stock", messages=[SIGN_ASKED], temperature=1)
    assert error.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="questions about pictures only"):
        create(model="stock", messages=[{"role": "user", "content": TEXT}])
    whole = create(model="block", messages=[SIGN_ASKED], extra_body={"share": 0.25})
    assert (whole.choices[0].message.content, whole.fopru["visual_tokens"]["final"]) == ("stop", 64)
    pieces = [chunk.choices[0].delta.content for chunk in create(model="block", messages=[TAXI_ASKED], stream=True)]
    assert "".join(filter(None, pieces)) == model.answer(COLOUR, TAXI).text


def test_a_pipeline_without_a_question_about_a_picture_is_no_model(serve, settings):
    blank = Graph("blank")
    blank.add("LoadModel", "model", name="demo")
    client = serve(pipelines={"blank": blank, "baseline": settings.pipelines["baseline"]})
    models = json.loads(client.ask("GET", "/v1/models").body)["data"]
    assert [model["id"] for model in models] == ["baseline"]
    body = json.dumps({"model": "blank", "messages": [SIGN_ASKED]}).encode()
    answer = client.ask("POST", "/v1/chat/completions", body, content_type="application/json")
    assert answer.status == 400 and "LoadImage" in json.loads(answer.body)["error"]["message"]


def test_a_model_that_cannot_be_loaded_is_the_servers_fault(serve, settings, capfd):
    broken = settings.pipelines["baseline"].copy()
    broken.set("model", "/nowhere/secret")
    client = serve(pipelines={"broken": broken, "fopru_rank": settings.pipelines["fopru_rank"]})
    body = json.dumps({"model": "broken", "messages": [SIGN_ASKED]}).encode()
    answer = client.ask("POST", "/v1/chat/completions", body, content_type="application/json")
    assert answer.status == 500 and b"broken cannot be loaded" in answer.body and b"secret" not in answer.body
    assert "/nowhere/secret" in capfd.readouterr().err
    body = json.dumps({"model": "fopru_rank", "messages": [SIGN_ASKED]}).encode()
    assert client.ask("POST", "/v1/chat/completions", body, content_type="application/json").status == 200


def test_an_unknown_model_is_not_found(ask):
    with pytest.raises(openai.NotFoundError) as error:
        ask(SIGN_ASKED, model="../fopru_fastv")
    assert (error.value.param, error.value.code, error.value.type) == (
        "model",
        "model_not_found",
        "invalid_request_error",
    )


# Refusals


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": "9"}, "max_tokens", "valid integer"),
        ({"n": 2}, "n", "not served"),
        ({"presence_penalty": 1}, "presence_penalty", "not served"),
        ({"tools": [{"type": "function"}]}, "tools", "not served"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not served"),
        ({"logprobs": True, "stream": True}, "logprobs", "in a stream"),
        ({"extra_body": {"ratios": 0.5}}, "ratios", "did you mean 'ratio'?"),
        ({"extra_body": {"prune.ratio": 0.5}}, "prune.ratio", "no input"),
        ({"extra_body": {"image": "/etc/passwd"}}, "image", "no input"),
        ({"extra_body": {"model_": "x", "prompt": "x"}}, "model_", "no input"),
        ({"extra_body": {"prompt": "x"}}, "prompt", "no input"),
        ({"extra_body": {"ratio": "$model"}}, None, "expects float"),
        ({"extra_body": {"ratio": {"node": "model"}}}, None, "expects float"),
        ({"extra_body": {"ratio": 0}}, None, "greater than 0"),
        ({"stop": "o"}, None, "this model's tokenizer"),  # it reached the model, whose tokenizer knows words alone
        ({"stop": ["o"] * 17}, "stop", "at most 16"),
    ],
)
def test_a_bad_request_says_what_is_wrong_and_where(ask, options, param, says):
    with pytest.raises(openai.BadRequestError, match=says) as error:
        ask(SIGN_ASKED, **options)
    assert (error.value.param, error.value.type) == (param, "invalid_request_error")
    assert "\n" not in error.value.body["message"]


@pytest.mark.parametrize(
    ("message", "param", "says"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "[0].content[0].image_url.url",
            "required",
        ),
        ({"role": "user", "content": [{"type": "video_url"}]}, "[0].content[0]", "does not match"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "[0].content[0].text", "valid string"),
        ({"role": "tool", "content": "x"}, "[0].role", "'user'"),
        ({"role": "user", "content": None}, "[0].content", "valid array"),
        ({"role": "assistant", "content": "x"}, "", "not the user's"),
        ({"role": "system", "content": "x"}, "", "not the user's"),
        ({"role": "user", "content": "what is in <image> ?"}, "[0]", "holds the text <image>"),
        ({"role": "user", "content": ""}, None, "nothing is asked"),
        (user(image(SIGN)), None, "nothing is asked"),
        ({"role": "system", "content": [image(SIGN)]}, "", "not the user's"),
    ],
)
def test_a_bad_message_says_what_is_wrong_and_where(ask, message, param, says):
    with pytest.raises(openai.BadRequestError, match=says) as error:
        ask(message)
    assert error.value.param == (None if param is None else f"messages{param}")


def test_pictures_are_the_users(ask):
    with pytest.raises(openai.BadRequestError, match="pictures are the user's"):
        ask(SIGN_ASKED, {"role": "assistant", "content": [image(SIGN)]}, user(TEXT))


@pytest.mark.parametrize("body", ["", "{", "[]", '"a"', '{"model": "fopru_fastv"}', '{"model": NaN}', "\xff"])
def test_a_body_that_is_no_request_is_refused(post: Callable[..., Answer], body: str):
    answer = post("/v1/chat/completions", body)
    assert answer.status == 400 and json.loads(answer.body)["error"]["type"] == "invalid_request_error"


def test_nothing_of_the_machine_is_told_in_an_error(ask):
    for options in ({"extra_body": {"ratio": 2}}, {"model": "nothing"}, {"stop": "o"}, {"max_tokens": 0}):
        with pytest.raises(openai.APIStatusError) as error:
            ask(SIGN_ASKED, **options)
        assert "/" not in error.value.body["message"] and ".yaml" not in error.value.response.text
