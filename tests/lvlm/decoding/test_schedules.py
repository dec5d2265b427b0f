"""Chains of cuts on tiny models: PyramidDrop, V2Drop and PriorTR in every loop, and what equals what."""

from __future__ import annotations

from functools import cache

import pytest

from fopru_graph.errors import UserError
from fopru_graph.graph import Executor, Graph, MemoryCache, PipelineError, Ref
from fopru_graph.lvlm.decoding.generate import generate
from fopru_graph.lvlm.decoding.segments import fits_segments
from fopru_graph.measure.pipelines import benched_pipelines, settings_of
from fopru_graph.nodes.fastv_prune import FastVPrune
from fopru_graph.nodes.priortr_prune import PriorTRPrune
from fopru_graph.nodes.schedule import Schedule
from fopru_graph.nodes.v2drop_prune import V2DropPrune
from tests import tiny
from tests.lvlm.loading.test_folders import save
from tests.lvlm.zoo import ZOO, everything

PROMPTS = ["<image> or <image>?", "a longer question about this one: <image>"]
METHODS = {"pyramiddrop": FastVPrune, "v2drop": V2DropPrune, "priortr": PriorTRPrune}


@cache
def built(name):
    return ZOO[name].build("sdpa")


def chain(method, layers, ratio):
    return Schedule()(pruner=METHODS[method]()(), layers=layers, ratio=ratio)


def pictures(*numbers):
    return [tiny.image(number, 64 + 28 * number, 64) for number in numbers]


def answer(family, cuts, shown=(0, 1, 2), prompts=PROMPTS, **options):
    return generate(family, everything(family, pictures(*shown)), prompts, cuts, max_new_tokens=4, **options)


def kept(generation):
    """Each image's kept tokens by their index in the tile."""
    return [origin[:, 1].tolist() for origin in generation.kept]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "paligemma", "qwen3_vl", "gemma3"])
def test_a_padded_batch_with_two_images_is_pruned_as_its_samples_in_every_loop(name, method):
    family, cuts = built(name), chain(method, [0.25, 0.5, 0.75], 0.125)
    first, second = answer(family, cuts, (0, 1), PROMPTS[:1]), answer(family, cuts, (2,), PROMPTS[1:])
    for loop in ("thin", "segments", "static") if fits_segments(family) else ("thin",):
        batch = answer(family, cuts, loop=loop)
        assert batch.token_ids == first.token_ids + second.token_ids
        pairs = zip(first.visual_per_layer, second.visual_per_layer, strict=True)
        assert batch.visual_per_layer == tuple(map(sum, pairs))
        assert kept(batch) == kept(first) + kept(second)
    assert len(set(batch.visual_per_layer)) > 2 and batch.visual_per_layer[-1] > 0


def test_a_schedule_of_one_cut_is_its_pruner():
    """PyramidDrop of one stage is FastV at that layer; the two differ by what PyramidDrop's documentation says."""
    family = built("llava")
    for method, pruner in METHODS.items():
        once = answer(family, [pruner()(layer=2, ratio=0.3)])
        scheduled = answer(family, chain(method, [2], 0.3))
        assert scheduled.token_ids == once.token_ids and scheduled.visual_per_layer == once.visual_per_layer
        assert kept(scheduled) == kept(once)


def test_two_cuts_of_a_half_leave_a_quarter():
    family = built("llava")
    halves = answer(family, chain("pyramiddrop", [1, 3], 0.25))
    pruners = answer(family, [FastVPrune()(layer=1, ratio=0.5), FastVPrune()(layer=3, ratio=0.5)])
    assert halves.visual_per_layer == pruners.visual_per_layer and halves.token_ids == pruners.token_ids
    assert halves.visual_per_layer[-1] == halves.visual_per_layer[0] // 4
    assert halves.visual_per_layer[-1] == answer(family, [FastVPrune()(layer=3, ratio=0.25)]).visual_per_layer[-1]


def test_ratios_are_shares_of_what_reaches_each_cut_and_one_token_is_kept():
    family = built("llava")
    cuts = Schedule()(pruner=FastVPrune()(tokens=7), layers=[1, 2, 0.8], ratios=[0.5, 1.0, 0.001])
    seen = answer(family, cuts, [0], ["what?"]).visual_per_layer
    whole = seen[0]
    assert seen == (whole, whole // 2, whole // 2, whole // 2, 1)


def test_everything_kept_is_the_unpruned_answer():
    family = built("llava")
    for method in METHODS:
        assert answer(family, chain(method, [0.25, 0.5], 1.0)).token_ids == answer(family, []).token_ids


def test_a_ratio_for_each_layer_or_none():
    with pytest.raises(UserError, match="2 ratios for 3 layers"):
        Schedule()(pruner=FastVPrune()(), layers=[1, 2, 3], ratios=[0.5, 0.5])


# Pipelines


def graph_of(pruners, folder=None, schedule="{pruner: $fastv, layers: [0.25, 0.75], ratio: 0.25}"):
    return Graph.loads(f"""
format: 1
nodes:
  model:    {{type: LoadModel, inputs: {{name: {folder or "demo"}}}}}
  image:    {{type: LoadImage, inputs: {{path: demo:street-sign}}}}
  encode:   {{type: VisionEncode, inputs: {{model: $model, image: $image}}}}
  project:  {{type: Project, inputs: {{model: $model, features: $encode}}}}
  fastv:    {{type: FastVPrune, inputs: {{layer: 0.5, ratio: 0.5}}}}
  schedule: {{type: Schedule, inputs: {schedule}}}
  generate:
    type: LLMGenerate
    inputs: {{model: $model, tokens: $project, prompt: "x", pruners: {pruners}, max_new_tokens: 1}}
outputs: {{text: $generate.text}}
""")


@pytest.mark.parametrize("layers", [4, 8])
def test_one_file_serves_models_of_any_depth(layers, tmp_path):
    save(tiny.llava(layers=layers), tmp_path / "model")
    result = graph_of("$schedule", tmp_path / "model").run(to="generate", out=tmp_path)
    quarter = layers // 4
    assert result["generation"].visual_per_layer == (16,) * quarter + (8,) * 2 * quarter + (4,) * quarter


def test_chains_mix_with_pruners(tmp_path):
    save(tiny.llava(layers=4), tmp_path / "model")
    cache = MemoryCache()
    seen = [
        graph_of(pruners, tmp_path / "model").run(to="generate", out=tmp_path, cache=cache)["generation"]
        for pruners in ("$schedule", "[$fastv, $schedule]", "[$schedule, $schedule]", "[$fastv]", "[]")
    ]
    expected = [(16, 8, 8, 4), (16, 8, 4, 2), (16, 4, 4, 1), (16, 16, 8, 8), (16,) * 4]
    assert [generation.visual_per_layer for generation in seen] == expected


@pytest.mark.parametrize(
    ("changes", "inputs"),
    [
        ({}, {"schedule.ratio": 0.25}),
        ({"fastv.tokens": 7}, {"schedule.ratio": 0.25}),
        ({"generate.pruners": [Ref("fastv"), Ref("schedule")]}, {"fastv.ratio": 0.5, "schedule.ratio": 0.5}),
        ({"generate.pruners": [Ref("fastv")]}, {"fastv.ratio": 0.25}),
        ({"schedule.pruner": Ref("choice")}, {"schedule.ratio": 0.25}),
    ],
)
def test_a_ratio_is_that_of_the_chain_and_its_rule_is_no_stage(changes, inputs):
    graph = graph_of("$schedule")
    graph.add("V2DropPrune", "other")
    graph.add("Switch", "choice", when=True, then=Ref("fastv"), otherwise=Ref("other"))
    for target, value in changes.items():
        graph.set(target, value)
    (setting,) = settings_of(graph, Executor(graph.registry).plan(graph), [0.25])
    assert setting.inputs == inputs and setting.prunes


def test_a_chain_shares_a_ratio_with_what_is_pruned_before():
    graph = Graph.load("pipelines/fopru_rank.yaml")
    graph.add("FastVPrune", "fastv")
    graph.add("Schedule", "schedule", pruner=Ref("fastv"), layers=[0.5, 0.75])
    graph.set("generate.pruners", Ref("schedule"))
    (benched,) = benched_pipelines(graph, [0.25])
    assert benched.graph.node("prune").inputs["ratio"] == benched.graph.node("schedule").inputs["ratio"] == 0.5


def test_ratios_that_are_fixed_cannot_be_set():
    graph = graph_of("$schedule", schedule="{pruner: $fastv, layers: [1, 2], ratios: [0.5, 0.5]}")
    with pytest.raises(UserError, match="schedule.ratios is fixed") as refused:
        settings_of(graph, Executor(graph.registry).plan(graph), [0.25])
    assert "schedule.ratios=null" in refused.value.hint


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("{pruner: $fastv, layers: []}", "at least 1 item"),
        ("{pruner: $fastv, layers: [0.5, 0]}", "greater than or equal to 1"),
        ("{pruner: $fastv, layers: [1.5]}", "less than 1"),
        ("{pruner: $fastv, layers: [1], ratios: [0.0]}", "greater than 0"),
        ("{layers: [1]}", "needs the input 'pruner'"),
        ("{pruner: [$fastv], layers: [1]}", "expects InLLMPruner"),
    ],
)
def test_what_is_no_schedule_is_refused_before_it_runs(schedule, says):
    with pytest.raises(PipelineError, match=says):
        graph_of("$schedule", schedule=schedule).run()
