"""Which file a path means: in a pipeline's file, on the command line, in Python, in a record, in a sub-graph."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import PIL.Image
import pytest

from fopru_graph.graph import Graph, RunRecord
from fopru_graph.lvlm.inputs.images import load_image
from fopru_graph.paths import absolute_path, local_path
from tests.test_cli import invoke

LOAD = """format: 1
inputs:
  image: {type: path, default: red.png}
nodes:
  image: {type: LoadImage, inputs: {path: $inputs.image}}
  other: {type: LoadImage, inputs: {path: ../project/red.png}}
outputs: {image: $image, other: $other}
"""
RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a red picture, and a working directory elsewhere with a blue one of the same name."""
    for name, colour in (("project", RED), ("shell", BLUE)):
        (tmp_path / name).mkdir()
        PIL.Image.new("RGB", (32, 32), colour).save(tmp_path / name / "red.png")
    (tmp_path / "project" / "load.yaml").write_text(LOAD)
    monkeypatch.chdir(tmp_path / "shell")
    monkeypatch.setenv("HOME", str(tmp_path / "shell"))
    return tmp_path / "project"


def colour(image) -> tuple[int, int, int]:
    return image.picture.getpixel((0, 0))


def colours(result) -> list[tuple[int, int, int]]:
    return [colour(image) for image in result.values()]


def test_a_path_in_a_file_is_relative_to_it_and_the_text_stays(project):
    graph = Graph.load(project / "load.yaml")
    result = graph.run()
    assert colours(result) == [RED, RED] and graph.dumps() == LOAD
    assert result.record.inputs == {"image": str(project / "red.png")}
    assert result.record.nodes["image"]["inputs"] == {"path": str(project / "red.png")}


@pytest.mark.parametrize("given", ["red.png", "./red.png", "~/red.png", Path("red.png"), "file://{shell}/red.png"])
def test_a_path_that_is_set_is_relative_to_the_working_directory(project, given):
    given = given.format(shell=Path.cwd()) if isinstance(given, str) else given
    graph = Graph.load(project / "load.yaml")
    assert colours(graph.run(sets={"image": given, "other.path": given})) == [BLUE, BLUE]
    graph.set("image", given)
    graph.save(project.parent / "elsewhere.yaml")
    assert colours(Graph.load(project.parent / "elsewhere.yaml").run(targets=["image"])) == [BLUE]


def test_a_graph_of_python_reads_from_the_working_directory(project):
    graph = Graph()
    graph.output("image", graph.LoadImage(path="red.png"))
    assert colours(graph.run()) == [BLUE]


def test_a_record_replays_from_anywhere(project, monkeypatch):
    graph = Graph.load(project / "load.yaml")
    first = graph.run(sets={"other.path": "red.png"})
    first.record.save("run.json")
    monkeypatch.chdir(project.parent)
    replayed = Graph.from_record(RunRecord.load("shell/run.json")).run()
    assert colours(replayed) == [RED, BLUE] and not replayed.warnings
    again = Graph.from_record(RunRecord.load("shell/run.json"))
    assert colours(again.run(sets={"image": "shell/red.png"})) == [BLUE, BLUE]
    old = first.record.to_json() | {"folder": None}  # of before: paths are relative to the working directory
    monkeypatch.chdir(project)
    assert Graph.from_record(RunRecord(**old)).run()["image"].source == str(project / "red.png")


def test_paths_of_a_sub_graph_are_relative_to_its_own_text(project):
    shutil.copy(project / "red.png", project.parent / "green.png")
    outer = "format: 1\nnodes:\n  block: {type: project/load.yaml%s}\noutputs: {a: $block.image, b: $block.other}\n"
    (project.parent / "outer.yaml").write_text(outer % "")
    graph = Graph.load(project.parent / "outer.yaml")
    result = graph.run()
    assert colours(result) == [RED, RED] and graph.dumps() == outer % ""
    assert colours(Graph.from_record(result.record).run()) == [RED, RED]
    assert colours(graph.run(sets={"block.image": "red.png", "block/other.path": "red.png"})) == [BLUE, BLUE]
    (project.parent / "outer.yaml").write_text(outer % ", inputs: {image: green.png, other.path: shell/red.png}")
    assert colours(Graph.load(project.parent / "outer.yaml").run()) == [RED, BLUE]


def test_the_command_line_says_where_a_file_is_missing(project):
    (project / "lost.yaml").write_text(LOAD.replace("default: red.png", "default: lost.png"))
    result = invoke("run", str(project / "lost.yaml"), "--json")
    error = json.loads(result.stdout)["error"]
    assert result.exit_code == 1 and f"there is no file '{project / 'lost.png'}'" in error["message"]
    assert invoke("run", str(project / "lost.yaml"), "--set", "image=red.png").exit_code == 0
    assert invoke("validate", f"file://{project}/load.yaml").exit_code == 0
    result = invoke("run", f"{project}/lots.yaml")
    assert result.exit_code == 2 and "No such file" in result.stderr and "syntax" not in result.output


def test_a_model_may_be_a_folder_beside_the_pipeline_or_a_name(project):
    text = "format: 1\nnodes:\n  model: {type: LoadModel, inputs: {name: %s}}\noutputs: {model: $model}\n"

    def bound(name):
        (project / "model.yaml").write_text(text % name)
        from fopru_graph.graph import plan

        return plan(Graph.load(project / "model.yaml")).steps["model"].inputs["name"]

    (project / "mine").mkdir()
    assert bound("mine") == bound("./mine") == str(project / "mine")
    assert bound("~/mine") == str(Path.cwd() / "mine")
    assert [bound(name) for name in ("demo", "llava-hf/llava-1.5-7b-hf")] == ["demo", "llava-hf/llava-1.5-7b-hf"]


def test_one_rule(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute_path("a.png", Path("/x")) == absolute_path("./a.png", Path("/x")) == "/x/a.png"
    assert absolute_path("file:///x/a%20b.png") == absolute_path("file://localhost/x/a%20b.png") == "/x/a b.png"
    assert absolute_path("~/a.png", Path("/x")) == local_path("~/a.png") == "/home/me/a.png"
    for text in ("demo:street-sign", "https://example.org/a.png", "file://a.png", "", "a\0b"):
        assert absolute_path(text, Path("/x")) == text
    with pytest.raises(Exception, match="there is no file") as caught:
        load_image("file://a.png")
    assert "three slashes" in caught.value.hint
