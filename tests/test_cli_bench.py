"""``fopru-graph bench``: the figures it promises, and one clear sentence for whatever goes wrong."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from fopru_graph.commands.bench import bench as command
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import BenchOptions
from fopru_graph.report.bench.paper import PAPER_MODELS
from tests.test_cli import PIPELINES, invoke

BASELINE, RANK, BOTH = (str(PIPELINES / f"{name}.yaml") for name in ("baseline", "fopru_rank", "fopru_fastv"))
SHORT = ("--repeat", "1", "--new-tokens", "3")


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def bench(tmp_path, *arguments):
    return invoke("bench", *arguments, "--out", str(tmp_path / "out"))


def test_json_has_the_promised_keys_and_true_counts(tmp_path):
    result = bench(tmp_path, BASELINE, RANK, BOTH, *SHORT, "--ratio", "1,0.25", "--stock", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    rows = {(row["pipeline"], row["ratio"]): row for row in data["variants"]}
    assert list(rows) == [
        ("baseline", 1.0),
        *((name, ratio) for name in ("fopru_rank", "fopru_fastv") for ratio in (1.0, 0.25)),
        ("stock", 1.0),
    ]
    for row in rows.values():
        for key in ("ttft_ms", "tpot_ms", "ttft_with_preprocessing_ms", "end_to_end_ms"):
            assert 0 < row[key]["median"] <= row[key]["p90"]
        assert row["ttft_gain_ci"][0] <= row["ttft_gain"] <= row["ttft_gain_ci"][1]
        assert row["ttft_with_preprocessing_ms"]["median"] > row["ttft_ms"]["median"]
        assert row["new_tokens"] == 3 and row["peak_memory_bytes"] == row["memory_bytes"]["rss"] > 10**7
    both = rows["fopru_fastv", 0.25]
    assert both["visual_per_layer"] == [128] * 3 + [64] * 3  # a half, and a half of it from layer 3 on
    assert rows["stock", 1.0]["tokens_per_layer"] == rows["baseline", 1.0]["tokens_per_layer"]
    assert rows["stock", 1.0]["kv_bytes"] == rows["baseline", 1.0]["kv_bytes"]
    assert rows["baseline", 1.0]["ttft_gain_ideal"] == 1 > rows["stock", 1.0]["ttft_gain_ideal"]
    assert set(rows["fopru_rank", 0.25]["stages_ms"]) == {"encode", "score", "select", "project", "prefill", "decode"}
    assert set(rows["stock", 1.0]["stages_ms"]) == {"decode"}  # all the rest is one piece there
    assert data["machine"]["threads"] == 1 and data["machine"]["device"] == "cpu"
    assert data["reference"] == "baseline 100 %"
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"bench.json", "bench.csv", "bench.tex", "bench.png", "bench.svg"}
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == data
    assert len(list(csv.reader((tmp_path / "out" / "bench.csv").open()))) == 1 + len(rows)


def test_the_table_is_on_stdout_and_the_rest_on_stderr(tmp_path):
    result = bench(tmp_path, BASELINE, RANK, *SHORT, "--ratio", "0.5", "--device", "cpu", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.stderr
    for word in ("baseline", "fopru_rank", "ideal", "noise", "bfloat16", "stages"):
        assert word in result.stdout
    assert "bench.png" in result.stderr and "bench.png" not in result.stdout


def test_a_value_is_set_where_it_has_a_place(tmp_path):
    options = (*SHORT, "--ratio", "0.5", "--json", "--set", "image=demo:taxi-rank", "--set", "prune.tokens=null")
    assert bench(tmp_path, BASELINE, RANK, *options).exit_code == 0
    wrong = bench(tmp_path, BASELINE, RANK, *SHORT, "--set", "prune.tokns=3")
    assert wrong.exit_code == 2 and "did you mean 'tokens'" in wrong.stderr
    fixed = bench(tmp_path, BASELINE, RANK, *SHORT, "--set", "prune.tokens=3")
    assert fixed.exit_code == 2 and "prune.tokens is fixed" in fixed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere.yaml"], 2, "nowhere.yaml"),
        ([BASELINE, "--ratio", "1.5"], 2, "not in (0, 1]"),
        ([BASELINE, "--ratio", "0"], 2, "not in (0, 1]"),
        ([BASELINE, "--ratio", "half"], 2, "no list of numbers"),
        ([BASELINE, "--ratio", ","], 2, "no ratio"),
        ([], 2, "--paper"),
        ([BASELINE, "--paper"], 2, "--paper"),
        ([BASELINE, BASELINE], 2, "two pipelines are named 'baseline'"),
        ([BASELINE, "--device", "cuda:99"], 1, "not here"),
        ([BASELINE, "--device", "toaster"], 1, "unknown"),
        ([BASELINE, "--dtype", "float8"], 2, "float8"),
        ([BASELINE, "--attn", "none"], 2, "none"),
        ([BASELINE, "--set", "model=random:llava-9b"], 1, "random:llava-cpu"),
        ([BASELINE, "--set", "model=nowhere"], 1, "neither a folder nor a hub name"),
        ([BASELINE, "--set", "image=nowhere.png"], 1, "nowhere.png"),
        ([RANK, "--set", "modle=demo"], 2, "did you mean 'model'"),
    ],
)
def test_a_mistake_is_one_clear_sentence(arguments, code, says, tmp_path):
    result = bench(tmp_path, *arguments, *SHORT)
    assert result.exit_code == code
    assert says in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr and result.stdout == ""


def test_a_model_that_does_not_fit_is_refused_with_the_figure(tmp_path, monkeypatch):
    monkeypatch.setattr("fopru_graph.lvlm.loading.device.free_memory", lambda _device: 2**30)
    result = bench(tmp_path, BASELINE, "--set", "model=random:llava-1.6-13b", "--dtype", "float32", *SHORT)
    assert result.exit_code == 1
    assert "need 49.7 GiB, cpu has 1.0 GiB free" in result.stderr


def test_an_output_folder_that_cannot_be_made_is_found_before_measuring(tmp_path):
    (tmp_path / "out").write_text("a file")
    result = bench(tmp_path, BASELINE, *SHORT)
    assert result.exit_code == 2 and "cannot be written to" in result.stderr


def test_a_variant_that_fails_is_exit_3_and_the_others_are_shown(tmp_path):
    late = tmp_path / "late.yaml"
    late.write_text(
        Path(PIPELINES / "fastv.yaml").read_text().replace("name: fastv", "name: late").replace("layer: 3", "layer: 9")
    )
    result = bench(tmp_path, BASELINE, str(late), *SHORT, "--ratio", "0.5", "--json")
    assert result.exit_code == 3
    data = json.loads(result.stdout)
    assert [row["pipeline"] for row in data["variants"]] == ["baseline"]
    assert "layers 0 … 5" in data["skipped"][0]


def test_paper_shows_its_figures_beside_ours_and_says_what_was_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("fopru_graph.lvlm.loading.device.free_memory", lambda _device: 2**30)
    result = bench(tmp_path, "--paper", *SHORT)
    assert result.exit_code == 3
    for word in ("1.97", "2.52", "2.61", "does not fit", "LLaVA-1.6-13B"):
        assert word in result.stdout
    data = json.loads(bench(tmp_path, "--paper", *SHORT, "--json").stdout)
    assert len(data["unmeasured"]) == 4


class Killed(BaseException):
    """Stands for an end that no program can do anything about."""


def kill(*_arguments):
    raise Killed


@pytest.fixture
def few(monkeypatch):
    """The paper's bench on two pipelines."""
    ratios = {"baseline": (1.0,), "fopru_rank": (0.75, 0.25)}
    monkeypatch.setattr("fopru_graph.commands.bench.PAPER_RATIOS", ratios)


PAPER = ("--paper", "--resume", "--set", "model=demo", *SHORT)


def test_paper_is_written_for_documentation_and_its_rows_come_by_their_worth(few, tmp_path):
    result = bench(tmp_path, "--paper", "--set", "model=demo", *SHORT, "--json")
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    assert json.loads((out / "paper.json").read_text()) == json.loads(result.stdout)
    assert "| FoPru | 25 % | – | – |" in (out / "paper.md").read_text()
    rows = json.loads((out / "demo" / "bench.json").read_text())["variants"]
    assert [(row["pipeline"], row["ratio"]) for row in rows] == [
        ("baseline", 1.0),
        ("fopru_rank", 0.25),
        ("fopru_rank", 0.75),
    ]


def test_paper_takes_over_what_is_finished_and_measures_the_rest(few, tmp_path, monkeypatch):
    first = bench(tmp_path, *PAPER, "--json")
    file = tmp_path / "out" / "demo" / "bench.json"
    before = file.read_text()
    monkeypatch.setattr("fopru_graph.commands.bench._measure", kill)
    again = bench(tmp_path, *PAPER, "--json")
    assert again.exit_code == 0 and "taken over" in again.stderr
    assert (again.stdout, file.read_text()) == (first.stdout, before)
    changed = {
        "other rounds": (*PAPER, "--repeat", "2"),
        "other lengths": (*PAPER, "--new-tokens", "4"),
        "another picture": (*PAPER, "--set", "image=demo:taxi-rank"),
        "another number type": (*PAPER, "--dtype", "bfloat16"),
        "not asked for": tuple(word for word in PAPER if word != "--resume"),
    }
    for why, arguments in changed.items():
        with pytest.raises(Killed):
            pytest.fail(f"{why}: {bench(tmp_path, *arguments).stderr}")
    interrupted = json.loads(before) | {"interrupted": True}
    for content in (json.dumps(interrupted), before[:100], "{}", "[]", json.dumps({"variants": [{}]})):
        file.write_text(content)
        with pytest.raises(Killed):
            pytest.fail(f"{content[:30]}: {bench(tmp_path, *PAPER).stderr}")


def test_a_device_that_fails_between_two_nodes_ends_its_model_only(few, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise RuntimeError("CUDA error: an illegal memory access\nCompile with …")

    monkeypatch.setattr("fopru_graph.commands.bench._measure", fail)
    result = bench(tmp_path, "--paper", *SHORT, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["unmeasured"] == dict.fromkeys(
        PAPER_MODELS, "CUDA error: an illegal memory access"
    )
    assert "CUDA error: an illegal memory access" in (tmp_path / "out" / "paper.md").read_text()


def test_resume_goes_with_paper(tmp_path):
    result = bench(tmp_path, BASELINE, "--resume")
    assert result.exit_code == 2 and "--resume goes with --paper" in result.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_row_is_captured_and_the_record_names_what_it_ran_on(tmp_path):
    result = bench(tmp_path, BASELINE, RANK, BOTH, "--repeat", "2", "--new-tokens", "8", "--device", "cuda", "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert {(row["loop"], row["captured"]) for row in data["variants"]} == {("static", True)}
    assert all(row["peak_memory_bytes"] == row["memory_bytes"]["allocated"] > 0 for row in data["variants"])
    assert data["machine"]["cuda"] and data["machine"]["driver"]


@contextlib.contextmanager
def ctrl_c_after(runs):
    """A stand-in for the progress bar that presses Ctrl-C when so many runs are done."""
    yield lambda done, _total, _text: os.kill(os.getpid(), signal.SIGINT) if done == runs else None


@pytest.mark.parametrize("form", ["json", "table"])
def test_an_interrupt_keeps_what_was_measured(tmp_path, monkeypatch, form):
    monkeypatch.setattr("fopru_graph.commands.bench._progress", lambda: ctrl_c_after(3 * 3 + 6 + 2))
    options = ["--json"] if form == "json" else []
    result = bench(tmp_path, BASELINE, RANK, "--ratio", "0.5", "--repeat", "9", "--new-tokens", "2", *options)
    assert result.exit_code == 130
    assert "interrupted; what was measured until then" in result.stderr
    data = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert data["interrupted"] and [row["pipeline"] for row in data["variants"]] == ["baseline", "fopru_rank"]
    assert "interrupted" in result.stdout
    if form == "json":
        assert json.loads(result.stdout) == data


@contextlib.contextmanager
def killed_after(runs):
    """A stand-in for the progress bar that kills the program when so many runs are done."""

    def look(done, _total, _text):
        if done == runs:
            raise Killed

    yield look


def test_a_bench_that_is_killed_has_saved_what_it_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("fopru_graph.commands.bench._progress", lambda: killed_after(3 * 3 + 2))
    with pytest.raises(Killed):
        bench_by_hand(tmp_path, BASELINE, RANK)
    data = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert data["interrupted"] and [row["pipeline"] for row in data["variants"]] == ["baseline"]


def bench_by_hand(tmp_path, *files):
    """As `bench`, but what ends the program reaches the test."""
    options = BenchOptions(list(map(Path, files)), ratio="0.5", new_tokens=3, repeat=1, out=tmp_path / "out")
    return command(options, ModelOptions())


def test_an_interrupt_before_any_figure_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("fopru_graph.commands.bench._progress", lambda: ctrl_c_after(1))
    result = bench(tmp_path, BASELINE, RANK, *SHORT)
    assert result.exit_code == 130
    assert "before anything was measured" in result.stderr and result.stdout == ""
