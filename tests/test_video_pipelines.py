"""The shipped pipelines for videos, on a tiny Qwen2-VL that is saved as a checkpoint, and their refusals."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, NodeError, PipelineError, Ref
from fopru_graph.measure.pipelines import settings_of
from fopru_graph.pipeline_model import PipelineModel
from tests import tiny
from tests.lvlm.saved import save
from tests.lvlm.zoo import ZOO

FOLDER = Path(__file__).resolve().parent.parent / "pipelines" / "video"
NAMES = ["evs", "vidcom2"]


def load(name: str) -> Graph:
    return Graph.load(FOLDER / f"{name}.yaml")


def with_video(name: str, model: Path | str, video: Path) -> Graph:
    graph = load(name)
    graph.set("model", str(model))
    graph.set("video", str(video))
    return graph


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"), ZOO["qwen2_vl"].build("sdpa"))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Eight frames, of which Qwen2-VL sees four pairs; only the last pair shows another scene."""
    path = tmp_path_factory.mktemp("film") / "film.gif"
    frames = [tiny.image(9 if i > 5 else 0, 112, 112).picture for i in range(8)]
    for i, frame in enumerate(frames):
        frame.putpixel((2 * i, 0), (255, 0, 0))  # else the writer joins equal frames
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=500)
    return path


def test_every_shipped_file_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_file_is_valid_and_byte_stable_and_interchanges_with_the_others(name):
    graph, other = load(name), load("evs")
    assert graph.problems() == [] and graph.name == name
    assert graph.dumps() == (FOLDER / f"{name}.yaml").read_text()
    assert {key: (entry.type, entry.default) for key, entry in graph.inputs.items()} == {
        key: (entry.type, entry.default) for key, entry in other.inputs.items()
    }
    assert {key: str(entry.ref) for key, entry in graph.outputs.items()} == {
        "text": "$generate.text",
        "picture": "$picture",
    }


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_and_keeps_a_quarter_of_the_video(name, checkpoint, film, tmp_path):
    graph = with_video(name, checkpoint, film)
    result = graph.run(out=tmp_path)
    tokens = result.record.nodes["generate"]["report"]["visual_tokens"]
    assert (tokens["kept"], tokens["final"]) == (tokens["encoded"] // 4,) * 2
    with PIL.Image.open(result["picture"]) as picture:
        assert picture.width > 100
    (selection,) = graph.run(to="reorder", out=tmp_path).by_node["reorder"].values()
    frames = [len(indices) for indices in selection.indices]
    quarter = tokens["encoded"] // 4
    assert frames == [quarter, 0, 0, 0] if name == "evs" else min(frames) >= 1 and frames[3] == max(frames)


@pytest.mark.parametrize("name", NAMES)
def test_model_and_video_are_asked_for_in_a_sentence(name):
    with pytest.raises(PipelineError, match="inputs.video has no default and was not given"):
        load(name).run()


@pytest.mark.parametrize("name", NAMES)
def test_a_ratio_sets_their_one_budget(name, checkpoint, film):
    from fopru_graph.graph import Executor

    graph = with_video(name, checkpoint, film)
    settings = settings_of(graph, Executor(graph.registry).plan(graph), [0.5])
    assert [dict(setting.inputs) for setting in settings] == [{"ratio": 0.5}]
    spends = {"evs": "prune", "vidcom2": "budget"}[name]
    assert graph.node(spends).inputs["ratio"] == Ref("inputs", "ratio")


@pytest.mark.parametrize("name", NAMES)
def test_a_family_without_videos_and_a_task_of_pictures_are_refused_in_a_sentence(name, film, tmp_path):
    graph = with_video(name, "demo", film)
    with pytest.raises(NodeError, match="encode.*video"):
        graph.run(out=tmp_path)
    with pytest.raises(UserError, match="one LoadImage node, there is none"):
        PipelineModel(graph)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_in_place_of_the_video_is_refused_in_a_sentence(name, checkpoint, tmp_path):
    graph = with_video(name, checkpoint, tmp_path)
    graph.remove("video")
    graph.add("LoadImage", "video", path="demo:street-sign")
    with pytest.raises(NodeError, match="these are pictures"):
        graph.run(out=tmp_path)
