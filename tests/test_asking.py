"""`ask`, its answers and what notebooks show, on the demo model."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

import fopru_graph
from fopru_graph import Graph, PipelineError, UserError, ask
from fopru_graph.graph import GraphNode, Ref
from fopru_graph.lvlm.inputs.images import load_image

ROOT = Path(__file__).resolve().parent.parent
TAXI = load_image("demo:taxi-rank").picture
TEXT, COLOUR = "what does the text say ?", "what colour is the star ?"


@pytest.fixture(scope="module", autouse=True)
def memory_is_given_back():
    yield
    ask.clear()


def kept(**options) -> tuple[int, int]:
    tokens = ask(TAXI, TEXT, **options).figures["visual_tokens"]
    return tokens["kept"], tokens["final"]


def test_a_ratio_is_what_is_left_in_the_last_layer():
    assert kept() == (64, 64) and kept(ratio=0.5) == (128, 128)
    assert kept(pipeline="fopru_fastv", ratio=0.25) == (128, 64)
    assert kept(pipeline=ROOT / "pipelines" / "fastv.yaml", ratio=0.5) == (256, 128)
    graph = Graph.load(ROOT / "pipelines" / "fopru_rank.yaml")
    before = graph.dumps()
    assert kept(pipeline=graph, ratio=0.125) == (32, 32) and graph.dumps() == before
    with pytest.raises(UserError, match="baseline has no ratio to set"):
        kept(pipeline="baseline", ratio=0.5)
    with pytest.raises(UserError, match="not in"):
        kept(ratio=2)


def test_inputs_and_nodes_are_set_by_name():
    assert kept(**{"prune.tokens": 10}) == (10, 10)
    answer = ask("demo:taxi-rank", TEXT, max_new_tokens=1)
    assert answer.figures["new_tokens"] == 1 and str(answer) == answer.text
    with pytest.raises(PipelineError, match="no such input"):
        ask(TAXI, TEXT, colour="blue")


def test_the_model_stays_until_another_one_is_asked():
    ask.clear()
    first = ask._model("fopru_rank", None, None, {})
    assert ask._model("fopru_rank", "demo", 0.25, {}) is first, "the same pipeline, said in another way"
    assert ask._model("baseline", None, None, {}).handle is first.handle
    other = ask._model("baseline", None, None, {"model.dtype": "bfloat16"})
    assert other.handle is not first.handle and list(ask._models.values()) == [other]
    for tokens in range(1, 9):
        ask._model("fopru_rank", None, None, {"model.dtype": "bfloat16", "prune.tokens": tokens})
    assert len(ask._models) == 4
    model = weakref.ref(other.handle)
    del first, other
    ask.clear()
    gc.collect()
    assert model() is None, "its memory is free"


def test_threads_get_the_answers_to_their_own_questions():
    questions = {
        ("demo:taxi-rank", TEXT): "taxi",
        ("demo:taxi-rank", COLOUR): "white",
        ("demo:bank-corner", TEXT): "bank",
    }
    said: dict[tuple[str, str], str] = {}

    def answer(image: str, prompt: str, pipeline: str) -> None:
        said[image, prompt] = ask(image, prompt, pipeline=pipeline).text

    threads = [
        threading.Thread(target=answer, args=(*asked, pipeline))
        for asked, pipeline in zip(questions, ("fopru_rank", "fopru_fastv", "fastv"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == questions


def test_the_picture_is_that_of_the_question_whatever_was_asked_since(tmp_path):
    path = tmp_path / "a.png"
    TAXI.save(path)
    first = ask(path, TEXT, pipeline="fopru_fastv")
    ask("demo:bank-corner", COLOUR, pipeline="fopru_fastv")
    again = ask(TAXI, TEXT, pipeline="fopru_fastv")
    assert np.asarray(first.picture).tobytes() == np.asarray(again.picture).tobytes()
    assert first.picture is first.picture
    changed = ask(path, COLOUR, pipeline="fopru_fastv")
    load_image("demo:bank-corner").picture.save(path)
    with pytest.raises(UserError, match="has changed since"):
        _ = changed.picture


def test_it_streams_and_whoever_leaves_stops_it():
    assert "".join(ask.stream(TAXI, TEXT)) == "taxi"
    with pytest.raises(UserError, match="cannot be made of int"):
        list(ask.stream(3, TEXT))
    long = {"generate.min_new_tokens": 300, "generate.max_new_tokens": 300}
    with ask.stream(TAXI, TEXT, **long) as stream:
        assert next(stream)
    assert ask(TAXI, TEXT).text == "taxi"
    with pytest.raises(fopru_graph.Cancelled):
        _ = stream.answer


# What is not asked for


def test_nothing_is_printed_and_nothing_written(tmp_path):
    code = (
        "from fopru_graph import Graph, ask\n"
        f"graph = Graph.load({str(ROOT / 'pipelines' / 'fopru_fastv.yaml')!r})\n"
        "result = graph.run()\n"
        "assert result['picture'].size[0] > 100, result['picture']\n"
        "assert 'picture' in graph.run().cached\n"
        "answer = ask('demo:taxi-rank', 'what does the text say ?')\n"
        "assert answer.picture and answer._repr_html_() and result._repr_html_() and graph._repr_svg_()\n"
        "graph.add('StockGenerate', 'stock', model=graph.node('encode').inputs['model'],\n"
        "          image=graph.node('encode').inputs['image'], prompt='what does the text say ?')\n"
        "graph.run(to='stock')\n"
        "assert ''.join(ask.stream('demo:taxi-rank', 'what does the text say ?'))\n"
    )
    mine = ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "PYTHONWARNINGS")
    environment = {key: value for key, value in os.environ.items() if key not in mine} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


# Notebooks


def test_an_answer_shows_text_picture_and_figures():
    html = ask(TAXI, TEXT)._repr_html_()
    assert "<b>taxi</b>" in html and html.count("<img src=") == 1 and "<td>64</td>" in html and "MiB" in html


def test_a_result_shows_its_outputs_and_nothing_of_them_is_markup(tmp_path):
    graph = Graph.load(ROOT / "pipelines" / "fopru_rank.yaml")
    graph.input("said", "str", "<script>alert(1)</script>")
    graph.output("said", Ref("inputs", "said"))
    html = graph.run()._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert re.search(r"text: <b>stop</b>", html) and html.count("<img src=") == 1 and "prune</td>" in html
    written = graph.run(out=tmp_path)._repr_html_()
    assert html.count("<img src=") == written.count("<img src=") == 1 and "kept.png" in written
    seen = graph.run(to="encode")
    assert "VisionFeatures" in seen._repr_html_() and repr(seen).startswith("<RunResult output=VisionFeatures(")


def test_a_graph_shows_its_drawing_even_with_mistakes_in_it():
    graph = Graph.load(ROOT / "pipelines" / "fopru_rank.yaml")
    graph.set("image", TAXI)
    graph.put(GraphNode("odd", "No<such>Type"))
    svg = graph._repr_svg_()
    assert svg.startswith("<svg") and "prune" in svg and "No&lt;such&gt;Type" in svg and "given:" in svg


# Names


def test_completion_knows_node_types_and_outputs():
    graph = Graph("mine")
    answer = graph.add("LLMGenerate")
    assert {"RankPrune", "run"} <= set(dir(graph)) and {"text", "generation"} <= set(dir(answer))


def test_dir_and_all_are_complete():
    assert set(fopru_graph.__all__) <= set(dir(fopru_graph))
    for name in fopru_graph.__all__:
        assert getattr(fopru_graph, name) is not None
    text = (ROOT / "fopru_graph" / "__init__.py").read_text()
    told = text.partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    assert set(re.findall(r"\w+", re.sub(r"from \S+ import", "", told))) == set(fopru_graph.__all__)
    with pytest.raises(AttributeError, match="no attribute 'aks'"):
        _ = fopru_graph.aks
