"""``fopru-graph map``: pictures to part files, once each; refusals before anything is computed."""

from __future__ import annotations

import json

import pytest

from fopru_graph.scale.folder import MapFolder
from tests.test_cli import COMBINED, SAMPLES, invoke

pq = pytest.importorskip("pyarrow.parquet")
ROWS = [
    {"id": 1, "image": str(SAMPLES / "street-sign.png"), "q": "what does the text say ?"},
    {"id": 2, "image": "nowhere.png", "q": "what does the text say ?"},
    {"id": 3, "image": "demo:taxi-rank", "q": "what colour is the star ?"},
]
READ = ["--read", "image=image", "--read", "prompt=q", "--id", "id"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A table, and its answers by one worker in a process of its own."""
    folder = tmp_path_factory.mktemp("map")
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    arguments = ["map", COMBINED, "--over", str(folder / "x.jsonl"), *READ, "--into", str(folder / "out")]
    arguments += ["--write", "text", "--write", "visual_tokens", "--workers", "1", "--part-rows", "2"]
    return folder, arguments, invoke(*arguments, "--json")


def test_rows_are_answered_into_parquet_and_failed_ones_say_why(done):
    folder, _, result = done
    assert result.exit_code == 3, result.stderr
    said = json.loads(result.stdout)
    assert {name: said[name] for name in ("rows", "errors", "parts", "made", "engine")} == {
        **{"rows": 3, "errors": 1, "parts": 2, "made": 3, "engine": "local"}
    }
    assert said["common_errors"][0]["message"].startswith("there is no file ")
    rows = pq.read_table(folder / "out").to_pylist()  # ``_map`` is passed over
    assert [(row["id"], row["text"]) for row in rows] == [(1, "stop"), (2, None), (3, "white")]
    assert rows[0]["visual_tokens"] == {"encoded": 256, "kept": 128, "final": 64, "layer_average": 96.0}
    assert list(rows[0]) == ["id", "text", "visual_tokens", "error"]


def test_what_is_done_is_not_done_again(done):
    _, arguments, _ = done
    result = invoke(*arguments)
    assert result.exit_code == 3 and "3 rows in 2 parts, 1 error; 0 made in" in result.stdout
    assert "with --retry answers them again" in result.stderr


def test_rows_of_another_pipeline_are_refused_with_what_differs(done):
    _, arguments, _ = done
    result = invoke(*arguments, "--set", "prune.ratio=0.3", "--json")
    assert result.exit_code == 2
    said = json.loads(result.stdout)["error"]["message"]
    assert "holds rows of something else: pipeline differ; " in said and said.endswith("now it is 0.3")
    assert invoke(*arguments, "--write", "new_tokens").exit_code == 2
    without = json.loads(invoke(*arguments, "--without", "fastv", "--json").stdout)["error"]["message"]
    assert "pipeline differ; " in without and "fastv" in without


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "spark"], "--engine spark is unknown"),
        (["--read", "image"], "--read image: that is not NAME=COLUMN"),
        (["--read", "image=image"], "--read image is given twice"),
        (["--write", "texts"], "there is no 'texts' to write"),
        (["--id", "error"], "the results have another column of that name"),
        (["--over", "nowhere.parquet"], "there is no file or folder"),
        (["--set", "nowhere.ratio=1"], "nowhere"),
    ],
)
def test_a_mistake_is_told_before_anything_is_computed(done, options, said):
    _, arguments, _ = done
    result = invoke(*arguments, *options)
    assert result.exit_code == 2 and said in result.stderr.replace("\n", " ")


def test_a_second_driver_is_refused(done):
    folder, arguments, _ = done
    with MapFolder(folder / "out").driven("another", lambda _: None):
        result = invoke(*arguments)
    assert result.exit_code == 2 and "another process maps into" in result.stderr
