"""What a server says of the nodes, beside what the real ComfyUI said of them when a throwaway pack ran in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.comfy.object_info import object_info
from fopru_graph.comfy.plan import Slot, plans
from fopru_graph.graph import Registry

RECORDED = Path(__file__).parent / "recorded" / "object_info.json"  # of ComfyUI 0.33.0 with 24 of our nodes
PLANS = plans(Registry.default())
NAMES = ["demo", "demo:street-sign"]

# Paths into the JSON, and why they differ from the recorded ones.
DIFFERENCES = {
    "*.description": "the documentation was rewritten since",
    "*.tooltip": "the documentation was rewritten since; it names the value that stands for empty",
    "*.python_module": "the throwaway pack had another name",
    "*.search_aliases": "more of them",
    "*.input_order.*": "new inputs",
    "*.round": "asks for no rounding, which the documentation of ComfyUI offers and frontend 1.58.1 does not heed",
    "*.step": "0.005, as the frontend rounds to the digits of the step",
    "FopruFastVPrune.input.required.layer.*": "a share of the depth is possible since, which no number widget shows",
    "FopruClsAttention.input.required.layer": "new input",
    "FopruClsAttention.input.required.without_cls": "new input",
    "FopruLLMGenerate.input.required.tokens": "may be left open since",
    "FopruLLMGenerate.input.optional.tokens": "may be left open since",
    "FopruLoadImage.input.required.path.*": "a choice of files with a button, no free path",
    "FopruLoadVideo.input.required.path.*": "a choice of files with a button, no free path",
    "FopruLoadModel.input.required.name.*": "a choice of models, no free path",
    "FopruLoadModel.input.required.packed": "new input",
    "FopruLoadVideo.input.required.frames.*": "may be empty since, in favour of fps",
    "FopruLoadVideo.input.required.fps": "new input",
    "FopruLoadVideo.input.required.folder_fps": "new input",
    "FopruRankPrune.input.optional": "new inputs",
    "FopruRowPrune.input.required.over.*": "has a choice more and is no longer advanced",
    "FopruSaveText.output_name.*": "called path, for that is what the text is",
    "FopruShowKept.output_name.*": "called by its type, as other single outputs are",
    "FopruSignificance.input.required.layer": "new input",
    "FopruStockGenerate.input.required.prompt.1.multiline": "questions have lines",
    "FopruVisionEncode.input.required.image.0": "the same types in another order",
    "FopruVisionEncode.input.required.layers": "new input",
} | {
    f"Fopru{node}.input.required.{name}": "new input"
    for node, names in {
        "LLMGenerate": "system messages template stop top_p top_k repetition_penalty positions logprobs",
        "StockGenerate": "system messages template stop repetition_penalty",
    }.items()
    for name in names.split()
}


def choices(slot: Slot) -> list[str]:
    assert slot.kind == "file"
    return NAMES


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return json.loads(json.dumps(object_info(PLANS.values(), choices)))


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def differences(left: Any, right: Any, path: str) -> Iterator[str]:
    """The paths at which two JSON values differ; of a new or missing entry the path of the entry alone."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in left | right:
            if key in left and key in right:
                yield from differences(left[key], right[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            yield from differences(*pair, f"{path}.{index}")
    elif left != right or type(left) is not type(right):
        yield path


def test_it_is_what_the_real_one_said_but_for_these_differences(described, recorded):
    assert recorded.keys() <= described.keys()
    found = [path for name in recorded for path in differences(recorded[name], described[name], name)]
    unlisted = [path for path in found if not any(fnmatchcase(path, pattern) for pattern in DIFFERENCES)]
    assert not unlisted
    gone = [pattern for pattern in DIFFERENCES if not any(fnmatchcase(path, pattern) for path in found)]
    assert not gone, "these no longer differ, so nothing is to be listed"


def test_new_nodes_have_the_fields_of_recorded_ones(described, recorded):
    fields = recorded["FopruProject"].keys()
    for name, info in described.items():
        assert info.keys() == fields
        assert info["name"] == name
        assert len(info["output"]) == len(info["output_name"]) == len(info["output_is_list"])


def test_every_widget_is_required_so_that_the_frontend_keeps_their_order(described):
    for name, plan in PLANS.items():
        widgets = [slot.name for slot in plan.widgets]
        required = described[name]["input_order"]["required"]
        assert [key for key in required if key in widgets] == widgets


def test_a_file_is_a_choice_of_what_the_caller_lists(described):
    name = described["FopruLoadModel"]["input"]["required"]["name"]
    assert (name[0], name[1]["options"], name[1]["default"]) == ("COMBO", NAMES, "demo")
    path = described["FopruLoadImage"]["input"]["required"]["path"][1]
    assert "default" not in path  # it was "", which is not in the list
    assert path["image_upload"] is True
    assert described["FopruLoadVideo"]["input"]["required"]["path"][1]["video_upload"] is True
    assert not any(key.endswith("_upload") for key in described["FopruLoadTokens"]["input"]["required"]["file"][1])


def test_a_growing_input_tells_its_members_and_whether_the_first_is_needed(described):
    kind, options = described["FopruPictures"]["input"]["required"]["pictures"]
    assert kind == "COMFY_AUTOGROW_V3"
    member = {"required": {"picture": ["FOPRU_IMAGE,IMAGE", {}]}}
    assert options["template"] == {"input": member, "prefix": "picture", "min": 1, "max": 8}
    assert described["FopruLLMGenerate"]["input"]["optional"]["pruners"][1]["template"]["min"] == 0


def test_lazy_inputs_and_seeds_without_a_control_are_told(described):
    switch = described["FopruSwitch"]["input"]["required"]
    assert [switch[name][1].get("lazy") for name in ("when", "then", "otherwise")] == [None, True, True]
    seeds = [slot for plan in PLANS.values() for slot in plan.widgets if slot.name == "seed"]
    assert len(seeds) >= 2
    for name, plan in PLANS.items():
        if any(slot.name == "seed" for slot in plan.widgets):
            assert described[name]["input"]["required"]["seed"][1]["control_after_generate"] is False


def test_a_step_gives_at_least_three_digits(described):
    """What is typed is rounded to as many digits as the order of magnitude of the step has: 0.111 is to stay 0.111."""
    steps = {
        options["step"]
        for info in described.values()
        for kind, options in info["input"]["required"].values()
        if kind == "FLOAT"
    }
    assert steps
    assert all(step < 0.01 for step in steps)
