"""One call of a node: its values, what is shown, and how it fails."""

from __future__ import annotations

import json
import re
import socket
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any

import PIL.Image
import pytest
import torch
from pydantic import Field

from fopru_graph import UserError, values
from fopru_graph.comfy import call as calls
from fopru_graph.comfy import extension, host
from fopru_graph.comfy.arguments import arguments
from fopru_graph.comfy.call import Asked, NodeFailure, call
from fopru_graph.comfy.models import SharedModels
from fopru_graph.comfy.plan import NodePlan, plan_of, plans
from fopru_graph.comfy.prompt import prompt_of
from fopru_graph.graph import Cancelled, Context, Graph, Lazy, Node, Registry, node
from tests.comfy.standin import ComfyUI, node_api

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
PLANS = plans(Registry.default())
ASKED = Asked("here")


@node(category="test")
class Speaks(Node):
    def run(
        self,
        ctx: Context,
        pictures: list[values.Image] | None = None,
        picture: values.Image | None = None,
        tries: Annotated[int | None, Field(ge=1)] = None,
        words: list[str] | None = None,
        share: Annotated[float, Field(ge=0, le=1)] = 0.5,
        steps: int = 1,
        fails: str = "",
    ) -> str:
        for word in words or ():
            ctx.text(word)
        for step in range(1, steps + 1):
            ctx.progress(step, steps)
        ctx.warn("a warning")
        ctx.check_cancelled()
        if fails == "told":
            raise UserError(f"{host.folder('input')}/x.png is damaged", "give another")
        if fails == "long":
            raise ValueError("very " * 1000)
        if fails == "memory":
            raise sys.modules["comfy.model_management"].OOM_EXCEPTION("no room")
        if fails:
            raise KeyError(fails)
        return " ".join(words or ())


SPEAKS = plan_of(Speaks.spec)
GIVEN = {"tries": 0, "words": "", "share": 0.5, "steps": 1, "fails": ""}


@pytest.fixture(scope="module", autouse=True)
def speaks(comfy: ComfyUI) -> None:
    comfy.add(extension.node_class(SPEAKS, node_api))


def batch(count: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(count, 40, 30, channels, generator=torch.Generator().manual_seed(1))


# -- values -----------------------------------------------------------------------------------------------------------


def test_widgets_are_literals_and_what_is_missing_its_default(comfy: ComfyUI) -> None:
    given = {"tries": 3, "words": '["a", "b"]', "fails": "told"}
    expected = {
        "pictures": None,
        "picture": None,
        "tries": 3,
        "words": ["a", "b"],
        "fails": "told",
        "share": 0.5,
        "steps": 1,
    }
    assert arguments(SPEAKS, given) == expected
    assert arguments(SPEAKS, GIVEN) == arguments(SPEAKS, {}) == expected | {"tries": None, "words": None, "fails": ""}


def test_growing_links_are_a_list_in_order_with_batches_one_by_one(comfy: ComfyUI) -> None:
    single = values.Image(PIL.Image.new("RGB", (30, 40)), "mine")
    found = arguments(SPEAKS, {"pictures": {"picture0": single, "picture1": batch(2), "picture2": None}})["pictures"]
    assert found[0] is single and [each.shape for each in found] == [(40, 30)] * 3
    assert arguments(SPEAKS, {"pictures": {}})["pictures"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"picture": batch(2)}, "picture takes one picture, but the batch holds 2"),
        ({"picture": batch(1, 2)}, "is no batch of pictures"),
        ({"picture": batch(1) * float("nan")}, "holds nan or inf"),
        ({"tries": -1}, "tries must be greater than or equal to 1"),
        ({"words": "a"}, "words is no JSON"),
        ({"share": float("nan")}, "share "),
        ({"share": float("inf")}, "share "),
    ],
)
def test_values_that_do_not_fit_end_in_one_sentence(given: dict[str, Any], message: str, comfy: ComfyUI) -> None:
    with pytest.raises(NodeFailure, match=message) as raised:
        call(SPEAKS, GIVEN | given, ASKED)
    assert "\n" not in str(raised.value)


def test_a_missing_link_is_told(comfy: ComfyUI) -> None:
    with pytest.raises(NodeFailure, match=r"pictures is missing \(link a node to it\)"):
        call(PLANS["FopruPictures"], {"pictures": {}}, ASKED)


# -- services ---------------------------------------------------------------------------------------------------------


def told(monkeypatch: pytest.MonkeyPatch, seconds: float, given: dict[str, Any]) -> list[str]:
    """The texts that are shown when each look at the clock is so much later."""
    clock = iter(range(1, 1000))
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: next(clock) * seconds))
    shown: list[str] = []
    monkeypatch.setattr(host, "report_text", lambda node, text: shown.append(text))
    assert call(SPEAKS, GIVEN | given, ASKED).ui["text"]
    return shown


def test_texts_are_shown_whole_and_not_too_often(monkeypatch: pytest.MonkeyPatch, comfy: ComfyUI) -> None:
    given = {"words": json.dumps(list("abcdef"))}
    assert told(monkeypatch, 1.0, given) == ["a", "ab", "abc", "abcd", "abcde", "abcdef"]
    assert told(monkeypatch, 0.001, given) == ["a", "abcdef"]
    assert told(monkeypatch, 0.001, {"words": "[]"}) == []


def test_progress_and_warnings_reach_comfyui(
    comfy: ComfyUI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    registry = SimpleNamespace(update_progress=lambda *given: seen.append(given))
    monkeypatch.setattr(sys.modules["comfy_execution.progress"], "get_progress_state", lambda: registry)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: 1.0))
    call(SPEAKS, GIVEN | {"steps": 5}, ASKED)
    assert seen == [("here", 1.0, 5.0), ("here", 5.0, 5.0)] and "here: a warning" in caplog.text


def test_without_services_a_run_goes_on(
    comfy: ComfyUI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("server", "comfy_execution.progress", "comfy.model_management", "comfy.cli_args", "folder_paths"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(host, "_missing", set())
    for _ in range(2):
        assert call(SPEAKS, GIVEN | {"words": '["yes"]'}, ASKED).results == ["yes"]
    assert caplog.text.count("shows no texts") == caplog.text.count("shows no progress") == 1
    assert host.metadata_wanted() and host.model_folders(("LLM",)) == []
    assert host.interruption() is Cancelled and host.folder("input").name == "input"


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fails", "message"),
    [("told", "x.png is damaged (give another)"), ("what", "KeyError: 'what'"), ("long", "ValueError: very")],
)
def test_the_payload_of_an_error_is_short(fails: str, message: str, comfy: ComfyUI, comfy_root: Path) -> None:
    job = comfy.run(prompt_with(fails))
    (error,) = job.told("execution_error")
    assert job.status == "error" and error["node_id"] == "speaks"
    assert error["exception_message"].startswith(message) and len(error["exception_message"]) <= 700
    payload = json.dumps(error)
    assert len(payload) < 2000 and str(comfy_root) not in payload and "tensor(" not in payload
    assert len([frame for frame in error["traceback"] if "fopru_graph" in frame]) == 2  # the class and the call


def prompt_with(fails: str) -> dict[str, Any]:
    graph = Graph.load(PIPELINES / "random.yaml")
    prompt = prompt_of(graph)
    inputs = GIVEN | {"fails": fails, "picture": ["image", 0], "pictures.picture0": ["image", 0]}
    prompt["speaks"] = {"class_type": "FopruSpeaks", "inputs": inputs}
    return {name: prompt[name] for name in ("image", "speaks")} | {
        "save": {"class_type": "FopruSaveText", "inputs": {"text": ["speaks", 0], "file": "x.txt"}}
    }


def test_the_payload_of_a_node_that_gets_everything_is_short(comfy: ComfyUI, comfy_root: Path) -> None:
    prompt = prompt_of(Graph.load(PIPELINES / "fopru_fastv.yaml"))
    prompt["generate"]["inputs"]["stop"] = "nope"
    (error,) = comfy.run(prompt).told("execution_error")
    assert error["exception_message"].startswith("stop is no JSON: nope (write a list")
    payload = json.dumps(error)
    assert len(payload) < 2000 and str(comfy_root) not in payload and "tensor(" not in payload


def test_a_full_memory_stays_what_comfyui_knows(comfy: ComfyUI) -> None:
    with pytest.raises(sys.modules["comfy.model_management"].OOM_EXCEPTION, match="no room"):
        call(SPEAKS, GIVEN | {"fails": "memory"}, ASKED)


def test_what_comfyui_calls_a_full_memory_is_left_to_it(comfy: ComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    management = sys.modules["comfy.model_management"]
    monkeypatch.setattr(management, "is_oom", lambda error: isinstance(error, KeyError), raising=False)
    with pytest.raises(KeyError, match="accelerator"):
        call(SPEAKS, GIVEN | {"fails": "accelerator"}, ASKED)
    assert not host.is_out_of_memory(ValueError())


def test_an_interruption_by_comfyui_itself_is_one(comfy: ComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interruption(Exception):
        """As in some versions, of the common exceptions."""

    def load(_values: Any) -> None:
        raise Interruption

    monkeypatch.setattr(sys.modules["comfy.model_management"], "InterruptProcessingException", Interruption)
    monkeypatch.setattr(calls.models, "ready", load)
    with pytest.raises(Interruption):
        call(SPEAKS, GIVEN, ASKED)


def test_lazy_inputs_of_a_node_that_also_grows(comfy: ComfyUI) -> None:
    @node(category="test")
    class Chooses(Node):
        def run(self, pictures: list[values.Image], spare: Annotated[Any, Lazy()] = None) -> Any:
            return spare

        def needs(self, pictures: list[values.Image]) -> list[str]:
            return ["spare"] if len(pictures) > 1 else []

    plan, keys = plan_of(Chooses.spec), ("pictures.picture0", "pictures.picture1")
    picture = values.Image(PIL.Image.new("RGB", (30, 40)), "mine")
    for count in (1, 2):
        links = {f"picture{i}": (picture, key) for i, key in enumerate(keys[:count])}
        assert calls.wanted(plan, {"pictures": links, "spare": None}) == (["spare"] if count == 2 else [])


def test_a_stop_is_an_interruption(comfy: ComfyUI) -> None:
    comfy.interrupt()
    try:
        with pytest.raises(sys.modules["comfy.model_management"].InterruptProcessingException):
            call(SPEAKS, GIVEN, ASKED)
    finally:
        comfy.interrupt(False)


def test_an_old_transformers_loads_all_nodes_and_says_so_in_a_run(
    comfy: ComfyUI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_satisfied", False)
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "4.57.6" if name == "transformers" else installed(name))
    comfy.load(extension)
    comfy.forget()
    job = comfy.run(prompt_of(Graph.load(PIPELINES / "random.yaml")))
    (error,) = job.told("execution_error")
    told = r"fopru-graph needs transformers\S+ \(4.57.6 is installed\) in ComfyUI's Python"
    assert re.fullmatch(told, error["exception_message"]) and set(PLANS) < set(comfy.nodes)


# -- effects ----------------------------------------------------------------------------------------------------------


def test_the_demo_model_loads_without_the_network(comfy: ComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(calls, "models", SharedModels())  # which holds none yet
    plan: NodePlan = PLANS["FopruLoadModel"]
    (handle,) = call(plan, {slot.name: slot.default for slot in plan.widgets}, ASKED).results
    assert isinstance(handle, values.ModelHandle)
    assert call(plan, {}, ASKED).results == [handle]  # one model for equal inputs


def test_effects_of_other_packs_are_counted_too(comfy: ComfyUI, comfy_root: Path) -> None:
    @node(category="test", output=True)
    class Writes(Node):
        def run(self, ctx: Context) -> str:
            path = ctx.output_path("a.b.txt")
            path.write_text("x")
            return str(path)

    names = [call(plan_of(Writes.spec), {}, ASKED).results for _ in range(2)]
    assert names == [["a.b_00001.txt [output]"], ["a.b_00002.txt [output]"]]
    assert (comfy_root / "output" / "a.b_00002.txt").read_text() == "x"
