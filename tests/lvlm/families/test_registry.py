"""Families register themselves: a new file is all that the list, the message and the loader need."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from fopru_graph.errors import UserError
from fopru_graph.lvlm import families
from fopru_graph.lvlm.families import registry
from fopru_graph.lvlm.families.family import Family
from fopru_graph.lvlm.families.registry import served_families, served_family
from tests.test_cli import invoke

NEW_FAMILY = '''
from fopru_graph.lvlm.families.llava import Llava
from fopru_graph.lvlm.families.registry import register_family


@register_family("toy_llava", checkpoints=("someone/toy-llava",), tokens="576", note="a toy", video=True)
class ToyLlava(Llava):
    """A family that only this test knows."""
'''


@pytest.fixture
def new_family(tmp_path, monkeypatch):
    """A file in a further folder of the package."""
    (tmp_path / "toy_llava.py").write_text(NEW_FAMILY)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield
    sys.modules.pop("fopru_graph.lvlm.families.toy_llava", None)
    registry._classes.pop("toy_llava", None)


def test_a_new_file_is_listed_and_loaded(new_family):
    card = json.loads(invoke("models", "--json").stdout)["models"][-1]
    assert card["family"] == "toy_llava" and card["checkpoints"] == ["someone/toy-llava"]
    assert (card["note"], card["video"], card["first_cut"], card["in_llm"]) == ("a toy", True, "1", True)
    assert "toy_llava" in invoke("models").stdout
    kind = served_family("toy_llava", "x")
    assert kind.__name__ == "ToyLlava" and kind.model_type == "toy_llava" and issubclass(kind, Family)
    with pytest.raises(UserError, match="'bert' is not supported") as refused:
        served_family("bert", "x")
    assert "toy_llava" in refused.value.hint


def test_without_the_file_nothing_knows_the_family():
    assert "toy_llava" not in [card.family for card in served_families()]
    with pytest.raises(UserError, match="'toy_llava' is not supported"):
        served_family("toy_llava", "x")


@pytest.mark.parametrize("card", served_families(), ids=lambda card: card.family)
def test_every_card_is_of_the_class_that_it_loads(card):
    kind = card.load()
    assert kind.model_type == card.family and kind.__module__.endswith(f".{card.module}")
    assert (card.projects == "only those kept") == (card.family in ("llava", "llava_next"))


def test_arguments_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    (tmp_path / "computed.py").write_text(NEW_FAMILY.replace('"a toy"', "str(1)"))
    monkeypatch.setattr(families, "__path__", [str(tmp_path)])
    with pytest.raises(ValueError, match="malformed"):
        served_families()
