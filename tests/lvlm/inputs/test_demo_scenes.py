"""The demo model says once that it only knows drawn scenes, and nobody else is told anything."""

from __future__ import annotations

import json

import PIL.Image
import pytest

from fopru_graph import values
from fopru_graph.lvlm.inputs.demo_scenes import unknown_to_demo
from fopru_graph.lvlm.inputs.images import load_image
from tests.test_cli import COMBINED, SAMPLES, invoke


class Family:
    """In the place of a model."""


PHOTOGRAPH = values.Image(PIL.Image.new("RGB", (448, 448), "grey"), "me.jpg")


def test_it_is_told_once_for_each_loaded_model():
    model = values.ModelHandle("demo", Family())
    told = unknown_to_demo(model, [load_image("demo:zoo-gate"), PHOTOGRAPH])
    assert told is not None and "only knows drawn scenes" in told
    assert unknown_to_demo(model, [PHOTOGRAPH]) is None
    assert unknown_to_demo(values.ModelHandle("demo", Family()), [PHOTOGRAPH]) is not None


@pytest.mark.parametrize("source", ["demo:zoo-gate", "scenes/test/3", str(SAMPLES / "zoo-gate.png"), "copy.png"])
def test_what_it_knows_is_no_reason(source):
    picture = load_image("demo:zoo-gate").picture if source == "copy.png" else PHOTOGRAPH.picture
    picture = load_image(source).picture if source.endswith("gate.png") else picture
    assert unknown_to_demo(values.ModelHandle("demo", Family()), [values.Image(picture, source)]) is None


def test_other_models_know_what_they_know():
    assert unknown_to_demo(values.ModelHandle("llava-hf/llava-1.5-7b-hf", Family()), [PHOTOGRAPH]) is None


def test_the_warning_is_in_the_result_and_not_in_the_answer(tmp_path):
    PHOTOGRAPH.picture.save(tmp_path / "me.png")
    options = ["--set", f"image={tmp_path / 'me.png'}", "--out", str(tmp_path / "out")]
    result = invoke("run", COMBINED, *options)
    assert result.exit_code == 0 and "drawn scenes" not in result.stdout
    assert result.stderr.count("only knows drawn scenes") == 1
    (warning,) = json.loads((tmp_path / "out" / "run.json").read_text())["warnings"]
    assert warning.startswith("encode: the demo model only knows drawn scenes")
