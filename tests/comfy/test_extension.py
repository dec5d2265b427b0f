"""What ComfyUI is told of our nodes, and what it refuses before a run."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.comfy import extension, files
from fopru_graph.comfy.object_info import object_info
from fopru_graph.comfy.plan import plan_of, plans
from fopru_graph.comfy.prompt import prompt_of
from fopru_graph.graph import Graph, Registry
from tests.comfy.standin import ComfyUI, node_api

PLANS = plans(Registry.default())
PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


def told(comfy: ComfyUI) -> dict[str, Any]:
    """What the stand-in says of our nodes, without the module that they come from."""
    return {name: info for name, info in comfy.object_info().items() if name in PLANS}


def test_object_info_is_what_the_plan_says(comfy: ComfyUI) -> None:
    ours = object_info(PLANS.values(), lambda slot: files.choices(slot.socket.path))
    ours = json.loads(json.dumps(ours))
    for info in ours.values():
        del info["python_module"]
    theirs = told(comfy)
    assert theirs.keys() == ours.keys()
    for name, info in theirs.items():
        assert info == ours[name], name
        assert list(info["input_order"]["required"]) == list(ours[name]["input"]["required"])


def test_no_seed_changes_after_a_run(comfy: ComfyUI) -> None:
    widgets = [widget for info in told(comfy).values() for name, widget in info["input"]["required"].items()
               if "seed" in name]  # fmt: skip
    assert widgets and all(options["control_after_generate"] is False for _, options in widgets)


def test_what_another_version_does_not_know_is_left_out(monkeypatch: pytest.MonkeyPatch, comfy: ComfyUI) -> None:
    class Schema:
        def __init__(self, node_id: str, inputs: list[Any], outputs: list[Any], category: str, hidden: list[Any]):
            self.__dict__.update(node_id=node_id, inputs=inputs, outputs=outputs)

    class Text(node_api.Input):
        def __init__(self, id: str, default: str = ""):
            super().__init__(id)
            self.default = default

    monkeypatch.setattr(node_api, "Schema", Schema)
    monkeypatch.setattr(node_api, "String", node_api.of_type("STRING", Text))
    monkeypatch.delattr(node_api, "Autogrow")
    monkeypatch.delattr(node_api, "UploadType")
    classes = asyncio.run(extension.extension(Registry.default().types().values()).get_node_list())
    assert {cls.__name__ for cls in classes} == set(PLANS)
    answer = next(cls for cls in classes if cls.__name__ == "FopruLLMGenerate")
    (pruners,) = [each for each in answer.SCHEMA.inputs if each.id == "pruners"]
    assert pruners.io_type == "FOPRU_IN_LLM_PRUNER"


def test_a_node_that_cannot_be_shown_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, comfy: ComfyUI, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(node_api, "Boolean")
    with caplog.at_level(logging.WARNING):
        classes = asyncio.run(extension.extension(Registry.default().types().values()).get_node_list())
    names = {cls.__name__ for cls in classes}
    left_out = {name for name, plan in PLANS.items() if any(slot.kind == "bool" for slot in plan.slots)}
    assert left_out and names == set(PLANS) - left_out
    assert len([record for record in caplog.records if "is left out" in record.message]) == len(left_out)


def test_nodes_of_folders_that_the_user_names_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, comfy: ComfyUI, caplog: pytest.LogCaptureFixture
) -> None:
    source = (
        "from fopru_graph import Node, node\n\n@node(category='mine')\nclass {}(Node):\n"
        "    def run(self, many: int = 3) -> int:\n        return many\n"
    )
    (tmp_path / "own_node.py").write_text(source.format("MineAlone"))
    (tmp_path / "clash.py").write_text(source.format("Pictures"))
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.setenv("FOPRU_GRAPH_NODES", str(tmp_path))
    made = asyncio.run(extension.comfy_entrypoint())
    names = [cls.__name__ for cls in asyncio.run(made.get_node_list())]
    assert sorted(names) == sorted([*PLANS, "FopruMineAlone"])
    assert "Pictures is left out" in caplog.text and "broken.py:1 failed to load" in caplog.text


# -- refused before a run ---------------------------------------------------------------------------------------------

BAD = {  # type, input, a value that is refused, words of the message
    ("FopruRankPrune", "ratio", 0.0): "0",
    ("FopruRankPrune", "ratio", 1.5): "1",
    ("FopruRankPrune", "over", "nothing"): "not in",
    ("FopruLLMGenerate", "max_new_tokens", 0): "smaller than min of 1",
    ("FopruLLMGenerate", "loop", "none"): "not in",
    ("FopruLLMGenerate", "top_p", 1.5): "bigger than max of 1",
    ("FopruLLMGenerate", "top_k", -1): "smaller than min of 0",
    ("FopruLLMGenerate", "messages", "{"): "is no JSON",
    ("FopruLLMGenerate", "messages", '["a"]'): "messages - messages",
    ("FopruLLMGenerate", "seed", "x"): "invalid literal",
    ("FopruShowKept", "file", "../x.png"): "file - file",
    ("FopruLoadImage", "path", "nothing.png"): "there is no file 'nothing.png'",
    ("FopruLoadModel", "name", "owner/name"): "there is no folder 'owner/name'",
    ("FopruLoadModel", "device_map", "everywhere"): "not in",
}


@pytest.fixture(scope="module")
def prompt() -> dict[str, Any]:
    return prompt_of(Graph.load(PIPELINES / "fopru_rank.yaml"))


@pytest.mark.parametrize("case", BAD, ids=lambda case: f"{case[0]}.{case[1]}={case[2]}")
def test_one_message_on_the_input_that_is_wrong(
    case: tuple[str, str, Any], comfy: ComfyUI, prompt: dict[str, Any]
) -> None:
    class_type, name, value = case
    prompt = copy.deepcopy(prompt)
    (node,) = [node for node, step in prompt.items() if step["class_type"] == class_type]
    prompt[node]["inputs"][name] = value
    job = comfy.run(prompt)
    ((told_node, errors),) = job.errors.items()
    assert (job.status, told_node, len(errors)) == ("refused", node, 1)
    assert errors[0]["extra_info"]["input_name"] == name
    assert BAD[case] in errors[0]["details"] and "\n" not in errors[0]["details"]


def test_pictures_want_a_first_link(comfy: ComfyUI, prompt: dict[str, Any]) -> None:
    prompt = copy.deepcopy(prompt) | {"several": {"class_type": "FopruPictures", "inputs": {}}}
    prompt["encode"]["inputs"]["image"] = ["several", 0]
    (error,) = comfy.run(prompt).errors["several"]
    assert (error["type"], error["extra_info"]["input_name"]) == ("required_input_missing", "pictures.picture0")


NONE = {  # type, input, the widget's value that stands for None
    ("FopruRankPrune", "tokens"): 0,
    ("FopruLLMGenerate", "top_p"): 0,
    ("FopruLLMGenerate", "top_k"): 0,
    ("FopruLLMGenerate", "positions"): "none",
    ("FopruLLMGenerate", "messages"): "",
    ("FopruVisionEncode", "layers"): "",
    ("FopruLoadModel", "revision"): "",
    ("FopruLoadModel", "device_map"): "none",
}


@pytest.mark.parametrize("case", NONE, ids=".".join)
def test_values_that_stand_for_none_pass(case: tuple[str, str], comfy: ComfyUI, prompt: dict[str, Any]) -> None:
    prompt = copy.deepcopy(prompt)
    (node,) = [node for node, step in prompt.items() if step["class_type"] == case[0]]
    prompt[node]["inputs"][case[1]] = NONE[case]
    assert comfy.run(prompt).errors == {}


def test_at_most_one_input_is_named_to_a_check_of_ours(comfy: ComfyUI) -> None:
    named = {name: extension.told_here(plan) for name, plan in PLANS.items()}
    assert {name for name, slot in named.items() if slot is not None} == {
        name for name in PLANS if hasattr(comfy.nodes[name], "validate_inputs")
    }
    assert all(slot.kind == "file" for name, slot in named.items() if slot and PLANS[name].spec.category == "load")


def test_hooks_are_there_only_for_nodes_that_have_them(comfy: ComfyUI) -> None:
    for name, plan in PLANS.items():
        node = comfy.nodes[name]
        assert hasattr(node, "fingerprint_inputs") == hasattr(plan.spec.cls, "fingerprint"), name
        assert hasattr(node, "check_lazy_status") == bool(plan.spec.lazy_inputs()), name
        assert node.SCHEMA.has_intermediate_output == (name in ("FopruLLMGenerate", "FopruStockGenerate")), name
    assert plan_of(Registry.default().get("Switch")).spec.lazy_inputs()


def test_declarations_need_neither_torch_nor_transformers() -> None:
    program = """
import sys
sys.modules |= dict.fromkeys(("torch", "transformers", "comfy_api", "folder_paths"))  # so that importing them fails
from fopru_graph.comfy import extension, files
from fopru_graph.comfy.plan import plans
from fopru_graph.graph import Registry
names = [name for plan in plans(Registry.default()).values() for slot in plan.slots if slot.socket.path is not None
         for name in files.choices(slot.socket.path)]
assert "demo" in names and "demo:street-sign" in names, names
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
