"""`pruned` around the stock generate of a plain transformers model, here the demo."""

from __future__ import annotations

import threading

import pytest
import torch
import transformers

from fopru_graph import Graph, PipelineModel, pruned
from fopru_graph.errors import UserError
from fopru_graph.graph import PipelineError
from fopru_graph.lvlm.inputs.images import load_image
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.lvlm.loading.checkpoint import DEMO

SIGN, TAXI = (load_image(f"demo:{name}").picture for name in ("street-sign", "taxi-rank"))
TEXT, COLOUR = "what does the text say ?", "what colour is the star ?"


@pytest.fixture(scope="module")
def model():
    return transformers.LlavaForConditionalGeneration.from_pretrained(DEMO, dtype="float32")


@pytest.fixture(scope="module")
def processor():
    return transformers.AutoProcessor.from_pretrained(DEMO)


def asked(processor, *questions, pictures=(SIGN,)):
    texts = [f"USER: {'' if '<image>' in text else '<image>'}\n{text} ASSISTANT:" for text in questions]
    return processor(images=list(pictures), text=texts, return_tensors="pt", padding=True, padding_side="left")


@pytest.fixture(scope="module")
def ask():
    """A pipeline as a function; all share one loaded model."""
    loaded = {}
    return lambda graph: PipelineModel(graph, loaded)


@pytest.fixture(scope="module")
def inputs(processor):
    return asked(processor, TEXT)


@pytest.mark.parametrize("name", ["fopru_rank", "fopru_fastv", "sparsevlm", "prumerge", "visionzip"])
def test_it_answers_as_the_pipeline_does(model, processor, inputs, ask, name):
    own = ask(Graph.load(f"pipelines/{name}.yaml")).answer(TEXT, "demo:street-sign")
    with pruned(model, processor, name) as seen:
        ids = model.generate(**inputs, max_new_tokens=8)
    assert processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip() == own.text
    assert seen.visual_tokens == own.report["visual_tokens"]
    assert list(seen.kv_lengths) == own.report["kv_lengths"]


def test_a_file_a_graph_and_settings_choose_what_is_kept(model, inputs):
    for pipeline in ("pipelines/fopru_rank.yaml", Graph.load("pipelines/fopru_rank.yaml")):
        for sets in ({"ratio": 0.125}, {"prune.ratio": 0.125}, {"prune.tokens": 32}):
            with pruned(model, None, pipeline, **sets) as seen:
                model.generate(**inputs, max_new_tokens=1)
            assert seen.visual_tokens["kept"] == 32
    with pruned(model, pipeline="fastv", ratio=0.5) as seen:
        model.generate(**inputs, max_new_tokens=1)
    assert seen.visual_tokens["kept"] == 256 and seen.visual_tokens["final"] == 128


def test_kept_tokens_have_the_positions_that_are_asked_for(model, processor, ask):
    inputs = asked(processor, COLOUR, pictures=(TAXI,))
    options = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
    for positions in ("original", None):
        graph = Graph.load("fopru_rank")
        graph.set("positions", positions)
        graph.set("generate.logprobs", True)
        own = ask(graph).answer(COLOUR, "demo:taxi-rank").result["generation"]
        with pruned(model, processor, positions=positions):
            logits = model.generate(**inputs, **options).logits[0]
        assert logits.log_softmax(-1)[0, own.token_ids[0][0]].item() == pytest.approx(own.logprobs[0][0], abs=1e-5)


def test_a_padded_batch_is_each_alone(model, processor):
    batch = asked(processor, TEXT, f"<image> {COLOUR} <image>", pictures=(SIGN, TAXI, SIGN))
    with pruned(model, processor) as seen:
        ids = model.generate(**batch, max_new_tokens=4)[:, batch["input_ids"].shape[1] :]
        assert seen.visual_tokens["kept"] == 3 * 64 and len(seen.kept) == 3
        for row, alone in enumerate(
            (asked(processor, TEXT), asked(processor, f"<image> {COLOUR} <image>", pictures=(TAXI, SIGN)))
        ):
            expected = model.generate(**alone, max_new_tokens=4)[0, alone["input_ids"].shape[1] :]
            assert ids[row, : len(expected)].tolist() == expected.tolist()


def test_a_prompt_of_a_batch_may_have_no_picture(model, processor):
    texts = ["USER: how many shapes are there ? ASSISTANT:", f"USER: <image>\n{TEXT} ASSISTANT:"]
    batch = processor(images=[SIGN], text=texts, return_tensors="pt", padding=True, padding_side="left")
    with pruned(model, processor, "fopru_fastv") as seen, torch.inference_mode():
        ids = model.generate(**batch, max_new_tokens=4)[:, batch["input_ids"].shape[1] :]
    words = processor.tokenizer(texts[0], return_tensors="pt")
    alone = model.generate(**words, max_new_tokens=4)[0, words["input_ids"].shape[1] :]
    assert ids[0, : len(alone)].tolist() == alone.tolist()
    assert processor.decode(ids[1], skip_special_tokens=True).strip() == "stop"
    assert seen.visual_tokens["final"] == 64


def test_beams_are_those_of_the_stock_search_through_the_pruned_prompt(model, processor, inputs, ask):
    """Here the stock search gets the pruned prompt's embeddings, which for LLaVA is the same."""
    handle = ask(Graph.load("fopru_rank"))
    handle.answer(TEXT, "demo:street-sign")
    tokens = handle.last_run().by_node["project"]["output"]
    prompt = build_prompt(handle.handle.family, [TEXT], tokens)
    options = {"max_new_tokens": 4, "num_beams": 3, "num_return_sequences": 2}
    expected = model.generate(inputs_embeds=prompt.embeds.clone(), attention_mask=prompt.attention_mask, **options)
    with pruned(model, processor) as seen:
        ids = model.generate(**inputs, **options)
    assert ids[:, inputs["input_ids"].shape[1] :].tolist() == expected.tolist()
    assert seen.visual_tokens["kept"] == 64 and len(seen.kept[0]) == 64


def test_a_batch_with_beams_is_each_alone_when_tokens_go_inside_the_model_too(model, processor):
    batch = asked(processor, TEXT, f"<image> {COLOUR} <image>", pictures=(SIGN, TAXI, SIGN))
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "num_beams": 2}
    with pruned(model, processor, "fopru_fastv") as seen:
        ids = model.generate(**batch, **options)[:, batch["input_ids"].shape[1] :]
        assert seen.visual_tokens["final"] == 3 * 64
        alone = asked(processor, f"<image> {COLOUR} <image>", pictures=(TAXI, SIGN))
        expected = model.generate(**alone, **options)[:, alone["input_ids"].shape[1] :]
    assert ids[1].tolist() == expected[0].tolist()


class Heard(transformers.generation.streamers.BaseStreamer):
    def __init__(self):
        self.put, self.heard = self._put, []

    def _put(self, value):
        self.heard.append(value.flatten().tolist())

    def end(self):
        self.heard.append("end")


def test_options_of_generate_work_as_without(model, processor, inputs):
    length, heard = inputs["input_ids"].shape[1], Heard()
    with pruned(model, processor) as seen:
        output = model.generate(
            inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=inputs["pixel_values"],
            generation_config=transformers.GenerationConfig(max_new_tokens=5, min_new_tokens=5, repetition_penalty=1.2),
            streamer=heard,
            return_dict_in_generate=True,
            output_logits=True,
            output_hidden_states=True,
        )
        assert output.sequences.shape == (1, length + 5) and len(output.logits) == 5
        assert heard.heard == [inputs["input_ids"][0].tolist(), *output.sequences[:, length:].T.tolist(), "end"]
        assert output.hidden_states[0][-1].shape[1] == length - 256 + 64 == seen.kv_lengths[0] - 4
        output.sequences[:, 0] = 0  # a tensor as any other: it may be changed
    with pruned(model, processor, ratio=1.0):
        drawn = []
        for generate in (model.generate, vars(type(model)).get("generate", type(model).generate).__get__(model)):
            torch.manual_seed(3)
            drawn.append(generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=True, temperature=3.0))
    assert torch.equal(*drawn)


def test_a_call_without_pictures_passes_through(model, processor):
    words = processor.tokenizer("USER: how many ? ASSISTANT:", return_tensors="pt")
    expected = model.generate(**words, max_new_tokens=3)
    with pruned(model, processor) as seen:
        assert torch.equal(model.generate(**words, max_new_tokens=3), expected)
        assert seen.visual_tokens is None
        model.generate(**asked(processor, TEXT), max_new_tokens=1)
        assert seen.visual_tokens["kept"] == 64
        model.generate(**words, max_new_tokens=3)
        assert seen.visual_tokens is None


def hooks(model):
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


REFUSED = {
    "lookup": ({"prompt_lookup_num_tokens": 3}, "generation mode assisted_generation"),
    "cache": ({"use_cache": False}, "use_cache=False"),
    "static": ({"cache_implementation": "static"}, "cannot shorten a StaticCache"),
    "guidance": ({"guidance_scale": 2.0}, "guidance_scale=2.0"),
    "chunks": ({"prefill_chunk_size": 16}, "prefill_chunk_size"),
    "embedded": ({"inputs_embeds": torch.zeros(1, 3, 8)}, "inputs_embeds cannot be given"),
    "video": ({"pixel_values_videos": torch.zeros(1)}, "pixel_values_videos cannot be given"),
    "no ids": ({"input_ids": None}, "pictures came without input_ids"),
    "right": ({"attention_mask": torch.tensor([[1] * 267 + [0] * 2])}, "padded at the right"),
    "other ids": ({"input_ids": torch.ones(1, 9, dtype=torch.int64), "attention_mask": None}, "hold 0 placeholders"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_pruned_is_refused_in_a_sentence_and_leaves_the_model_as_it_was(model, processor, inputs, what):
    options, sentence = REFUSED[what]
    before = hooks(model)
    with pruned(model, processor, "fopru_fastv"):
        with pytest.raises(UserError, match=sentence):
            model.generate(**dict(inputs) | {"max_new_tokens": 3} | options)
        assert hooks(model) == before
        model.generate(**inputs, max_new_tokens=1)


def test_the_end_of_a_block_takes_everything_away_after_an_exception_too(model, processor, inputs):
    before, stock = hooks(model), model.generate(**inputs, max_new_tokens=3)

    def broken(*_):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"), pruned(model, processor, "fopru_fastv"):
        model.generate(**inputs, max_new_tokens=3, logits_processor=[broken])
    assert hooks(model) == before and "generate" not in vars(model)
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), stock)
    with pruned(model, processor), pytest.raises(UserError, match="is pruned already"), pruned(model, processor):
        pass
    model.generate = stock_generate = model.generate
    with pruned(model, processor):
        assert model.generate is not stock_generate
    assert vars(model).pop("generate") is stock_generate


def test_a_forward_of_the_model_is_not_pruned(model, processor, inputs):
    expected = model(**inputs).logits
    with pruned(model, processor), torch.no_grad():
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize(
    ("pipeline", "options", "sentence"),
    [
        ("cdpruner", {}, "reads the question"),
        ("downsample", {}, "encode reads Downsample"),
        ("pipelines/video/evs.yaml", {}, "reads LoadVideo"),
        ("fopru_mass", {"ratio": 0.5}, "has no ratio to set"),
        ("fopru_rank", {"ratio": 1.5}, "not in"),
        ("fopru_rank", {"prompt": "what ?"}, "prompt comes from the call"),
        ("fopru_rank", {"prune.shape": 1}, "no input 'shape'"),
        ("no_such", {}, "no pipeline of that name ships"),
    ],
)
def test_pipelines_that_cannot_prune_a_call_are_refused(model, processor, pipeline, options, sentence):
    with pytest.raises((UserError, PipelineError), match=sentence), pruned(model, processor, pipeline, **options):
        pass
    assert "generate" not in vars(model)


def test_models_that_are_not_served_or_wrapped_are_refused(model, processor):
    with (
        pytest.raises(UserError, match="architecture 'llama' is not supported"),
        pruned(
            transformers.LlamaForCausalLM(transformers.LlamaConfig(hidden_size=32, num_hidden_layers=0, vocab_size=9)),
            processor,
        ),
    ):
        pass
    wrapped = torch.nn.DataParallel(model)
    wrapped.config = model.config
    with pytest.raises(UserError, match="is a DataParallel, not a LlavaForConditionalGeneration"), pruned(wrapped):
        pass
    bare = transformers.LlavaForConditionalGeneration(model.config)
    bare.name_or_path = bare.config.name_or_path = "no/where"
    with pytest.raises(UserError, match="the processor of no/where does not load"), pruned(bare):
        pass


def test_threads_wait_for_one_another(model, processor, inputs):
    other = asked(processor, COLOUR, pictures=(TAXI,))
    with pruned(model, processor, "fopru_fastv"):
        expected = [model.generate(**each, max_new_tokens=3).tolist() for each in (inputs, other)]
        got = {}

        def work(name, given):
            got[name] = [model.generate(**given, max_new_tokens=3).tolist() for _ in range(2)]

        threads = [threading.Thread(target=work, args=pair) for pair in enumerate((inputs, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [got[0], got[1]] == [[answer] * 2 for answer in expected]


def test_transformers_own_pipeline_is_pruned_too(model, processor):
    ask = transformers.pipeline("image-text-to-text", model=model, processor=processor)
    chat = [{"role": "user", "content": [{"type": "image", "image": SIGN}, {"type": "text", "text": TEXT}]}]
    with pruned(model, processor) as seen:
        (answer,) = ask(text=chat, max_new_tokens=4, return_full_text=False)
    assert answer["generated_text"].strip() == "stop" and seen.visual_tokens["kept"] == 64
