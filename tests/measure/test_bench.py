"""The bench's arithmetic, driven by a clock that stands still: nothing here depends on how fast anything is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fopru_graph.errors import UserError
from fopru_graph.graph import Cancelled, CancelToken, Executor, Graph, NodeError, Ref
from fopru_graph.measure.arithmetic import Workload, first_token_flops
from fopru_graph.measure.bench import Bench
from fopru_graph.measure.pipelines import benched_pipelines, settings_of
from tests.measure import toys
from tests.measure.toys import pipeline

RATIOS = (1.0, 0.5, 0.25)


@pytest.fixture(autouse=True)
def _still():
    toys.runs.clear()
    toys.slow.clear()
    toys.captured.clear()
    toys.projects_all[:], toys.first_step[:], toys.capturing[:] = [False], [3.0], [0.0]
    toys.Family.forgotten = 0


def measure(graphs, ratios=RATIOS, **options):
    pipelines = [benched for graph in graphs for benched in benched_pipelines(graph, ratios)]
    return Bench(pipelines, clock=toys.clock, **{"new_tokens": 5, "rounds": 3} | options).run()


def by_label(result):
    return {variant.label: variant for variant in result.variants}


def test_times_are_those_of_the_clock():
    result = measure([pipeline("plain"), pipeline("pruned", 1)])
    assert [variant.label for variant in result.variants] == [
        "plain 100 %",
        "pruned 100 %",
        "pruned 50 %",
        "pruned 25 %",
    ]
    plain, quarter = by_label(result)["plain 100 %"], by_label(result)["pruned 25 %"]
    assert plain.ttft.median == pytest.approx(8 + 20)
    assert plain.ttft_with_preprocessing.median == pytest.approx(10 + 20)
    assert plain.tpot.median == pytest.approx(3)
    assert plain.end_to_end.median == pytest.approx(10 + 20 + 4 * 3 + 4)
    assert quarter.ttft.median == quarter.ttft.p90 == pytest.approx(8 + 1 + 0.5 + 5)
    stages = {name: timing.median for name, timing in quarter.stages.items()}
    assert stages == pytest.approx({"encode": 8, "score": 1, "select": 0.5, "prefill": 5, "decode": 12})
    assert (quarter.ttft.n, quarter.tpot.n) == (6, 3)  # first tokens are measured twice a round


def test_loading_is_done_once_and_shows_in_no_figure():
    before = toys.clock.now
    result = measure([pipeline("a"), pipeline("b", 1)])
    spent = (toys.clock.now - before) * 1e3
    assert spent < 2 * 10_000  # once for both
    assert all(variant.ttft_with_preprocessing.median < 100 for variant in result.variants)


def test_gains_are_ratios_of_medians_beside_the_ideal():
    result = measure([pipeline("plain"), pipeline("pruned", 1)])
    quarter = by_label(result)["pruned 25 %"]
    assert quarter.ttft_gain.measured == pytest.approx(28 / 14.5)
    assert quarter.ttft_gain.low == quarter.ttft_gain.high == pytest.approx(28 / 14.5)  # every round was the same
    plain = by_label(result)["plain 100 %"]
    assert quarter.ttft_gain.ideal == pytest.approx(plain.flops["total"] / quarter.flops["total"])
    assert quarter.ttft_gain.reached == pytest.approx(28 / 14.5 / quarter.ttft_gain.ideal)
    assert plain.ttft_gain.measured == plain.ttft_gain.ideal == 1
    assert quarter.tpot_gain.measured == pytest.approx(1)
    weights, token, layers = 10_000, toys.TOKEN_BYTES, 4
    reads = {kept: weights + token * layers * (toys.TEXT + kept + 3) for kept in (20, 5)}  # 5 tokens: steps 2, 3, 4
    assert (plain.step_bytes, quarter.step_bytes) == (reads[20], reads[5])
    assert quarter.tpot_gain.ideal == pytest.approx(reads[20] / reads[5])


def test_flops_are_those_of_a_count_by_hand():
    result = measure([pipeline("plain"), pipeline("pruned", 1)])
    half = by_label(result)["pruned 50 %"]
    seen, kept = 21, 10  # with the class token; visual tokens kept
    layer = 2 * seen * 512 + 2 * seen * seen * 8 * 2
    assert half.flops["encode"] == 2 * 20 * 96 + 3 * layer
    assert half.flops["score"] == 2 * seen * seen * 8
    assert half.flops["project"] == 2 * kept * 100
    n = toys.TEXT + kept
    pairs = n * (n + 1) // 2
    decoder = 2 * n * 900 + 2 * pairs * 10 * 2
    assert half.flops["prefill"] == 4 * decoder + 2 * 500
    assert half.flops["total"] == sum(half.flops[stage] for stage in ("encode", "score", "project", "prefill"))
    assert half.flops["decoder_macs_fastv"] == 4 * (4 * n * 100 + 2 * n * n * 10 + 2 * n * 10 * 20)
    assert half.flops["decoder_macs_swiglu"] == half.flops["decoder_macs_fastv"] + 4 * n * 10 * 20
    assert by_label(result)["plain 100 %"].flops["score"] == 0


@pytest.mark.parametrize(
    ("work", "score", "select"),
    [
        ("none", 0, 0),
        ("row", 2 * 21 * 8, 0),
        ("map", 2 * 21 * 21 * 8, 0),
        ("layer", 2 * 2 * 21 * 8 * 8, 0),
        ("similarity", 0, 2 * 10 * 21 * 21 / 20 * 8),
    ],
)
def test_a_node_is_charged_what_it_says_that_it_computes(monkeypatch, work, score, select):
    monkeypatch.setattr(toys.ScoreToy, "attention_work", work, raising=False)
    half = by_label(measure([pipeline("plain"), pipeline("pruned", 1)]))["pruned 50 %"]
    assert (half.flops["score"], half.flops["select"]) == (score, round(select))


def test_a_row_of_a_tower_without_cls_is_charged_as_the_map_that_is_formed_instead():
    work = Workload((21,), 20, 10, (15,), ("row",))
    flops = [first_token_flops(replace(toys.ANATOMY, prefix=prefix), work)["score"] for prefix in (1, 0)]
    assert flops == [2 * 21 * 8, 2 * 21 * 21 * 8]


def test_every_scoring_node_is_charged():
    (whole, _, _) = benched_pipelines(pipeline("pruned", 1), RATIOS)
    assert whole.scoring == ["none", "none", "map", "none", "none"]


def test_work_that_nobody_knows_is_refused(monkeypatch):
    monkeypatch.setattr(toys.ScoreToy, "attention_work", "much", raising=False)
    with pytest.raises(UserError, match="attention_work of ScoreToy is 'much'"):
        measure([pipeline("pruned", 1)])


def test_tokens_that_are_projected_before_any_is_dropped_are_charged():
    toys.projects_all[:] = [True]
    result = by_label(measure([pipeline("plain"), pipeline("pruned", 1)]))
    assert {variant.flops["project"] for variant in result.values()} == {2 * 20 * 100}


def test_windows_of_the_tower_are_charged_as_windows():
    sizes = replace(toys.ANATOMY, windowed_layers=2, window=6)
    work = Workload([21], 20, 20, [25] * 4)
    layers = 3 * 2 * 21 * 512 + 4 * 8 * (21 * 21 + 2 * 21 * 6)
    assert first_token_flops(sizes, work)["encode"] == 2 * 20 * 96 + layers
    small = replace(sizes, window=100)
    assert first_token_flops(small, work)["encode"] == first_token_flops(toys.ANATOMY, work)["encode"]


def test_work_that_is_done_once_is_no_part_of_the_time_per_output_token():
    toys.first_step[:] = [400.0]
    plain = by_label(measure([pipeline("plain")]))["plain 100 %"]
    assert plain.tpot.median == pytest.approx(3)
    assert plain.stages["decode"].median == pytest.approx(400 + 3 * 3)
    assert by_label(measure([pipeline("plain")], new_tokens=2))["plain 100 %"].tpot is None  # no step after the first


def test_what_is_captured_once_is_captured_before_the_rounds_and_told_apart():
    toys.capturing[:] = [500.0]
    result = measure([pipeline("plain"), pipeline("pruned", 1)], ratios=(0.5, 0.25))
    for variant in result.variants:  # whole answers cost no more than where nothing is captured
        assert variant.end_to_end.p90 < 60 and variant.stages["decode"].p90 == pytest.approx(12)
        assert (variant.loop, variant.captured, variant.one_time_ms) == ("static", True, pytest.approx(500))
        assert variant.tpot.p90 == pytest.approx(3)
    data = result.to_json()["variants"][0]
    assert (data["loop"], data["captured"], data["one_time_ms"]) == ("static", True, pytest.approx(500))


@pytest.mark.parametrize("answer", [1, 2, 3])
def test_what_is_done_once_is_told_wherever_before_the_rounds_it_is_done(monkeypatch, answer):
    """A model may put capturing off until a shape comes again."""
    made = []

    def figures(self):
        if self.new > 1:
            made.append(self)
        toys.capturing[:] = [500.0 if len(made) == answer else 0.0]
        toys.captured.clear()
        return whole(self)

    whole = toys.Answered._figures
    monkeypatch.setattr(toys.Answered, "_figures", figures)
    (plain,) = measure([pipeline("plain")]).variants  # with the reference measured again: answers 1 and 3 are its own
    assert plain.one_time_ms == pytest.approx(0 if answer == 2 else 500)


def test_the_reference_measured_again_has_the_history_of_any_other_row():
    """Where a first whole answer is slow, the second measurement of the reference must not be the faster for it."""
    toys.capturing[:] = [500.0]
    result = measure([pipeline("plain"), pipeline("pruned", 1)], ratios=(0.5,), rounds=1)
    assert (result.self_gain.low, result.self_gain.high) == (1, 1)
    before = toys.runs[:9]
    assert before.count("generate 1") == 2 * before.count("generate 0.5")


def test_what_was_measured_is_told_row_by_row_and_then_round_by_round():
    told = []
    result = measure([pipeline("plain"), pipeline("pruned", 1)], on_result=told.append)
    counts = [(len(partial.variants), partial.rounds, partial.interrupted) for partial in told]
    assert counts == [*((n, 1, True) for n in (1, 2, 3, 4, 4)), (4, 2, True), (4, 3, True)]
    assert replace(told[-1], interrupted=False).to_json() == result.to_json()


def test_two_stages_share_a_ratio_as_half_of_a_half():
    result = measure([pipeline("plain"), pipeline("both", 2)], ratios=(0.25,))
    assert by_label(result)["both 25 %"].visual_per_layer == (5,) * 4
    assert "generate 0.25" in toys.runs


def test_rounds_interleave_and_the_reference_runs_twice_in_each():
    measure([pipeline("plain"), pipeline("pruned", 1)], ratios=(0.5,), rounds=2)
    warm_up, rounds = toys.runs[:9], toys.runs[9:]
    assert warm_up == ["generate 1", "generate 0.5", "generate 1"] * 3
    for start in (0, 6):
        assert sorted(rounds[start : start + 6]) == sorted(["generate 1"] * 4 + ["generate 0.5"] * 2)
    assert rounds[:6] == ["generate 1"] * 2 + ["generate 0.5"] * 2 + ["generate 1"] * 2
    assert toys.Family.forgotten == 3  # before the memory of each variant, and of the reference again, is taken


def test_the_noise_is_the_reference_against_itself():
    result = measure([pipeline("plain"), pipeline("pruned", 1)])
    assert (result.reference, result.self_gain.measured, result.rounds) == ("plain 100 %", 1.0, 3)


def test_the_reference_is_the_first_that_drops_nothing():
    assert measure([pipeline("pruned", 1), pipeline("plain")]).reference == "pruned 100 %"
    assert measure([pipeline("pruned", 1), pipeline("plain")], ratios=(0.5,)).reference == "plain 100 %"
    assert measure([pipeline("pruned", 1), pipeline("other", 1)], ratios=(0.5,)).reference == "pruned 50 %"


def test_one_token_has_no_time_per_output_token():
    result = measure([pipeline("plain")], new_tokens=1)
    (plain,) = result.variants
    assert plain.tpot is None and plain.tpot_gain is None and plain.step_bytes is None
    assert plain.to_json()["tpot_ms"] is None
    assert plain.stages["decode"].median == 0


def test_a_variant_that_fails_is_left_out_and_named():
    result = measure([pipeline("plain"), pipeline("broken", 1, fails=True)], ratios=(0.5,))
    assert [variant.label for variant in result.variants] == ["plain 100 %"]
    assert len(result.skipped) == 1 and "broken 50 %" in result.skipped[0] and "mend it" in result.skipped[0]
    with pytest.raises(NodeError, match="this pruner is broken"):
        measure([pipeline("broken", 1, fails=True)], ratios=(0.5,))


def test_an_interrupt_keeps_the_rounds_that_were_measured():
    token = CancelToken()

    def stop(done, _total, _text):
        if done == 9 + 6 + 4:  # three runs of three rows come first, a round is 6 runs
            token.cancel()

    graphs = [pipeline("plain"), pipeline("pruned", 1)]
    result = measure(graphs, ratios=(0.5,), cancel=token, on_progress=stop)
    assert result.interrupted and len(result.variants) == 2
    token = CancelToken()

    def stop_early(done, _total, _text):
        if done == 9 + 3:  # the reference is measured, the other is not
            token.cancel()

    result = measure(graphs, ratios=(0.5,), cancel=token, on_progress=stop_early)
    assert result.interrupted and [variant.label for variant in result.variants] == ["plain 100 %"]
    assert result.skipped == ("pruned 50 %: not measured before the interrupt",)
    token.clear()
    token.cancel()
    with pytest.raises(Cancelled):
        measure(graphs, ratios=(0.5,), cancel=token)


def test_progress_counts_to_its_end():
    told = []
    measure(
        [pipeline("plain"), pipeline("pruned", 1)], on_progress=lambda done, total, text: told.append((done, total))
    )
    runs = 3 * 5 + 3 * 2 * 5
    assert told[-1] == (runs - 1, runs)
    assert [done for done, _ in told][1:] == sorted(done for done, _ in told[1:])


def test_the_rate_of_the_devices_memory_is_recorded(monkeypatch):
    monkeypatch.setattr("fopru_graph.measure.bench.copy_rate", lambda device: 3.21e12 if device == "cpu" else None)
    assert measure([pipeline("plain")]).machine["copied_gb_per_s"] == 3210


def test_the_machine_is_described_once_when_it_is_warm_and_not_between_the_rounds(monkeypatch):
    runs_before = []
    facts = lambda *_: runs_before.append(len(toys.runs)) or {"device": "cpu"}  # noqa: E731
    monkeypatch.setattr("fopru_graph.measure.bench.machine_facts", facts)
    measure([pipeline("plain"), pipeline("pruned", 1)], ratios=(0.5,))
    assert runs_before == [9]


def test_a_result_is_json():
    result = measure([pipeline("plain"), pipeline("pruned", 1)])
    data = json.loads(json.dumps(result.to_json()))
    keys = {"pipeline", "ratio", "ttft_ms", "tpot_ms", "stages_ms", "ttft_gain", "ttft_gain_ideal", "ttft_gain_ci"}
    keys |= {"kv_bytes", "peak_memory_bytes", "tokens_per_layer"}
    assert all(keys <= set(variant) for variant in data["variants"])
    assert {"median", "p90"} <= set(data["variants"][0]["ttft_ms"])
    assert data["variants"][3]["tokens_per_layer"] == [toys.TEXT + 5] * 4
    assert data["variants"][3]["kv_bytes"] == (toys.TEXT + 5 + 4) * 4 * toys.TOKEN_BYTES
    assert data["variants"][0]["peak_memory_bytes"] > 10**6
    assert {"device", "device_name", "dtype", "threads", "torch"} <= set(data["machine"])


# Pipelines


def test_a_pipeline_without_pruning_is_benched_once_whatever_the_ratios():
    (benched,) = benched_pipelines(pipeline("plain"), RATIOS)
    assert (benched.label, benched.ratio, benched.prunes) == ("plain 100 %", 1.0, False)


@pytest.mark.parametrize("ratios", [(), (0.0,), (1.5,), (0.5, -1)])
def test_what_is_no_share_is_refused(ratios):
    with pytest.raises(UserError, match="ratio"):
        benched_pipelines(pipeline("pruned", 1), ratios)


def test_nodes_that_share_a_budget_are_one_stage():
    graph = Graph.load("pipelines/fopru_rank.yaml")
    graph.add("Budget", "budget", features=Ref("encode"))
    graph.set("prune.budget", Ref("budget", "whole"))
    settings = settings_of(graph, Executor(graph.registry).plan(graph), RATIOS)
    assert [(each.ratio, dict(each.inputs)) for each in settings] == [(each, {"budget.ratio": each}) for each in RATIOS]
    graph.set("prune.tokens", 3)  # the budget wins
    assert len(settings_of(graph, Executor(graph.registry).plan(graph), RATIOS)) == len(RATIOS)
    graph.set("budget.tokens", 3)
    with pytest.raises(UserError, match="budget.tokens is fixed"):
        settings_of(graph, Executor(graph.registry).plan(graph), RATIOS)


def test_a_fixed_number_of_tokens_is_refused():
    with pytest.raises(UserError, match="prune.tokens is fixed"):
        benched_pipelines(pipeline("pruned", 1, tokens=3), RATIOS)


def test_a_pipeline_must_generate_once():
    graph = pipeline("plain")
    graph.outputs.clear()
    graph.output("features", graph.EncodeToy(model=graph.LoadToy()))
    with pytest.raises(UserError, match="exactly one generating node"):
        benched_pipelines(graph, RATIOS)
