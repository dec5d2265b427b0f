"""Pipelines as API prompts: every widget and link, what is left out, and what no canvas can show."""

from __future__ import annotations

import warnings

import pytest

from fopru_graph.comfy.prompt import prompt_of
from fopru_graph.errors import Caution, UserError
from fopru_graph.graph import Graph, PipelineError
from tests.comfy.pipelines import whole

LINES = """
format: 1
nodes:
  model:    {type: LoadModel}
  a:        {type: LoadImage, inputs: {path: demo:street-sign}}
  b:        {type: LoadImage, inputs: {path: demo:street-sign}}
  encode:   {type: VisionEncode, inputs: {model: $model, image: [$a, $b]}}
  project:  {type: Project, inputs: {model: $model, features: $encode}}
  generate: {type: LLMGenerate, inputs: {model: $model, tokens: $project, prompt: what ?}}
outputs: {text: $generate.text}
"""


def lines(**sets: object) -> Graph:
    graph = Graph.loads(LINES)
    for target, value in sets.items():
        graph.set(target.replace("__", "."), value)
    return graph


def test_every_widget_is_written_and_links_are_ids_with_positions(tmp_path):
    prompt = prompt_of(whole(tmp_path))
    assert list(prompt) == [
        "model", "image", "sign:encode", "sign:significance", "sign:prune", "project", "first", "second", "generate",
        "save",
    ]  # fmt: skip
    assert prompt["sign:prune"] == {
        "class_type": "FopruRankPrune",
        "inputs": {"significance": ["sign:significance", 0], "ratio": 0.25, "tokens": 0, "over": "tile"},
        "_meta": {"title": "sign:prune"},
    }
    generate = prompt["generate"]["inputs"]
    assert generate["pruners.pruner0"] == ["first", 0] and generate["pruners.pruner1"] == ["second", 0]
    assert generate["prompt"] == "$5 for what ?" and generate["stop"] == '["$", "b"]'
    assert prompt["save"]["inputs"]["text"] == ["generate", 0]


def test_what_reads_a_disabled_node_reads_past_it(tmp_path):
    assert prompt_of(whole(tmp_path))["project"]["inputs"]["selection"] == ["sign:prune", 0]


def test_a_list_of_pictures_is_a_node_that_gathers_them():
    prompt = prompt_of(lines())
    assert prompt["encode"]["inputs"]["image"] == ["encode_image", 0]
    assert prompt["encode_image"]["class_type"] == "FopruPictures"
    assert prompt["encode_image"]["inputs"] == {"pictures.picture0": ["a", 0], "pictures.picture1": ["b", 0]}


def test_the_gathering_node_takes_no_name_of_the_pipeline():
    graph = lines()
    graph.LoadImage("encode_image", path="demo:street-sign")
    prompt = prompt_of(graph)
    assert prompt["encode_image"]["class_type"] == "FopruLoadImage"
    assert prompt[prompt["encode"]["inputs"]["image"][0]]["class_type"] == "FopruPictures"


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"generate__prompt": ["what ?", "who ?"]}, "generate.prompt cannot be"),
        ({"generate__seed": 2**60}, "generate.seed is 1152921504606846976, and a canvas shows"),
        ({"a__path": object}, "a.path"),
    ],
)
def test_what_no_canvas_shows_is_refused_where_it_stands(sets, message):
    graph = lines()
    for target, value in sets.items():
        if value is object:
            import PIL.Image

            value = PIL.Image.new("RGB", (8, 8))
        graph.set(target.replace("__", "."), value)
    with pytest.raises(UserError, match=message):
        prompt_of(graph)


def test_more_links_than_a_canvas_shows_are_refused():
    graph = lines()
    graph.nodes["encode"].inputs["image"] *= 5
    with pytest.raises(UserError, match=r"encode\.image has 10 links, and a canvas shows up to 8"):
        prompt_of(graph)


def test_an_input_without_a_value_is_refused_with_what_to_do():
    with pytest.raises(UserError, match="the pipeline input model has no value") as caught:
        prompt_of(Graph.load("evs"))
    assert "--set model=" in str(caught.value.hint)


def test_problems_of_the_pipeline_are_told_as_validate_does():
    with pytest.raises(PipelineError) as caught:
        prompt_of(lines(generate__max_new_tokens=0))
    assert [(problem.node, problem.input) for problem in caught.value.problems] == [("generate", "max_new_tokens")]


def test_a_pipeline_without_an_enabled_node_has_nothing_to_show():
    graph = Graph.loads("format: 1\nnodes:\n  m: {type: LoadModel, enabled: false}\noutputs: {m: $m}\n")
    with pytest.raises(UserError, match="no node of the pipeline is enabled"):
        prompt_of(graph)


def test_files_elsewhere_are_written_as_they_are_with_one_warning(tmp_path):
    graph = lines(a__path="cat.png", b__path=str(tmp_path / "dog.png"))
    with pytest.warns(Caution, match=r"a\.path is cat\.png \(and 1 more\): ComfyUI opens only") as caught:
        prompt = prompt_of(graph)
    assert prompt["a"]["inputs"]["path"] == "cat.png" and prompt["b"]["inputs"]["path"] == str(tmp_path / "dog.png")
    assert len(caught) == 1


def test_what_ships_with_the_package_is_no_file_elsewhere():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prompt_of(Graph.load("fopru_rank"))["image"]["inputs"]["path"] == "demo:street-sign"


def test_a_file_that_a_sub_graph_names_tells_no_folder(tmp_path):
    graph = whole(tmp_path)
    text = (
        (tmp_path / "sign.yaml")
        .read_text()
        .replace("nodes:", "nodes:\n  own: {type: LoadImage, inputs: {path: cat.png}}")
    )
    (tmp_path / "sign.yaml").write_text(text.replace("image: $inputs.image", "image: $own"))
    with pytest.warns(Caution):
        prompt = prompt_of(graph)
    assert prompt["sign:own"]["inputs"]["path"] == "cat.png"
