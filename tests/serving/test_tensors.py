"""The safetensors file: what is read is what was written, nothing is unpickled, and what does not fit is said."""

from __future__ import annotations

import json
import pickle

import pytest
import safetensors.torch
import torch

from fopru_graph.errors import Caution, UserError
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.inputs.prompt import build_prompt
from fopru_graph.serving import load_tokens
from fopru_graph.serving.export import exported
from fopru_graph.values import ModelHandle
from tests import tiny
from tests.lvlm.zoo import ZOO
from tests.serving.engine import STEPS, handed_over, kept

TWO = "<image> or <image>, which is it?"


def written(tmp_path, family, tokens, **more):
    path = tmp_path / "tokens.safetensors"
    path.write_bytes(exported(handed_over(family, tokens, **more), "safetensors"))
    return path


def changed(path, tensors=(), header=()):
    """The file with other tensors (None: without it) and other fields of its header."""
    with safetensors.safe_open(path, "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()} | dict(tensors)  # noqa: SIM118
        described = json.loads(file.metadata()["fopru_graph"]) | dict(header)
    found = {name: tensor for name, tensor in found.items() if tensor is not None}
    safetensors.torch.save_file(found, path, {"fopru_graph": json.dumps(described)})


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_family_answers_from_the_file_as_from_the_tokens(family_of, tmp_path, name, monkeypatch):
    family = family_of(name)
    tokens = kept(family, count=2)
    path = written(tmp_path, family, tokens, prompt=TWO)
    for reader in ((torch, "load"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(*reader, lambda *_a, **_k: pytest.fail("unpickled"))
    read = load_tokens(path)
    assert read.header.model == "the/checkpoint" and read.header.family == name and read.header.prompt == TWO
    facts = [(image.encoded, image.kept, image.ratio) for image in read.header.images]
    pairs = zip(tokens.encoded, tokens.counts, strict=True)
    assert facts == [(encoded, left, round(left / encoded, 6)) for encoded, left in pairs]
    prompt = build_prompt(family, [TWO], tokens)
    assert torch.equal(read.input_ids, prompt.input_ids[0])
    assert torch.equal(read.position_ids, prompt.positions.reshape(-1, len(read.input_ids)))
    from_file = read.tokens_for(ModelHandle("the/checkpoint", family))
    for ours, theirs in zip(tokens.origin, from_file.origin, strict=True):
        assert torch.equal(ours, theirs)
    for positions in (None, "original"):
        expected = generate(family, tokens, [TWO], max_new_tokens=STEPS, positions=positions)
        said = generate(family, from_file, [TWO], max_new_tokens=STEPS, positions=positions)
        assert said.token_ids == expected.token_ids


@pytest.mark.parametrize(
    ("tensors", "header", "says"),
    [
        ({"image.0.embeddings": torch.zeros(3, 32)}, {}, r"embeddings is \(3, 32\) float32, .* for \(6, any\)"),
        ({"image.0.embeddings": torch.zeros(6, 32, dtype=torch.int64)}, {}, "of a floating type"),
        ({"image.0.origin": None}, {}, "no tensor image.0.origin"),
        ({"image.0.keep_positions": torch.zeros(5, dtype=torch.int64)}, {}, "keep_positions is"),
        ({"position_ids": torch.zeros(1, 3, dtype=torch.int64)}, {}, "position_ids is"),
        ({"input_ids": torch.zeros(3)}, {}, "input_ids is"),
        ({}, {"format": 2}, "format of the header"),
        ({}, {"images": []}, "images of the header"),
        ({}, {"images": [{"encoded": -1, "kept": 1, "ratio": 1}]}, "images.0.encoded of the header"),
        ({}, {"deepstack": 1}, "no tensor image.0.deepstack.0"),
    ],
)
def test_a_file_that_does_not_fit_itself_is_one_sentence(family_of, tmp_path, tensors, header, says):
    family = family_of("llava")
    path = written(tmp_path, family, kept(family))
    changed(path, tensors, header)
    with pytest.raises(UserError, match=says):
        load_tokens(path)


def test_torn_foreign_and_missing_files_are_one_sentence(family_of, tmp_path):
    family = family_of("llava")
    path = written(tmp_path, family, kept(family))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match="no whole safetensors file"):
        load_tokens(path)
    pickled = tmp_path / "tokens.pt"
    torch.save({"a": torch.zeros(2)}, pickled)
    with pytest.raises(UserError, match="no whole safetensors file"):
        load_tokens(pickled)
    with pytest.raises(UserError, match="cannot be read"):
        load_tokens(tmp_path / "nothing")
    with pytest.raises(UserError, match="cannot be read"):
        load_tokens(tmp_path)
    path.write_bytes(exported(handed_over(family, kept(family)), "vllm-offline"))
    with pytest.raises(UserError, match="made for vllm"):
        load_tokens(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="without a header"):
        load_tokens(path)


def test_tokens_enter_only_models_that_they_fit(family_of, tmp_path):
    family = family_of("llava")
    read = load_tokens(written(tmp_path, family, kept(family)))
    with pytest.raises(UserError, match="32 wide and of llava .*, and other is qwen2_vl and 64 wide"):
        read.tokens_for(ModelHandle("other", family_of("qwen2_vl")))
    with pytest.raises(UserError, match="and other is llava and 64 wide"):
        read.tokens_for(ModelHandle("other", tiny.llava(heads=8)))
    with pytest.warns(Caution, match="made by the/checkpoint, not finetuned"):
        read.tokens_for(ModelHandle("finetuned", family))


def test_nothing_left_and_nothing_finite_is_not_handed_over(family_of):
    family = family_of("llava")
    tokens = kept(family)
    with pytest.raises(UserError, match="nothing is left of picture 1"):
        handed_over(family, type(tokens)((tokens.embeddings[0][:0],), (tokens.origin[0][:0],), tokens.encoded))
    with pytest.raises(UserError, match="no picture"):
        handed_over(family, type(tokens)((), (), ()))
    with pytest.raises(UserError, match="NaN or infinity"):
        handed_over(family, type(tokens)((tokens.embeddings[0] / 0,), tokens.origin, tokens.encoded))
