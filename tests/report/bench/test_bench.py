"""A bench's tables, files and picture say what was measured, and the paper's figures are the paper's."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fopru_graph.errors import UserError
from fopru_graph.report.bench.files import bench_csv, bench_tex, read_bench, save_bench, write_bench
from fopru_graph.report.bench.paper import PAPER_MODELS, paper_json, show_paper
from fopru_graph.report.bench.paper_files import write_paper
from fopru_graph.report.bench.plot import bench_picture, draw_bench
from fopru_graph.report.bench.table import gain_text, show_bench
from fopru_graph.results.bench import STAGES, STOCK, Bench, BenchResult, Gain, Timing, Variant

MIB, GIB = 2**20, 2**30
NOISE = Gain(1.0, 0.991, 1.012, 1.0)


def timing(median: float) -> Timing:
    return Timing(median, 1.1 * median, 20)


def variant(
    pipeline: str, ratio: float | None, ttft: float, visual: tuple[int, int], tpot: float | None = 25.0
) -> Variant:
    """A variant whose baseline takes 200 ms to the first token and 25 ms a token; 10 ms are no stage's."""
    gain = 200 / ttft
    stages = {"encode": 50.0, "score": 1.25, "select": 0.5, "project": 3.0, "prefill": ttft - 64.75, "decode": 250.0}
    return Variant(
        pipeline=pipeline,
        ratio=ratio,
        ttft=timing(ttft),
        ttft_with_preprocessing=timing(ttft + 7),
        tpot=timing(tpot) if tpot else None,
        end_to_end=timing(ttft + 250),
        stages={name: timing(ms) for name, ms in stages.items() if pipeline != STOCK},
        ttft_gain=Gain(gain, gain - 0.03, gain + 0.04, 1.25 * gain),
        tpot_gain=Gain(25 / tpot, 25 / tpot - 0.01, 25 / tpot + 0.01, 1.5) if tpot else None,
        tokens_per_layer=tuple(40 + count for count in visual),
        visual_per_layer=visual,
        new_tokens=11 if tpot else 1,
        kv_bytes=300 * MIB,
        peak_memory_bytes=14 * GIB,
        memory={"allocated": 14 * GIB, "reserved": 15 * GIB},
        flops={"encode": 3_000_000, "prefill": 7_000_000},
    )


@pytest.fixture
def result() -> BenchResult:
    return BenchResult(
        model="random:llava-next-8b",
        reference="baseline",
        variants=(
            variant(STOCK, None, 202.0, (576, 576)),
            variant("baseline", None, 200.0, (576, 576)),
            variant("fopru_rank", 0.5, 125.0, (288, 288), 24.0),
            variant("fopru_rank", 0.25, 100.0, (144, 144), 20.0),
            variant("fopru_fastv", 0.5, 250.0, (432, 288)),
            variant("fopru_fastv", 0.25, 110.0, (288, 144), None),
        ),
        self_gain=NOISE,
        rounds=20,
        convention="2 a multiply–accumulate [convention]",
        machine={"device_name": "Test GPU", "dtype": "float16", "threads": 2, "packages": {"torch": "2"}},
    )


def printed(show, width: int, *arguments: object) -> str:
    stream = io.StringIO()
    show(*arguments, Console(file=stream, width=width, highlight=False))
    return stream.getvalue()


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of one table's rows, from below the header (the line of the pipeline's name) to the next empty line."""
    lines = text[text.index(title) :].split("\n\n")[0].splitlines()
    first = next(i for i, line in enumerate(lines) if re.match("pipeline|method", line)) + 1
    return [re.split(r"\s{2,}", line.strip()) for line in lines[first:]]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_cells_of_the_tables(result: BenchResult, width: int) -> None:
    text = printed(show_bench, width, result)
    assert rows(text, "time to first token")[:4] == [
        ["stock", "–", "202.0", "222.2", "0.99×", "0.96–1.03", "1.24×", "80 %"],
        ["baseline", "–", "200.0", "220.0", "1.00×", "reference"],
        ["fopru_rank", "50 %", "125.0", "137.5", "1.60×", "1.57–1.64", "2.00×", "80 %"],
        ["fopru_rank", "25 %", "100.0", "110.0", "2.00×", "1.97–2.04", "2.50×", "80 %"],
    ]
    assert rows(text, "visual tokens, time per")[1:] == [
        ["baseline", "–", "576", "25.00", "1.00×", "450.0", "300.0 MiB", "14.00 GiB"],
        ["fopru_rank", "50 %", "288", "24.00", "1.04×", "375.0", "300.0 MiB", "14.00 GiB"],
        ["fopru_rank", "25 %", "144", "20.00", "1.25×", "350.0", "300.0 MiB", "14.00 GiB"],
        ["fopru_fastv", "50 %", "432→288", "25.00", "1.00×", "500.0", "300.0 MiB", "14.00 GiB"],
        ["fopru_fastv", "25 %", "288→144", "–", "–", "360.0", "300.0 MiB", "14.00 GiB"],
    ]
    stages = rows(text, "stages")
    assert stages[0] == ["stock", "–", *["–"] * 6]
    assert stages[2] == ["fopru_rank", "50 %", "50.00", "1.25", "0.50", "3.00", "60.25", "250.00"]
    assert "(1/11 new tokens)" in text


def test_lines_below_the_tables(result: BenchResult) -> None:
    text = printed(show_bench, 80, result)
    for line in (
        "random:llava-next-8b on Test GPU, float16",
        "noise: baseline measures 0.991–1.012 against itself; a difference inside it is no change",
        "gain: median of baseline ÷ median, with a 95 % bootstrap interval; 20 rounds; ",
        "FLOPs: 2 a multiply–accumulate [convention]",
        "machine: device name Test GPU, dtype float16, threads 2\n",
    ):
        assert line in text
    assert "interrupted" not in text and "not measured" not in text
    text = printed(show_bench, 80, replace(result, interrupted=True, skipped=("fastv [x]: no layer", "b: c")))
    assert "\ninterrupted: the figures are those of the rounds that were finished\n" in text
    assert "\nnot measured: fastv [x]: no layer\nnot measured: b: c\n" in text
    assert "noise:" not in printed(show_bench, 80, replace(result, self_gain=None))


def test_tables_go_to_stdout_whole(result: BenchResult, capsys: pytest.CaptureFixture[str]) -> None:
    show_bench(replace(result, variants=(replace(result.variants[2], pipeline="a_long_name_" * 6),)))
    show_paper([], {})
    captured = capsys.readouterr()
    assert "a_long_name_" * 6 in captured.out and "LLaVA-1.6-13B" in captured.out
    assert not captured.err


@pytest.mark.parametrize(
    ("low", "high", "colour"),
    [(1.02, 1.1, "green"), (1.011, 1.1, ""), (0.98, 1.5, ""), (0.9, 0.992, ""), (0.9, 0.99, "red")],
)
def test_colour_of_a_gain_needs_an_interval_outside_the_noise(low: float, high: float, colour: str) -> None:
    assert gain_text(Gain(1.0, low, high, 2.0), NOISE).style == colour


def test_without_noise_one_is_the_border() -> None:
    assert gain_text(Gain(1.0, 1.001, 1.1, 2.0)).style == "green"
    assert gain_text(Gain(1.0, 0.9, 0.999, 2.0)).style == "red"
    assert gain_text(None).plain == "–"


def test_json_and_csv(result: BenchResult, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    paths = write_bench(result, folder)
    assert [path.name for path in paths] == ["bench.json", "bench.csv", "bench.tex", "bench.png", "bench.svg"]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert json.loads(paths[0].read_text("utf-8")) == result.to_json()
    with paths[1].open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [(row["pipeline"], row["ratio"], row["is_reference"]) for row in read][1:4] == [
        ("baseline", "", "1"),
        ("fopru_rank", "0.5", "0"),
        ("fopru_rank", "0.25", "0"),
    ]
    expected = {
        "model": "random:llava-next-8b",
        "ttft_median_ms": 125.0,
        "ttft_n": 20,
        "ttft_with_preprocessing_median_ms": 132.0,
        "ttft_gain": 1.6,
        "ttft_gain_ci_low": 1.57,
        "ttft_gain_ci_high": 1.6 + 0.04,
        "ttft_gain_ideal": 2.0,
        "tpot_gain_ci_low": 25 / 24 - 0.01,
        "prefill_median_ms": 60.25,
        "decode_n": 20,
        "prefill_flops": 7_000_000,
        "score_flops": "",
        "visual_tokens_last_layer": 288,
        "kv_bytes": 300 * MIB,
        "peak_reserved_bytes": 15 * GIB,
    }
    assert {key: read[2][key] for key in expected} == {key: str(value) for key, value in expected.items()}
    assert float(read[2]["ttft_p90_ms"]) == pytest.approx(137.5)
    assert read[5]["tpot_median_ms"] == read[5]["tpot_n"] == read[5]["tpot_gain"] == read[0]["encode_n"] == ""


def test_latex(result: BenchResult) -> None:
    odd = replace(result.variants[2], pipeline=r"[a&b]%$#{}~^\c")
    tex = bench_tex(replace(result, variants=(*result.variants[1:], odd), skipped=("one\ntwo",), interrupted=True))
    comments = [line for line in tex.splitlines() if line.startswith("%")]
    table = tex.splitlines()[len(comments) :]
    assert any(r"\input{bench.tex}" in line for line in comments)
    assert "% Not measured: one two" in comments and any("Interrupted" in line for line in comments)
    columns = len(re.fullmatch(r"\\begin{tabular}{(l?r*)}", table[0])[1])
    body = [line for line in table if line.endswith(r"\\")]
    assert len(body) == 7 and all(line.replace(r"\&", "").count(" & ") == columns - 1 for line in body)
    assert (table[1], table[3], table[-2], table[-1]) == (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}")
    assert body[1].startswith(r"baseline & -- & 200.0 & 1.00$\times$ & -- & -- & -- & 576 & ")
    assert body[2] == (
        r"fopru\_rank & 50\,\% & 125.0 & 1.60$\times$ & 1.57--1.64 & 2.00$\times$ & 80\,\% & 288 & 24.00 & "
        r"1.04$\times$ & 375.0 & 300.0 MiB & 14.00 GiB \\"
    )
    assert r"432$\to$288" in body[4]
    assert body[-1].startswith(r"{[}a\&b]\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}c & ")


def test_pictures(result: BenchResult, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in write_bench(result, tmp_path)}
    assert {path.name: path.read_bytes() for path in write_bench(result, tmp_path)} == first
    with Image.open(tmp_path / "bench.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    height, width = pixels.shape[:2]
    assert 1500 < width < 2500 and 600 < height < 1500
    edges = (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:])
    assert all((edge == 255).all() for edge in edges), "something is cut off"
    root = ET.fromstring(first["bench.svg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in first["bench.svg"]


def test_what_the_picture_shows(result: BenchResult) -> None:
    figure = draw_bench(result)
    bars, gains = figure.axes
    assert figure.get_suptitle() == "random:llava-next-8b on Test GPU, float16"
    assert [label.get_text() for label in bars.get_yticklabels()][1:4] == [
        "baseline",
        "fopru_rank 50 %",
        "fopru_rank 25 %",
    ]
    ends = [max(bar.get_x() + bar.get_width() for bar in row) for row in zip(*bars.containers, strict=True)]
    assert ends == pytest.approx([v.ttft.median for v in result.variants])
    assert [text.get_text() for text in bars.texts][:2] == ["202.0 ms", "200.0 ms"]
    assert [text.get_text() for text in bars.get_legend().get_texts()] == [*STAGES[:-1], "rest"]
    named = {text.get_text() for text in gains.get_legend().get_texts()}
    assert named == {"stock", "baseline", "fopru_rank", "fopru_fastv", "ideal", "baseline against itself"}
    drawn = {tuple(line.get_ydata()) for line in gains.get_lines()}
    assert {(2.0, 1.6), (2.5, 2.0)} <= drawn, "measured and ideal gains, smallest ratio first"
    assert [label.get_text() for label in gains.get_xticklabels()] == ["100 %", "50 %", "25 %"]
    wide = replace(result.variants[2], ttft_gain=Gain(1.6, 0.1, 9.0, 2.0))
    low, high = draw_bench(replace(result, variants=(*result.variants, wide))).axes[1].get_ylim()
    assert low < 0.1 and high > 9, "the interval is shown to its ends"


@pytest.mark.parametrize("count", [0, 1, 2, 4, 6])
def test_any_part_of_a_bench_can_be_drawn(result: BenchResult, count: int) -> None:
    few = tuple(replace(v, pipeline=f"$x_{v.pipeline}") for v in result.variants[:count])
    assert bench_picture(replace(result, variants=few, self_gain=None, model="$m_$"), "png").startswith(b"\x89PNG")


def labels_that_meet(axes: object) -> list[str]:
    """The tick labels of the x axis whose boxes overlap the next one's."""
    labels = sorted(axes.get_xticklabels(), key=lambda label: label.get_window_extent().x0)
    pairs = zip(labels, labels[1:], strict=False)
    return [a.get_text() for a, b in pairs if a.get_window_extent().x1 >= b.get_window_extent().x0]


def test_many_ratios_keep_their_labels_apart(result: BenchResult) -> None:
    shares = [1 / 576, 16 / 576, 36 / 576, 64 / 576, 100 / 576, 0.25, 0.5, 0.75, 1.0]
    many = tuple(replace(result.variants[2], ratio=share) for share in shares)
    figure = draw_bench(replace(result, variants=many))
    figure.canvas.draw()
    assert labels_that_meet(figure.axes[1]) == []
    shown = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert len(shown) == len(shares) and {"0.174 %", "25 %", "75 %", "100 %"} <= set(shown)
    legend = figure.axes[1].get_legend().get_window_extent()
    assert legend.y1 < figure.axes[1].xaxis.label.get_window_extent().y0, "the legend is below the labels"


def test_markers_stand_at_their_values(result: BenchResult) -> None:
    figure = draw_bench(result)
    figure.canvas.draw()
    axes = figure.axes[1]
    marked = {line.get_label(): line for line in axes.get_lines() if line.get_marker() in "os^Dv<>*P"}
    for line in (marked["fopru_rank"], marked["fopru_fastv"]):
        assert line.get_transform() == axes.transData
    assert list(zip(*marked["fopru_rank"].get_data(), strict=True)) == [(0.25, 2.0), (0.5, 1.6)]


@pytest.mark.parametrize(
    ("noise", "warned"),
    [(NOISE, None), (Gain(1.0, 0.93, 1.02, 1.0), "7 %"), (Gain(1.08, 1.0, 1.12, 1.0), "12 %"), (None, None)],
)
def test_a_reference_that_differs_from_itself_is_told(result: BenchResult, noise: Gain, warned: str | None) -> None:
    result = replace(result, self_gain=noise)
    sentence = f"baseline differs from itself by up to {warned}, so gains of that size are noise"
    told = [
        printed(show_bench, 200, result),
        *result.to_json()["warnings"],
        *(line for line in bench_tex(result).splitlines() if "Warning" in line),
        draw_bench(result).get_supxlabel(),
    ]
    assert [sentence in text for text in told] == ([True] * 4 if warned else [False, False])


def test_loops_and_what_was_done_once_are_told(result: BenchResult) -> None:
    assert "loop:" not in printed(show_bench, 80, result), "a bench of an earlier version tells none"
    told = {STOCK: {"loop": "stock"}, "fopru_fastv": {"loop": "thin"}}
    captured = {"loop": "static", "captured": True, "one_time_ms": 412.5}
    variants = tuple(replace(v, **told.get(v.pipeline, captured)) for v in result.variants)
    text = printed(show_bench, 200, replace(result, variants=variants))
    assert (
        "loop: stock (stock); static, captured (baseline, fopru_rank); thin (fopru_fastv); "
        "work done once took up to 412.5 ms and is in no TPOT" in text
    )
    row = next(csv.DictReader(io.StringIO(bench_csv(replace(result, variants=variants[1:])))))
    assert (row["loop"], row["captured"], row["one_time_ms"]) == ("static", "1", "412.5")


def test_a_bench_is_read_back_as_it_was_written(result: BenchResult, tmp_path: Path) -> None:
    again = replace(result.variants[2], loop="static", captured=True, one_time_ms=3.5, key="k")
    whole = replace(result, variants=(*result.variants, again), skipped=("x: y",), interrupted=True)
    save_bench(whole, tmp_path)
    assert read_bench(tmp_path) == whole
    save_bench(replace(whole, self_gain=None), tmp_path)
    assert read_bench(tmp_path) == replace(whole, self_gain=None)
    assert read_bench(tmp_path / "nowhere") is None


def test_what_an_earlier_version_wrote_is_no_bench_to_go_on_with_but_the_report_reads_it(tmp_path: Path) -> None:
    old = (Path(__file__).parents[3] / "docs" / "bench-llava-cpu.json").read_text()
    assert '"captured"' not in old
    (tmp_path / "bench.json").write_text(old)
    assert read_bench(tmp_path) is None
    assert len(Bench.model_validate_json(old).variants) == 14


def test_the_papers_tables_as_markdown(result: BenchResult, tmp_path: Path) -> None:
    written = write_paper([result], {"LLaVA-1.6-13B": "13B [does] not fit"}, tmp_path)
    assert [path.name for path in written] == ["paper.md", "paper.json"]
    text = written[0].read_text()
    assert "| FoPru | 50 % | 57 | 1.66× | 125.0 | 1.60× | 1.57–1.64 | 2.00× | 24.80 | 1.03× | 24.00 |" in text
    assert r"| FoPru | 75 % | 88 | 1.18×\* | – |" in text
    assert "ours: not measured: 13B [does] not fit" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 7
    assert all({line.count("|") for line in table.splitlines()} == {15} for table in tables)
    data = json.loads(written[1].read_text())
    assert data == {"tables": paper_json([result]), "unmeasured": {"LLaVA-1.6-13B": "13B [does] not fit"}}


def test_folders_that_cannot_be_written(result: BenchResult, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "bench.json").mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "taken"):
        with pytest.raises(UserError, match="cannot be written to") as caught:
            write_bench(result, folder)
        assert caught.value.hint == "choose another folder with --out"
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["bench.json"]


def test_imports_load_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, fopru_graph.report.bench.paper, fopru_graph.report.bench.files;"
        "sys.exit(bool({'torch', 'matplotlib', 'fopru_graph.measure'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_every_printed_gain_but_the_marked_one_follows_from_the_printed_times() -> None:
    """A slip in copying would show, since a gain is the first row's time by the row's, up to their rounding."""
    checked, odd = 0, []
    for row in paper_json([]):
        paper = row["paper"]
        if row["method"] == "no pruning":
            base = paper
            continue
        for key, half in (("ttft", 0.5), ("tpot", 0.005)):
            whole, time, gain = base[f"{key}_ms"], paper[f"{key}_ms"], paper[f"{key}_gain"]
            low, high = (whole - half) / (time + half) - 0.005, (whole + half) / (time - half) + 0.005
            if not low <= gain <= high:
                odd.append((row["table"], row["model"], row["method"], row["ratio"], key, paper["note"] is not None))
            checked += 1
    assert checked == 2 * (9 + 9 + 9)
    assert odd == [(1, "LLaVA-NeXT-8B", "FoPru", 0.75, "ttft", True)]


@pytest.mark.parametrize(
    ("table", "model", "method", "ratio", "figures"),
    [
        (1, "LLaVA-NeXT-8B", "FoPru", 0.75, (88, 1.18, 25.40, 1.01, 17.33)),
        (1, "LLaVA-1.6-13B", "FoPru", 0.25, (79, 2.52, 30.94, 1.24, 26.54)),
        (2, "LLaVA-1.5-7B", "PruMerge", None, (47, 1.59, 21.95, 1.26, 13.35)),
        (2, "LLaVA-1.5-7B", "FoPru+FastV", 0.25, (49, 1.50, 27.12, 1.02, 13.51)),
        (5, "LLaVA-1.6-7B", "no pruning", 1.0, (88, None, 23.70, None, 16.15)),
        (5, "LLaVA-1.6-7B", "FoPru (row)", 0.5, (53, 1.67, 23.10, 1.03, 14.75)),
    ],
)
def test_figures_of_the_paper(table: int, model: str, method: str, ratio: float | None, figures: tuple) -> None:
    found = [
        r for r in paper_json([]) if (r["table"], r["model"], r["method"], r["ratio"]) == (table, model, method, ratio)
    ]
    assert [tuple(row["paper"].values())[:5] for row in found] == [figures]
    assert found[0]["ours"] is None


@pytest.mark.parametrize("width", [80, 120])
def test_ours_stands_beside_the_paper(result: BenchResult, width: int) -> None:
    text = printed(show_paper, width, [result], {"LLaVA-1.6-13B": "13B [does] not fit"})
    ttft = ["FoPru", "50 %", "57", "1.66×", "125.0", "1.60×", "1.57–1.64", "2.00×"]
    tpot = ["24.80", "1.03×", "24.00", "1.04×", "16.98", "14.00"]
    first = rows(text, "LLaVA-NeXT-8B")
    assert first[2] == (ttft + tpot if width == 120 else ttft)
    assert first[1][:6] == ["FoPru", "75 %", "88", "1.18×*", "–", "–"]
    assert first[0][:8] == ["no pruning", "100 %", "94", "–", "200.0", "–", "–", "–"]
    if width == 80:
        assert ["FoPru", "50 %", *tpot] in first
    for line in (
        "* FoPru 75 %: printed so; by its own milliseconds it is 94 ÷ 88 = 1.07",
        "ours: random:llava-next-8b on Test GPU, float16; gains relative to baseline; it measures 0.991–1.012 against",
        "ours: not measured: 13B [does] not fit",
        "ours: not measured: no bench of this model was given",
        "The paper names no hardware",
    ):
        assert line in text
    assert text.count("ours: not measured: 13B") == 2, "in Table 1 and in Table 5"
    assert max(map(len, text.split("The paper names")[0].splitlines())) <= 130


def test_models_that_the_paper_has_not_come_in_all_three_tables(result: BenchResult) -> None:
    other = replace(result, model="demo")
    ours = [row for row in paper_json([other, result]) if row["model"] == "demo"]
    assert [(row["table"], row["pipeline"], row["ratio"]) for row in ours] == [
        *((1, "baseline", 1.0), (1, "fopru_rank", 0.5), (1, "fopru_rank", 0.25)),
        *((2, "baseline", 1.0), (2, "fopru_rank", 0.5), (2, "fopru_rank", 0.25)),
        *((2, "fopru_fastv", 0.5), (2, "fopru_fastv", 0.25), (5, "baseline", 1.0)),
    ]
    assert all(row["paper"] is None and row["ours"]["model"] == "demo" for row in ours)
    assert ours[1]["ours"]["ttft_gain_ci"] == [1.57, pytest.approx(1.64)]
    assert ours[7]["ours"]["tpot_ms"] is None and ours[7]["ours"]["tpot_gain"] is None
    text = printed(show_paper, 120, [other], {})
    assert rows(text, "\ndemo")[1][:8] == ["FoPru", "50 %", "–", "–", "125.0", "1.60×", "1.57–1.64", "2.00×"]
    json.dumps(ours)


def test_every_bench_of_a_model_has_a_block_of_its_own(result: BenchResult) -> None:
    random, real = PAPER_MODELS["LLaVA-1.5-7B"]
    benches = [replace(result, model=random), replace(result, model=real, interrupted=True)]
    ours = [row["ours"] for row in paper_json(benches) if row["table"] == 2 and row["method"] == "FoPru+FastV"]
    assert [figures["model"] for figures in ours] == [random, real]
    assert [figures["ttft_ms"] for figures in ours] == [110.0, 110.0]
    text = printed(show_paper, 200, benches, {})
    assert [line.endswith("interrupted") for line in text.splitlines() if line.startswith("ours: r")] == [False]
    assert [line.endswith("interrupted") for line in text.splitlines() if line.startswith("ours: llava-hf")] == [True]
    assert {row["model"] for row in paper_json(benches)} == set(PAPER_MODELS)
