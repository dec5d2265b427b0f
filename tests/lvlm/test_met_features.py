"""Features may meet a model of another type or device: from a cache, or encoded by another model of the pipeline."""

from __future__ import annotations

import pytest
import torch

from fopru_graph import values
from fopru_graph.graph import DiskCache, Executor, Graph
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.storage import TensorCodec
from tests import tiny
from tests.lvlm.test_matrix import pictures
from tests.lvlm.zoo import ZOO

TWO_MODELS = """\
format: 1
nodes:
  eye:      {type: LoadModel, inputs: {dtype: DTYPE}}
  mind:     {type: LoadModel, inputs: {dtype: float32}}
  image:    {type: LoadImage, inputs: {path: demo:street-sign}}
  encode:   {type: VisionEncode, inputs: {model: $eye, image: $image}}
  score:    {type: Significance, inputs: {features: $encode}}
  prune:    {type: RankPrune, inputs: {significance: $score, ratio: 0.5}}
  project:  {type: Project, inputs: {model: $mind, features: $encode, selection: $prune}}
  generate: {type: LLMGenerate, inputs: {model: $mind, tokens: $project, prompt: "what does the text say ?"}}
outputs: {text: $generate.text}
"""


@pytest.mark.parametrize("name", ZOO)
def test_features_of_another_type_enter_the_model_in_its_own(name):
    row = ZOO[name]
    features = row.build("sdpa").encode(pictures(row, 1))
    half = row.build("sdpa")
    half.model.to(torch.bfloat16)
    generation = generate(half, half.project(features, None), ["what?"], [], 2)
    assert len(generation.token_ids[0]) == 2


def test_the_layer_above_takes_features_of_another_type():
    features = tiny.llava().encode([tiny.image()])
    (attention,) = tiny.llava(dtype=torch.bfloat16).attention_above(features)
    assert attention.query.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_cached_features_of_one_model_serve_another(dtype, tmp_path):
    graph = Graph.loads(TWO_MODELS.replace("DTYPE", dtype))
    for cached in (False, True):
        result = Executor(disk=DiskCache(tmp_path, TensorCodec())).run(graph)
        assert result["text"] == "stop" and ("encode" in result.cached) == cached


def test_features_of_every_type_are_an_entry_of_their_own(tmp_path):
    disk = DiskCache(tmp_path, TensorCodec())
    for dtype in ("float32", "bfloat16"):
        result = Executor(disk=disk).run(Graph.loads(TWO_MODELS), to="encode", sets={"eye.dtype": dtype})
        assert "encode" not in result.cached
        assert result["output"].tiles[0].features.dtype == getattr(torch, dtype)


def test_a_tensor_of_a_device_that_is_gone_comes_back_on_the_cpu(tmp_path):
    TensorCodec().dump((torch.ones(2), values.Selection((torch.zeros(1, dtype=torch.int64),), (4,))), tmp_path)
    path = tmp_path / "value.json"
    assert path.read_text().count('"device": "cpu"') == 2
    path.write_text(path.read_text().replace('"cpu"', '"cuda:9"', 1))
    (first, _) = TensorCodec().load(tmp_path)
    assert first.device.type == "cpu"
