"""All shipped pipelines in the stand-in for ComfyUI, as they are exported, against our own engine."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from fopru_graph.comfy import extension, pictures
from fopru_graph.comfy.prompt import Prompt, prompt_of
from fopru_graph.errors import Caution
from fopru_graph.graph import Graph, MemoryCache, Ref
from fopru_graph.lvlm.inputs.images import load_image
from tests import tiny
from tests.comfy.standin import ComfyUI, Job, node_api
from tests.lvlm.saved import save
from tests.lvlm.zoo import ZOO

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
NAMES = sorted(path.stem for path in PIPELINES.glob("*.yaml"))
VIDEOS = sorted(path.stem for path in PIPELINES.glob("video/*.yaml"))
TWO = ("street-sign", "zoo-gate")


class TwoPictures(node_api.ComfyNode):
    """Stands for core nodes that make a batch of two pictures."""

    listed = False

    @classmethod
    def define_schema(cls) -> node_api.Schema:
        return node_api.Schema(cls.__name__, outputs=[node_api.Image.Output(is_output_list=cls.listed)])

    @classmethod
    def execute(cls) -> node_api.NodeOutput:
        both = torch.cat([pictures.to_batch(load_image(f"demo:{name}").picture) for name in TWO])
        return node_api.NodeOutput([each[None] for each in both] if cls.listed else both)


class TwoInTurn(TwoPictures):
    """The same as a list, for each element of which the nodes behind run."""

    listed = True


@pytest.fixture(scope="module", autouse=True)
def core_nodes(comfy: ComfyUI) -> None:
    comfy.add(TwoPictures, TwoInTurn)


@pytest.fixture(scope="module")
def cache() -> MemoryCache:
    """Keeps our engine's model and features from one pipeline to the next."""
    return MemoryCache()


def shipped(name: str) -> Graph:
    graph = Graph.load(PIPELINES / f"{name}.yaml")
    graph.name = ""  # the title of the picture, which no prompt knows
    return graph


def assert_same(comfy_root: Path, job: Job, ours: Any) -> None:
    """The job ended with our engine's answer on the node, and with its picture as a file and as an IMAGE."""
    assert (job.status, job.errors) == ("success", {})
    assert job.outputs["generate"] == {"text": [ours["text"]]}
    ((file,),) = (shown["images"] for shown in job.outputs.values() if "images" in shown)
    with PIL.Image.open(comfy_root / file["type"] / file["filename"]) as picture:
        assert picture.tobytes() == ours["picture"].tobytes()
    ((batch,),) = job.values["picture"]
    assert batch.dtype == torch.float32
    assert np.array_equal((batch[0] * 255).round().numpy().astype(np.uint8), np.asarray(ours["picture"]))


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_our_engine(name: str, comfy: ComfyUI, comfy_root: Path, cache: MemoryCache) -> None:
    graph = shipped(name)
    assert_same(comfy_root, comfy.run(prompt_of(graph)), graph.run(cache=cache))


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_of_the_input_folder(name: str, comfy: ComfyUI, comfy_root: Path, cache: MemoryCache) -> None:
    model, film = comfy_root / "models/VLM/tiny", comfy_root / "input/film.gif"
    if not model.exists():
        save(model, ZOO["qwen2_vl"].build("sdpa"))
        frames = [tiny.image(i, 112, 112).picture for i in range(8)]
        frames[0].save(film, save_all=True, append_images=frames[1:], duration=500)
    graph = shipped(f"video/{name}")
    graph.set("model", str(model))
    graph.set("video", str(film))
    with pytest.warns(Caution, match="ComfyUI opens only"):
        prompt = prompt_of(graph)
    prompt["model"]["inputs"]["name"], prompt["video"]["inputs"]["path"] = "tiny", "film.gif"
    assert_same(comfy_root, comfy.run(prompt), graph.run(cache=cache))


def test_two_pruners_on_a_growing_input(comfy: ComfyUI, cache: MemoryCache) -> None:
    graph = shipped("fastv")
    graph.add("FastVPrune", "second", layer=4, ratio=0.5)
    graph.nodes["generate"].inputs["pruners"].append(Ref("second"))
    prompt = prompt_of(graph)
    assert {"pruners.pruner0", "pruners.pruner1"} <= set(prompt["generate"]["inputs"])
    (generation,) = comfy.run(prompt).values["generate"][1]
    ours = graph.run(to="generate", cache=cache).by_node["generate"]["generation"]
    assert generation.kv_lengths == ours.kv_lengths and len(set(ours.kv_lengths)) == 3
    assert generation.texts == ours.texts


def test_a_batch_of_two_is_one_question_about_two_pictures(
    comfy: ComfyUI, comfy_root: Path, cache: MemoryCache
) -> None:
    graph = shipped("fopru_rank")
    prompt = prompt_of(graph)
    prompt["image"] = {"class_type": "TwoPictures", "inputs": {}}
    graph.add("LoadImage", "other", path=f"demo:{TWO[1]}")
    graph.nodes["encode"].inputs["image"] = [Ref("image"), Ref("other")]
    ours = graph.run(cache=cache)
    assert_same(comfy_root, comfy.run(prompt), ours)
    assert_same(comfy_root, comfy.run(prompt_of(graph)), ours)  # through the node that gathers pictures


def test_pictures_in_turn_are_two_answers_and_two_overlays(comfy: ComfyUI, cache: MemoryCache) -> None:
    graph, answers = shipped("fopru_rank"), []
    for name in TWO:
        graph.set("image", f"demo:{name}")
        answers.append(graph.run(cache=cache)["text"])
    prompt = prompt_of(graph)
    prompt["image"] = {"class_type": "TwoInTurn", "inputs": {}}
    job = comfy.run(prompt)
    assert job.outputs["generate"] == {"text": answers} and answers[0] != answers[1]
    assert len({shown["filename"] for shown in job.outputs["picture"]["images"]}) == 2


def test_answer_and_overlay_stay_in_a_cached_run(comfy: ComfyUI) -> None:
    first = comfy.run(prompt_of(shipped("fopru_rank")))
    again = comfy.run(prompt_of(shipped("fopru_rank")))
    assert again.ran == [] and again.status == "success"
    assert again.outputs == first.outputs and set(first.outputs) == {"generate", "picture"}


def test_a_changed_picture_is_read_again(comfy: ComfyUI, comfy_root: Path) -> None:
    prompt, file = prompt_of(shipped("fopru_rank")), comfy_root / "input/changing.png"
    prompt["image"]["inputs"]["path"] = "changing.png"
    answers = []
    for name in TWO:
        load_image(f"demo:{name}").picture.save(file)
        answers += comfy.run(prompt).outputs["generate"]["text"]
    assert answers[0] != answers[1]


def test_tokens_stream(comfy: ComfyUI) -> None:
    graph = shipped("baseline")
    graph.set("prompt", "what does the sign say in this picture ?")
    comfy.forget()
    job = comfy.run(prompt_of(graph))
    texts = [text for node, text in job.told("text") if node == "generate"]
    assert texts and texts[-1] == job.outputs["generate"]["text"][0]
    assert all(later.startswith(sooner) for sooner, later in zip(texts, texts[1:], strict=False))


def test_an_interrupted_answer_ends_as_interrupted_and_the_next_run_works(comfy: ComfyUI) -> None:
    prompt = prompt_of(shipped("baseline"))
    prompt["generate"]["inputs"] |= {"max_new_tokens": 40, "min_new_tokens": 40}
    comfy.on_text = lambda node, text: comfy.interrupt()
    try:
        job = comfy.run(copy.deepcopy(prompt))
    finally:
        comfy.on_text = lambda node, text: None
    assert job.status == "interrupted" and not job.told("execution_error")
    assert job.ran[-1] == "generate" and "generate" not in job.outputs
    assert comfy.run(prompt).status == "success"


def test_files_are_saved_under_counted_names(comfy: ComfyUI, comfy_root: Path) -> None:
    graph = shipped("fopru_rank")
    graph.add("SaveText", "save", text=Ref("generate", "text"))
    graph.add("SaveTokens", "tokens", model=Ref("model"), tokens=Ref("project"), prompt="what ?")
    prompt = prompt_of(graph)
    for number in (1, 2):
        comfy.forget()
        job = comfy.run(prompt)
        named = [job.outputs[name]["files"][0]["filename"] for name in ("save", "tokens")]
        assert named == [f"answer_{number:05}.txt", f"tokens_{number:05}.safetensors"]
        assert (comfy_root / "output" / named[0]).read_text() == job.outputs["generate"]["text"][0] + "\n"
    ((name,),) = job.values["tokens"]
    prompt["load"] = {"class_type": "FopruLoadTokens", "inputs": {"model": ["model", 0], "file": name}}
    prompt["generate"]["inputs"]["tokens"] = ["load", 0]
    assert comfy.run(prompt).outputs["generate"] == job.outputs["generate"]


def test_only_the_branch_that_is_asked_for_runs(comfy: ComfyUI) -> None:
    def one(then: bool) -> Prompt:
        return {
            "a": {"class_type": "FopruLoadImage", "inputs": {"path": "demo:zoo-gate"}},
            "b": {"class_type": "FopruLoadImage", "inputs": {"path": "demo:fish-shop"}},
            "switch": {
                "class_type": "FopruSwitch",
                "inputs": {"when": then, "then": ["a", 0], "otherwise": ["b", 0]},
            },
        }

    prompt = prompt_of(shipped("fopru_rank")) | one(True)
    prompt["encode"]["inputs"]["image"] = ["switch", 0]
    comfy.forget()
    job = comfy.run(prompt)
    assert "a" in job.ran and "b" not in job.ran and job.outputs["generate"]["text"] == ["zoo"]
    prompt |= one(False)
    assert "b" in comfy.run(prompt).ran


def test_pictures_carry_prompt_and_workflow(comfy: ComfyUI, comfy_root: Path) -> None:
    prompt, workflow = prompt_of(shipped("random")), {"nodes": [{"type": "é"}]}
    comfy.forget()
    (shown,) = comfy.run(prompt, {"workflow": workflow}).outputs["picture"]["images"]
    data = (comfy_root / "temp" / shown["filename"]).read_bytes()
    with PIL.Image.open(comfy_root / "temp" / shown["filename"]) as picture:
        texts = dict(picture.info)
    assert json.loads(texts["prompt"]) == prompt and json.loads(texts["workflow"]) == workflow
    assert b"iTXt" in data and b"tEXt" not in data and str(comfy_root).encode() not in data


def test_workflows_in_turn_share_a_model_until_memory_is_freed(comfy: ComfyUI) -> None:
    between: Prompt = {"save": {"class_type": "FopruSaveText", "inputs": {"text": "x", "file": "x.txt"}}}
    handles = []
    for name in ("fopru_rank", "random", "fopru_rank"):
        job = comfy.run(prompt_of(shipped(name)))
        assert "model" in job.ran or not handles  # its output is cached no longer
        handles.append(weakref.ref(job.values["model"][0][0]))
        del job
        comfy.run(between)
    assert handles[0]() is not None and len({id(handle()) for handle in handles}) == 1
    comfy.forget()
    gc.collect()
    assert handles[0]() is None
    assert comfy.run(prompt_of(shipped("random"))).status == "success"


def test_a_pack_is_the_extension_alone(comfy: ComfyUI) -> None:
    assert not hasattr(extension, "NODE_CLASS_MAPPINGS")  # else ComfyUI would ignore the entrypoint
