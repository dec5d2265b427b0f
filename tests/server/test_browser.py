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
from tests.server.browser import Page, wait_for
from tests.server.conftest import Client, served

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
SHOTS = os.environ.get("CANVAS_SHOTS")  # a folder for pictures of the page, for docs


@pytest.fixture(scope="module", params=["canvas", "elements"])
def renderer(request: pytest.FixtureRequest) -> str:
    """Nodes are drawn on a canvas, or, in the newer way, are elements of the page."""
    return str(request.param)


@pytest.fixture(scope="module")
def client(renderer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server whose settings choose the renderer."""
    folder = tmp_path_factory.mktemp(renderer)
    (folder / "settings.json").write_text(json.dumps({"Comfy.VueNodes.Enabled": renderer == "elements"}))
    with served(Settings({"fopru_fastv": Graph.load("fopru_fastv")}, folder, port=0)) as client:
        client.__dict__["folder"] = folder
        yield client


@pytest.fixture(scope="module")
def page(client: Client) -> Iterator[Page]:
    with browser.opened(client.address) as page:
        page.open()
        yield page


@pytest.fixture
def fresh(page: Page) -> Page:
    """The page, with the pipeline as it is served."""
    page.open()
    return page


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


def test_the_pipeline_appears_laid_out_without_complaints(page: Page) -> None:
    types = page.nodes("n.type")
    assert set(types) == set(Graph.load("fopru_fastv").nodes)
    assert types["prune"] == "FopruRankPrune"
    places = page.nodes("[n.pos[0], n.pos[1]]")
    assert len({tuple(place) for place in places.values()}) == len(places)
    assert places["model"][0] < places["encode"][0] < places["generate"][0] < places["picture"][0]
    assert page.page.get_by_text("missing", exact=False).count() == 0


def test_run_shows_progress_answer_and_overlay(fresh: Page, client: Client, renderer: str) -> None:
    told: list[str] = []
    fresh.page.on("websocket", lambda _: None)
    fresh.page.evaluate(
        "() => { window.told = []; for (const kind of ['progress_state', 'progress_text', 'executing', 'executed'])"
        " app.api.addEventListener(kind, () => window.told.push(kind)) }"
    )
    history = run(fresh, client)
    assert history["status"]["completed"] and history["outputs"]["generate"] == {"text": ["stop"]}
    answer = "app.graph._nodes.find(n => n.id === 'generate').widgets.find(w => w.name === 'answer')?.value"
    assert fresh.shows(answer) == "stop"
    (image,) = history["outputs"]["picture"]["images"]
    fresh.shows(f"app.nodeOutputs.picture?.images?.[0]?.filename === '{image['filename']}'")
    wait_for(lambda: any(image["filename"] in url for url in fresh.completed))
    told = fresh.page.evaluate("window.told")
    assert {"progress_state", "progress_text", "executing", "executed"} <= set(told)
    fresh.page.wait_for_timeout(1000)  # for the picture of the page
    shot(fresh, f"run-{renderer}")


def test_a_changed_ratio_runs_only_what_depends_on_it(fresh: Page, client: Client) -> None:
    run(fresh, client)
    fresh.change("stage_ratio", ratio=0.5)
    history = run(fresh, client)
    assert cached(history) == {"model", "image", "encode", "significance"}
    assert history["prompt"][2]["stage_ratio"]["inputs"]["ratio"] == 0.5
    assert cached(run(fresh, client)) == set(Graph.load("fopru_fastv").nodes)


def test_a_wrong_link_shows_on_its_node(fresh: Page, client: Client, renderer: str) -> None:
    before = len(jobs(client))
    fresh.page.evaluate("app.graph._nodes.find(n => n.id === 'project').disconnectInput(1)")
    fresh.click("Run")
    errors = fresh.shows("app.lastNodeErrors?.project && app.lastNodeErrors")
    assert list(errors) == ["project"]
    assert errors["project"]["errors"][0]["extra_info"] == {"input_name": "features"}
    fresh.page.get_by_text("project rejected the value for features", exact=False).first.wait_for()
    shot(fresh, f"error-{renderer}")
    assert len(jobs(client)) == before


def test_a_failure_of_a_run_shows_on_its_node(fresh: Page, client: Client) -> None:
    fresh.change("generate", prompt="<image> <image> what is it ?")
    history = run(fresh, client)
    assert not history["status"]["completed"]
    assert fresh.shows("app.lastExecutionError?.node_id ?? app.lastExecutionError?.detail?.node_id") == "generate"


def test_interrupt_stops_the_run(fresh: Page, client: Client) -> None:
    fresh.change("generate", max_new_tokens=800, min_new_tokens=800)
    known = {job["id"] for job in jobs(client, "cancelled")}
    fresh.click("Run")
    wait_for(lambda: jobs(client, "in_progress"))
    fresh.click("Cancel current run")
    (job,) = wait_for(lambda: [job for job in jobs(client, "cancelled") if job["id"] not in known])
    assert json.loads(client.ask("GET", f"/history/{job['id']}").body)[job["id"]]["outputs"] == {}


def test_a_workflow_is_saved_as_yaml_and_opened(fresh: Page, client: Client) -> None:
    fresh.change("stage_ratio", ratio=0.75)
    fresh.page.keyboard.press("Control+s")
    field = fresh.page.get_by_role("dialog").get_by_role("textbox")
    field.fill("mine")
    field.press("Enter")
    path = Path(client.__dict__["folder"], "workflows", "mine.yaml")
    wait_for(path.is_file)
    expected = Graph.load("fopru_fastv")
    expected.set("ratio", 0.75)
    kept = Graph.load(path)
    kept.ui = expected.ui
    assert kept == expected
    fresh.click("Workflows (w)")
    fresh.page.get_by_text("mine", exact=False).first.wait_for()


def test_a_picture_brings_its_pipeline_back(fresh: Page, client: Client) -> None:
    fresh.change("stage_ratio", ratio=0.125)
    (image,) = run(fresh, client)["outputs"]["picture"]["images"]
    content = base64.b64encode(client.ask("GET", f"/view?filename={image['filename']}&type=temp").body).decode()
    fresh.open()
    script = """async content => {
      const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
      await app.handleFile(new File([bytes], 'kept.png', { type: 'image/png' }));
    }"""
    fresh.page.evaluate(script, content)
    ratio = "app.graph._nodes.find(n => n.id === 'stage_ratio')?.widgets.find(w => w.name === 'ratio').value === 0.125"
    assert fresh.shows(ratio)


def test_nothing_is_sent_off_the_machine(page: Page) -> None:
    """It comes last: what all tests before have asked for."""
    assert page.elsewhere(page.completed) == []
    assert page.elsewhere(page.failed) != []  # the frontend asks for its releases, and is stopped
