"""Pipelines as a model of an unforked lmms-eval, on a local task, without network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

pytest.importorskip("lmms_eval")

from lmms_eval.api.instance import Instance  # noqa: E402
from lmms_eval.caching.response_cache import ResponseCache  # noqa: E402

from fopru_graph.demo.scenes import render, sample_scene, scene_rng  # noqa: E402
from fopru_graph.errors import UserError  # noqa: E402
from fopru_graph.graph import Graph, NodeError, PipelineError  # noqa: E402
from fopru_graph.pipeline_model import PipelineModel  # noqa: E402
from fopru_graph.plugins.lmms_eval import FopruGraph  # noqa: E402

RANK = str(Path("pipelines/fopru_rank.yaml").absolute())
TASK = """
task: local_scenes
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visuals
doc_to_text: question
doc_to_target: answer
process_results: !function utils.scored
generation_kwargs: {{max_new_tokens: 8, temperature: 0, do_sample: false}}
metric_list:
  - {{metric: hit, aggregation: mean, higher_is_better: true}}
"""
UTILS = """
import PIL.Image

def visuals(doc):
    return [PIL.Image.open(doc["picture"]) if doc["picture"].endswith(".png") else doc["picture"]]

def scored(doc, results):
    return {"hit": float(results[0].strip() == doc["answer"])}
"""
QUESTIONS = ("what does the text say ?", "how many circles are there ?")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A folder with a task of six questions about three pictures and one about a film, and its rows."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = []
    for number in range(3):
        path = folder / f"{number}.png"
        render(sample_scene(scene_rng("test", number))).save(path)
        rows += [{"picture": str(path), "question": question, "answer": "zero"} for question in QUESTIONS]
    rows.append(rows[0] | {"picture": "film.mp4"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "local_scenes.yaml").write_text(TASK.format(data=folder / "rows.jsonl"))
    (folder / "utils.py").write_text(UTILS)
    return folder, rows


def run(folder, out, model_args, *more, launcher=()):
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(out / "home"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    options = ["--tasks", "local_scenes", "--include_path", str(folder), "--batch_size", "1", "--log_samples"]
    command = [sys.executable, "-m", *launcher, "lmms_eval", "--model", "fopru_graph", "--model_args", model_args]
    ended = subprocess.run(
        [*command, *options, "--output_path", str(out), *more],
        env=environment,
        cwd=out,  # so that the installed plug-in is found, and not what a checkout says of itself
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def rows_of(out):
    (found,) = out.rglob("*_samples_local_scenes.jsonl")
    return [json.loads(line) for line in found.read_text().splitlines()]


def results_of(out):
    (found,) = out.rglob("*_results.json")
    return json.loads(found.read_text())


def own_answers(rows, ratio):
    graph = Graph.load(RANK)
    graph.set("prune.ratio", ratio)
    model = PipelineModel(graph)
    pictures = [PIL.Image.open(row["picture"]).convert("RGB") for row in rows]
    return [
        model.answer(row["question"], [(row["picture"], picture)], 8)
        for row, picture in zip(rows, pictures, strict=True)
    ]


def test_lmms_eval_finds_the_plug_in_and_evaluates_a_pipeline(local, tmp_path):
    folder, rows = local
    code, said = run(folder, tmp_path, f"pipeline={RANK},ratio=0.1", "--limit", "4")
    assert code == 0 and "Error during evaluation" not in said, said[-3000:]
    made, expected = rows_of(tmp_path), own_answers(rows[:4], 0.1)
    assert [one["filtered_resps"] for one in made] == [one.text for one in expected]
    assert [one["token_counts"][0]["output_tokens"] for one in made] == [one.report["new_tokens"] for one in expected]
    results = results_of(tmp_path)
    hits = [one.text.strip() == row["answer"] for one, row in zip(expected, rows[:4], strict=True)]
    assert 0 < sum(hits) < 4
    assert results["results"]["local_scenes"]["hit,none"] == pytest.approx(sum(hits) / 4)
    assert results["throughput"]["avg_visual_tokens_encoded"] == 256
    assert results["throughput"]["avg_visual_tokens_final"] == 25
    assert results["throughput"]["avg_ttft_ms"] > 0


@pytest.mark.slow
def test_several_processes_share_the_samples(local, tmp_path):
    folder, rows = local
    launcher = ("accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1")
    launcher += ("--mixed_precision", "no", "--dynamo_backend", "no", "-m")
    code, said = run(folder, tmp_path, f"pipeline={RANK},ratio=0.1", "--limit", "5", launcher=launcher)
    assert code == 0 and "Error during evaluation" not in said, said[-3000:]
    answers = {one["doc_id"]: one["filtered_resps"] for one in rows_of(tmp_path)}
    assert answers == {i: one.text for i, one in enumerate(own_answers(rows[:5], 0.1))}


def test_a_failing_sample_ends_the_run_instead_of_becoming_an_answer(local, tmp_path):
    _, said = run(local[0], tmp_path, f"pipeline={RANK}")
    assert "Error during evaluation" in said and "local_scenes, sample 6" in said and "video" in said
    assert not list(tmp_path.rglob("*_results.json"))


def model(args):
    return FopruGraph.create_from_arg_string(args, {"batch_size": 1, "device": None})


def requests(made, docs, options=None, context="what does the text say ?"):
    """Requests as lmms-eval makes them, for documents that are lists of visuals."""
    made.task_dict = {"t": {"test": docs}}
    facts = {"task": "t", "repeats": 1}
    return [
        Instance(
            "generate_until",
            (context, {"max_new_tokens": 6} | (options or {}), lambda doc: doc, number, "t", "test"),
            0,
            facts | {"doc_id": number},
        )
        for number in range(len(docs))
    ]


@pytest.fixture(scope="module")
def picture():
    return render(sample_scene(scene_rng("test", 5)))


@pytest.fixture(scope="module")
def ready():
    return model(f"pipeline={RANK},ratio=0.25,model=demo,dtype=float32,device=cpu")


def test_model_args_reach_the_pipeline(picture):
    made = model("pipeline=pipelines/fopru_fastv.yaml,ratio=0.25,fastv.layer=2,generate.loop=thin,fastv.tokens=null")
    (result,) = made.generate_until(requests(made, [[picture]]))
    graph = Graph.load("pipelines/fopru_fastv.yaml")
    for target, value in {"prune.ratio": 0.5, "fastv.ratio": 0.5, "fastv.layer": 2, "generate.loop": "thin"}.items():
        graph.set(target, value)
    expected = PipelineModel(graph).answer("what does the text say ?", [("p", picture)], 6)
    assert result.text == expected.text
    assert result.token_counts.output_tokens == expected.report["new_tokens"]
    counted = made._pipeline.answer("what does the text say ?", [("p", picture)], 6).report
    assert counted["visual_per_layer"] == expected.report["visual_per_layer"] == [128] * 2 + [64] * 4


@pytest.mark.parametrize(
    ("args", "error", "said"),
    [
        ("pipeline=pipelines/baseline.yaml,ratio=0.5", UserError, "no ratio"),
        (f"pipeline={RANK},ratio=25", UserError, "not in"),
        (f"pipeline={RANK},prune.ration=0.5", PipelineError, "ratio"),
        (f"pipeline={RANK},pretrained=x", PipelineError, "pretrained"),
        ("pipeline=nowhere.yaml", Exception, "nowhere.yaml"),
        (f"pipeline={RANK},nodes=nowhere", PipelineError, "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused(args, error, said):
    with pytest.raises(error, match=said):
        model(args)


def test_batches_are_refused():
    with pytest.raises(UserError, match="one by one"):
        FopruGraph.create_from_arg_string(f"pipeline={RANK}", {"batch_size": "4"})


def test_own_nodes_can_be_used(tmp_path, picture):
    (tmp_path / "feature_norm.py").write_text(
        "from fopru_graph import values\n"
        "from fopru_graph.graph import Node, node\n\n\n"
        "@node(category='score')\n"
        "class FeatureNorm(Node):\n"
        '    """Length of the features."""\n\n'
        "    def run(self, features: values.VisionFeatures) -> values.Significance:\n"
        "        scores = tuple(tile.features.float().norm(dim=-1) for tile in features.tiles)\n"
        "        return values.Significance.of(features, scores, 'feature_norm')\n"
    )
    file = tmp_path / "own.yaml"
    file.write_text(Path(RANK).read_text().replace("type: Significance", "type: FeatureNorm"))
    made = model(f"pipeline={file},nodes={tmp_path},ratio=0.5")
    (result,) = made.generate_until(requests(made, [[picture]]))
    assert result.token_counts.output_tokens >= 1


def test_answers_end_where_the_task_says(ready, picture):
    (whole,) = ready.generate_until(requests(ready, [[picture]], context="what shape is the first object ?"))
    assert len(whole.text) > 2
    for until, expected in (
        ([whole.text[2]], whole.text.partition(whole.text[2])[0]),
        (whole.text[1:3], whole.text.partition(whole.text[1:3])[0]),
        (["\n\n", ""], whole.text),
        ([], whole.text),
    ):
        asked = requests(ready, [[picture]], {"until": until}, "what shape is the first object ?")
        assert ready.generate_until(asked)[0].text == expected


@pytest.mark.parametrize("options", [{"do_sample": True}, {"temperature": 0.7}, {"num_beams": 3}])
def test_sampling_is_refused(ready, picture, options):
    with pytest.raises(UserError, match="greedily"):
        ready.generate_until(requests(ready, [[picture]], options))


def test_a_temperature_without_sampling_is_greedy(ready, picture):
    plain, warm = (
        ready.generate_until(requests(ready, [[picture]], options))[0].text
        for options in ({}, {"do_sample": False, "temperature": 0.7, "num_beams": None})
    )
    assert plain == warm


@pytest.mark.parametrize(("visual", "said"), [("film.mp4", "video"), ({"array": [0.0]}, "dict")])
def test_other_things_than_pictures_are_refused(ready, visual, said):
    with pytest.raises(UserError, match=f"t, sample 1: .*{said}"):
        ready.generate_until(requests(ready, [[PIL.Image.new("L", (64, 64))], [visual]]))


def test_samples_without_a_picture_are_errors(ready):
    with pytest.raises(NodeError, match="no image"):
        ready.generate_until(requests(ready, [[]]))


def test_answers_come_in_the_order_of_the_requests(ready, picture):
    other = render(sample_scene(scene_rng("test", 6)))
    docs = [[picture], [other], [picture], [other, picture]]
    together = [one.text for one in ready.generate_until(requests(ready, docs))]
    alone = [ready.generate_until(requests(ready, [doc]))[0].text for doc in docs]
    assert together == alone
    assert ready.generate_until([]) == []


def test_likelihoods_and_conversations_are_refused(ready):
    with pytest.raises(UserError, match="likelihoods"):
        ready.loglikelihood([])
    with pytest.raises(UserError, match="conversation"):
        ready.generate_until_multi_round([])


def test_the_response_cache_tells_settings_apart(ready, picture, tmp_path):
    """Every setting is in model_args, which the fingerprint of lmms-eval's cache is made of."""
    hits = []
    args = f"pipeline={RANK},ratio="
    for ratio in ("0.25", "0.25", "0.5"):
        cache = ResponseCache.create(str(tmp_path), model="fopru_graph", model_args=args + ratio)
        asked = requests(ready, [[picture]], {"temperature": 0, "do_sample": False})
        assert len(cache.execute(ready, "generate_until", asked)) == 1
        hits.append(cache._hits)
        cache.finalize(success=True, dist_backend="accelerate", accelerator=None)
    assert hits == [0, 1, 0]
