"""docs/serving.md: its code runs up to the line that needs an engine, and its table is what is refused."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fopru_graph.lvlm.families.registry import served_families
from fopru_graph.serving import sglang
from fopru_graph.serving.engines import SGLANG, VLLM
from tests.serving.engine import handed_over, kept
from tests.test_cli import invoke

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def run(block: str) -> dict:
    names: dict = {}
    exec(compile(block, "docs/serving.md", "exec"), names)
    return names


@pytest.fixture(scope="module", autouse=True)
def exported(tmp_path_factory):
    """A folder in which the page's exports were run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        for line in blocks("console")[0].splitlines():
            assert invoke(*shlex.split(line)[1:]).exit_code == 0
        yield


def test_every_served_family_is_in_each_engines_lists_once():
    families = sorted(card.family for card in served_families())
    for engine in (VLLM, SGLANG):
        assert sorted([*engine.takes, *engine.refuses]) == families


def test_the_table_says_what_is_refused_and_why():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert sorted(rows) == sorted(card.family for card in served_families())
    for family, cells in rows.items():
        for engine, cell in zip((VLLM, SGLANG), cells.split(" | "), strict=True):
            assert (cell == f"no: {engine.refuses[family]}") if family in engine.refuses else not cell.startswith("no")
    for engine in (VLLM, SGLANG):
        assert f"{engine.name} {engine.version}" in PAGE


def test_what_vllm_reads_offline_is_a_request():
    request = run(blocks("python")[0])["request"]
    assert request["prompt_token_ids"].count(4) == 1
    assert [tuple(part.shape) for part in request["multi_modal_data"]["image"]] == [(64, 256)]


def test_what_sglang_reads_is_an_item(family_of):
    family = family_of("qwen2_5_vl")
    Path("sglang.safetensors").write_bytes(sglang.item(handed_over(family, kept(family))))
    item = run(blocks("python")[2])["item"]
    assert sorted(item) == ["feature", "format", "image_grid_thw", "mrope_position_delta", "mrope_positions"]


def test_the_file_is_read_and_answers(capsys):
    run(blocks("python")[4])
    assert capsys.readouterr().out == "demo 64 (1, 75)\n"
    Path("again.yaml").write_text(blocks("yaml")[1], encoding="utf-8")
    assert invoke("run", "again.yaml").stdout == "white\n"


def test_saving_beside_the_answer_is_a_line_of_yaml():
    pipeline = (Path(__file__).parents[2] / "pipelines" / "fopru_rank.yaml").read_text(encoding="utf-8")
    Path("saving.yaml").write_text(pipeline.replace("outputs:", blocks("yaml")[0] + "outputs:"), encoding="utf-8")
    assert invoke("run", "saving.yaml").stdout == "stop\n"
    assert Path("fopru-out/vllm.json").is_file()
