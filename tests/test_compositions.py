"""tools/compositions.py: what is composed of files is what one would wire, and a sweep takes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fopru_graph.commands.arguments import ModelOptions
from fopru_graph.commands.option_groups import SweepOptions
from fopru_graph.commands.sweep import plan_cells
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph
from fopru_graph.measure.pipelines import benched_pipelines
from tools.compositions import PIPELINES, compose, compositions

SHIPPED = {path.stem: Graph.load(path) for path in sorted(PIPELINES.glob("*.yaml"))}


def test_fopru_composed_with_fastv_is_the_shipped_composition(tmp_path):
    made = compose(SHIPPED["fopru_rank"], SHIPPED["fastv"])
    made.save(tmp_path / "made.yaml")
    answers = []
    for graph in (Graph.load(tmp_path / "made.yaml"), SHIPPED["fopru_fastv"]):
        (quarter,) = benched_pipelines(graph, [0.25])
        generation = quarter.graph.run(to=quarter.target, out=tmp_path)["generation"]
        answers.append((generation.texts, generation.token_ids, generation.visual_per_layer))
    assert answers[0] == answers[1]
    assert answers[0][2] == (128, 128, 128, 64, 64, 64)


def test_all_compositions_of_what_ships_are_valid_pipelines_that_take_a_ratio():
    made = compositions(SHIPPED.values(), SHIPPED.values())
    names = {graph.name for graph in made}
    assert len(names) == len(made) and {"fopru_rank_fastv", "spatial_pool_fastv"} <= names
    assert not {name for name in names if name.startswith(("fastv", "baseline", "blind", "fopru_fastv"))}
    for graph in made:
        assert graph.problems() == []
        assert graph.dumps() == Graph.loads(graph.dumps()).dumps()


def test_a_sweep_plans_the_folder_that_the_tool_writes(tmp_path):
    files = [str(PIPELINES / f"{name}.yaml") for name in ("fopru_rank", "random", "fastv")]
    command = [sys.executable, PIPELINES.parent / "tools" / "compositions.py", tmp_path / "made"]
    done = subprocess.run(
        [*command, "--before", *files, "--inside", *files], capture_output=True, text=True, check=True
    )
    assert done.stderr.startswith("2 compositions in ")
    written = sorted((tmp_path / "made").glob("*.yaml"))
    options = SweepOptions(task="scenes", ratio="0.25,0.11", out=tmp_path / "out")
    cells = plan_cells(written, None, options, ModelOptions())
    assert sorted(cell.label for cell in cells) == [
        f"{name}_fastv--scenes--r{ratio}" for name in ("fopru_rank", "random") for ratio in ("0.11", "0.25")
    ]


def test_a_pipeline_that_prunes_nothing_inside_is_refused():
    with pytest.raises(UserError, match="random prunes nothing inside the language model"):
        compose(SHIPPED["fopru_rank"], SHIPPED["random"])


def test_two_nodes_of_one_name_are_refused():
    other = SHIPPED["fopru_rank"].copy()
    other.add("FastVPrune", "fastv", layer=2)
    with pytest.raises(UserError, match="both fopru_rank and fastv have a node fastv"):
        compose(other, SHIPPED["fastv"])


def test_the_docs_commands_are_those_of_the_tool():
    text = Path("docs/methods.md").read_text(encoding="utf-8")
    assert "python tools/compositions.py build/compositions" in text
