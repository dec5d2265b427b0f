"""ComfyUI's own frontend in Chromium, on our server: shows, runs, stops and keeps our pipelines, and stays at home."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fopru_graph.graph import Graph
from fopru_graph.server.settings import Settings
from tests.server import browser
from tests.server.browser import Page
from tests.server.canvas_client import wait_for
from tests.server.conftest import Client, served

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
SHOTS = os.environ.get("CANVAS_SHOTS")  # a folder for pictures of the page, for docs


RENDERERS = ("canvas", "elements")  # nodes are drawn, or, in the newer way, are elements of the page
REFUSED: list[str] = []  # addresses on other machines that pages asked for
COMPLETED: list[str] = []  # and those that answered


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.started() as program:
        yield program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canvas")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with served(Settings({"fopru_fastv": Graph.load("fopru_fastv")}, folder, port=0)) as client:
        yield client


@pytest.fixture
def page(chromium: Any, client: Client, renderer: str) -> Iterator[Page]:
    """The canvas of someone who comes for the first time."""
    settings = json.dumps({"Comfy.VueNodes.Enabled": renderer == "elements"}).encode()
    assert client.ask("POST", "/settings", settings, content_type="application/json").status == 200
    with browser.visited(chromium, client.address) as page:
        yield page
        REFUSED.extend(page.elsewhere(page.failed))
        COMPLETED.extend(page.elsewhere(page.completed))


@pytest.fixture
def renderer(request: pytest.FixtureRequest) -> str:
    """How nodes are drawn; tests that look at them do it in both ways."""
    return str(getattr(request, "param", "canvas"))


both = pytest.mark.parametrize("renderer", RENDERERS, indirect=True)


def jobs(client: Client, status: str = "completed,failed,cancelled") -> list[dict[str, Any]]:
    return json.loads(client.ask("GET", f"/jobs?status={status}").body)["jobs"]


def run(page: Page, client: Client) -> dict[str, Any]:
    """Press Run, and give the history of the job once it has ended."""
    known = {job["id"] for job in jobs(client)}
    page.click("Run")
    (job,) = wait_for(lambda: [job for job in jobs(client) if job["id"] not in known])
    return json.loads(client.ask("GET", f"/history/{job['id']}").body)[job["id"]]


def cached(history: dict[str, Any]) -> set[str]:
    return set(next(data["nodes"] for kind, data in history["status"]["messages"] if kind == "execution_cached"))


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.page.screenshot(path=str(Path(SHOTS, f"{name}.png")))


@both
def test_the_pipeline_appears_laid_out_without_complaints(page: Page) -> None:
    types = page.nodes("n.type")
    assert set(types) == set(Graph.load("fopru_fastv").nodes)
    assert types["prune"] == "FopruRankPrune"
    places = page.nodes("[n.pos[0], n.pos[1]]")
    assert len({tuple(place) for place in places.values()}) == len(places)
    assert places["model"][0] < places["encode"][0] < places["generate"][0] < places["picture"][0]
    assert page.page.get_by_text("missing", exact=False).count() == 0


@both
def test_run_shows_progress_answer_and_overlay(page: Page, client: Client, renderer: str) -> None:
    assert client.ask("POST", "/free", b"{}", content_type="application/json").status == 200  # so that all of it runs
    page.page.evaluate(
        "() => { window.told = []; for (const kind of ['progress_state', 'progress_text', 'executing', 'executed'])"
        " app.api.addEventListener(kind, () => window.told.push(kind)) }"
    )
    history = run(page, client)
    assert history["status"]["completed"] and history["outputs"]["generate"] == {"text": ["stop"]}
    answer = "app.graph._nodes.find(n => n.id === 'generate').widgets.find(w => w.name === 'answer')?.value"
    assert page.shows(answer) == "stop"
    (image,) = history["outputs"]["picture"]["images"]
    page.shows(f"app.nodeOutputs.picture?.images?.[0]?.filename === '{image['filename']}'")
    wait_for(lambda: any(image["filename"] in url for url in page.completed))
    told = page.page.evaluate("window.told")
    assert {"progress_state", "progress_text", "executing", "executed"} <= set(told)
    page.page.wait_for_timeout(1000)  # for the picture of the page
    shot(page, f"run-{renderer}")


def test_a_changed_ratio_runs_only_what_depends_on_it(page: Page, client: Client) -> None:
    run(page, client)
    page.change("stage_ratio", ratio=0.5)
    history = run(page, client)
    assert cached(history) == {"model", "image", "encode", "significance"}
    assert history["prompt"][2]["stage_ratio"]["inputs"]["ratio"] == 0.5
    assert cached(run(page, client)) == set(Graph.load("fopru_fastv").nodes)


@both
def test_a_wrong_link_shows_on_its_node(page: Page, client: Client, renderer: str) -> None:
    before = len(jobs(client))
    page.page.evaluate("app.graph._nodes.find(n => n.id === 'project').disconnectInput(1)")
    page.click("Run")
    errors = page.shows("app.lastNodeErrors?.project && app.lastNodeErrors")
    assert list(errors) == ["project"]
    assert errors["project"]["errors"][0]["extra_info"] == {"input_name": "features"}
    page.page.get_by_text("project rejected the value for features", exact=False).first.wait_for()
    shot(page, f"error-{renderer}")
    assert len(jobs(client)) == before


def test_a_failure_of_a_run_shows_on_its_node(page: Page, client: Client) -> None:
    page.change("generate", prompt="<image> <image> what is it ?")
    history = run(page, client)
    assert not history["status"]["completed"]
    assert page.shows("app.lastExecutionError?.node_id ?? app.lastExecutionError?.detail?.node_id") == "generate"


def test_interrupt_stops_the_run(page: Page, client: Client) -> None:
    page.change("generate", max_new_tokens=800, min_new_tokens=800)
    known = {job["id"] for job in jobs(client, "cancelled")}
    page.click("Run")
    wait_for(lambda: jobs(client, "in_progress"))
    page.click("Cancel current run")
    (job,) = wait_for(lambda: [job for job in jobs(client, "cancelled") if job["id"] not in known])
    assert json.loads(client.ask("GET", f"/history/{job['id']}").body)[job["id"]]["outputs"] == {}


def test_a_workflow_is_saved_as_yaml_and_listed(page: Page, folder: Path) -> None:
    page.change("stage_ratio", ratio=0.75)
    page.page.keyboard.press("Control+s")
    field = page.page.get_by_role("dialog").get_by_role("textbox")
    field.fill("mine")
    field.press("Enter")
    path = folder / "workflows" / "mine.yaml"
    wait_for(path.is_file)
    expected = Graph.load("fopru_fastv")
    expected.set("ratio", 0.75)
    kept = Graph.load(path)
    kept.ui = expected.ui
    assert kept == expected
    page.click("Workflows (w)")
    page.page.get_by_text("mine", exact=False).first.wait_for()


def test_a_picture_brings_its_pipeline_back(page: Page, client: Client) -> None:
    page.change("stage_ratio", ratio=0.125)
    (image,) = run(page, client)["outputs"]["picture"]["images"]
    content = base64.b64encode(client.ask("GET", f"/view?filename={image['filename']}&type=temp").body).decode()
    page.change("stage_ratio", ratio=0.5)
    script = """async content => {
      const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
      await app.handleFile(new File([bytes], 'kept.png', { type: 'image/png' }));
    }"""
    page.page.evaluate(script, content)
    ratio = "app.graph._nodes.find(n => n.id === 'stage_ratio')?.widgets.find(w => w.name === 'ratio').value === 0.125"
    assert page.shows(ratio)


def test_nothing_is_sent_off_the_machine(page: Page, client: Client) -> None:
    run(page, client)
    page.page.wait_for_timeout(2000)  # it asks for its releases some time after it has come up
    assert COMPLETED + page.elsewhere(page.completed) == []
    assert any("api.comfy.org" in url for url in REFUSED + page.elsewhere(page.failed))
