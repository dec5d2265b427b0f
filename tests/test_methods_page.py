"""docs/methods.md says of every shipped pipeline what is so: its rows, and what code can tell of them.

``python -m tests.test_methods_page`` counts own lines anew and writes them into the page.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fopru_graph.graph import Graph
from tests import tiny
from tests.lvlm.test_every_pipeline import NO_VIDEO, film, refusal
from tests.lvlm.tiny_bench import PIPELINES, TinyBench
from tests.lvlm.zoo import ZOO
from tests.own_lines import own_lines

PAGE = Path("docs/methods.md").read_text(encoding="utf-8")
MOST_OWN_LINES = 30
LONGER = {
    "prumerge_plus": "37: the 29 of PruMerge, and uniform tokens, a node with one function, 8",
    "sparsevlm": "60: raters 13, what comes back and where it goes 28, density peaks, which nobody else uses, 12",
}
QUESTIONS = ("what is there?", "one red circle", "is it up there", "left of the b?")


def rows() -> dict[str, dict[str, str]]:
    """The table of all methods: its cells by pipeline and column."""
    lines = PAGE.partition("## All methods")[2].partition("\n### ")[0].splitlines()
    head, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {cells[0].strip("`").rpartition("/")[2]: dict(zip(head, cells, strict=True)) for cells in body}


def test_every_shipped_pipeline_has_a_row_and_a_paragraph_and_nothing_else_has():
    assert sorted(rows()) == sorted(PIPELINES)
    assert sorted(re.findall(r"^\*\*`(\w+)`\*\*: ", PAGE, re.MULTILINE)) == sorted(PIPELINES)


def counted() -> dict[str, int]:
    """Own lines by pipeline; what the page names the same source for is one method."""
    sources = {name: cells["source"].partition(",")[0] for name, cells in rows().items()}
    return {name: sum(own.values()) for name, own in own_lines(PIPELINES, sources).items()}


def test_own_lines_are_counted_and_few():
    assert {name: int(cells["own lines"]) for name, cells in rows().items()} == counted()
    assert {name for name, count in counted().items() if count > MOST_OWN_LINES} == set(LONGER)


@pytest.mark.parametrize("name", PIPELINES)
def test_where_it_acts_is_how_it_is_wired(name):
    graph = PIPELINES[name]
    selects = any("selection" in graph.node(project).inputs for project in graph.of_type("Project"))
    places = {
        "before the encoder": graph.of_type("Downsample"),
        "before the projector": selects and not graph.of_type("ProjectAll"),
        "after the projector": graph.of_type("Blind") or (selects and graph.of_type("ProjectAll")),
        "in the LM": graph.node("generate").inputs.get("pruners"),
    }
    assert rows()[name]["acts"] == (", ".join(place for place, acts in places.items() if acts) or "–")


@pytest.mark.parametrize("name", PIPELINES)
def test_where_it_runs_is_where_it_is_not_refused(name):
    cells, graph = rows()[name], PIPELINES[name]
    film = bool(graph.of_type("LoadVideo"))
    said = {family: refusal(name, family, "pictures") for family in ZOO if not film or family not in NO_VIDEO}
    scorers = [graph.node(scorer).inputs.get("without_cls") for scorer in graph.of_type("ClsAttention")]
    instead = "needed" if "received" not in scorers else "if there is one"
    assert cells["CLS"] == (instead if scorers else "no")
    assert cells["batch"] == "yes"  # of all that is not refused, see `test_every_pipeline`
    assert cells["anyres"] == ("no" if said.get("llava_next", said.get("llava_onevision")) else "yes")
    assert cells["M-RoPE"] == ("no" if said["qwen2_vl"] else "yes")


@pytest.fixture(scope="module")
def benches():
    row = ZOO["qwen2_vl"]
    return {
        "pictures": TinyBench(tiny.llava(grid=(8, 8), seed=50), {"it": tiny.image(0)}),
        "films": TinyBench(row.build("sdpa"), {"it": film(row, 3, frames=3)}),
    }


@pytest.mark.parametrize("name", PIPELINES)
def test_the_question_has_a_say_where_the_page_says_so(benches, name):
    """Questions of one length, so that nothing but their words differs."""
    bench = benches["films" if PIPELINES[name].of_type("LoadVideo") else "pictures"]
    answers = [bench.answer(bench.graph(PIPELINES[name], "it", question))[0] for question in QUESTIONS]
    kept = {tuple(map(tuple, answer.kept[0].tolist())) for answer in answers}
    assert len(set(map(len, QUESTIONS))) == 1
    assert (len(kept) > 1) == (rows()[name]["text"] == "yes")


def test_the_example_of_the_two_ways_to_count(tmp_path):
    layers = Graph.load("pipelines/fastv.yaml").run(to="generate", out=tmp_path)["generation"].visual_per_layer
    example = PAGE.partition("An example with the bundled model")[2]
    assert f"has {', '.join(map(str, layers))} visual" in " ".join(example.split())
    assert f"{sum(layers) // len(layers)} or {sum(layers) / len(layers) / layers[0]:.1%}".replace("%", " %") in example
    published = [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8
    assert f"averages {sum(published) // 32}" in " ".join(PAGE.split())


if __name__ == "__main__":
    text = PAGE
    for name, count in counted().items():
        text = re.sub(
            rf"^(\| `(?:video/)?{name}` \|.*\| )\d+( \| [^|]+\|)$", rf"\g<1>{count}\g<2>", text, flags=re.MULTILINE
        )
    Path("docs/methods.md").write_text(text, encoding="utf-8")
