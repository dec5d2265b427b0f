"""Values in a few words: whatever they hold, no error and no record shows tensors or folders of the user."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import PIL.Image
import pytest
import torch

from fopru_graph import values
from fopru_graph.describing import describe
from fopru_graph.graph import values as graph_values

FOLDER, LINES = "/home/me/secret/models", "a line\n" * 50
CLASSES = [kind for name in values.__all__ if is_dataclass(kind := getattr(values, name))]


def large(name: str, kind: str) -> object:
    """Something large for a field, by its annotation."""
    if name in ("source", "name"):
        return f"{FOLDER}/llava/"
    if name == "frames":
        return (PIL.Image.new("RGB", (64, 48)),) * 30
    if name == "tiles":
        return (made(values.Tile),) * 9
    if name == "attention":
        return made(values.TileAttention)
    scalars = {"str": LINES, "int": 10**15, "float": 1 / 3, "bool": True, "PIL": PIL.Image.new("RGB", (64, 48))}
    for start, value in scalars.items():
        if kind.startswith(start):
            return value
    if kind.startswith("torch.Tensor"):
        return torch.zeros(100, 4096, dtype=torch.bfloat16)
    if kind.startswith("tuple"):
        inner = "torch.Tensor" if "Tensor" in kind else "str" if "str" in kind else "int"
        return (large("", inner),) * 100
    return lambda *_: None


def made(kind: type) -> object:
    """A value of the class that holds nothing small. It is not checked, so that no class needs values that fit."""
    value = object.__new__(kind)
    for each in fields(kind):
        object.__setattr__(value, each.name, large(each.name, str(each.type)))
    return value


@pytest.mark.parametrize("kind", CLASSES)
def test_the_repr_of_a_value_is_a_few_words(kind):
    value = made(kind)
    text = repr(value)
    assert text.startswith(f"{kind.__name__}({fields(kind)[0].name}=") and len(text) < 200
    assert not any(part in text for part in ("\n", "tensor(", "0., 0.", "/", "secret"))
    assert text == graph_values.describe(value) == f"{value}"


def test_a_file_is_told_by_its_name_alone():
    picture = PIL.Image.new("RGB", (64, 48))
    for source, shown in (
        ("/home/me/cat.png", "cat.png"),
        (r"C:\Users\me\cat.png", "cat.png"),
        ("~/a b/cat.png", "cat.png"),
        ("demo:street", "demo:street"),
        ("", ""),
    ):
        assert repr(values.Image(picture, source)) == f"Image(picture=Image 64 × 48, source={shown!r}, resolution=1.0)"
    assert repr(values.ModelHandle("/home/me/llava/", None)) == "ModelHandle(name='llava', family=None)"


def test_fields_are_left_out_where_they_get_long():
    odd = values.PromptEmbeddings(("\0" * 60,) * 2, (), ())
    assert repr(odd) == "PromptEmbeddings(…)"
    assert repr([values.Budget((1, 2))] * 2) == "[Budget(counts=tuple of 2: 1, …), Budget(counts=tuple of 2: 1, …)]"
    assert describe(made(values.Generation)).endswith(", …)")
