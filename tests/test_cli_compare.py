"""`fopru-graph compare`: side by side on the terminal, as JSON and as a page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from fopru_graph.terminal import compare as terminal
from tests.test_cli import invoke

TEXT = "what does the text say ?"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """One comparison: what JSON says of it, and its page."""
    page = tmp_path_factory.mktemp("compare") / "page.html"
    broken = page.with_name("broken.png")
    broken.write_bytes(b"no picture")
    result = invoke(
        *("compare", "demo:street-sign", str(broken), "--prompt", f"{TEXT} <b>&", "--pipelines", "fopru_fastv,blind"),
        *("--ratio", "0.25", "--json", "--html", str(page)),
    )
    assert result.exit_code == 3, result.output
    return json.loads(result.stdout), page.read_text(encoding="utf-8")


def test_json_has_every_answer_the_unpruned_first_and_says_what_was_not_asked(compared):
    data, _ = compared
    assert (data["model"], data["device"], data["dtype"]) == ("demo", "cpu", "float32")
    asked, missing = data["questions"]
    assert missing["answers"] == [] and "broken.png' is not a picture" in missing["error"]
    assert [answer["pipeline"] for answer in asked["answers"]] == ["baseline", "fopru_fastv", "blind"]
    plain, pruned, blind = asked["answers"]
    assert plain["visual_tokens"]["final"] == 256 and plain["same"] is None
    assert pruned["visual_tokens"] == {"encoded": 256, "kept": 128, "final": 64, "layer_average": pytest.approx(96.0)}
    assert pruned["kv_bytes"] < plain["kv_bytes"] and blind["visual_tokens"]["kept"] == 0
    for answer in asked["answers"]:
        assert 0 < answer["ttft_ms"] <= answer["total_ms"] and answer["error"] is None and answer["new_tokens"] >= 1
        assert answer["same"] in (None, answer["text"] == plain["text"])
    assert [row["answered"] for row in data["summary"]] == [1, 1, 1]
    assert data["summary"][0]["same"] is None and data["summary"][1]["ttft_share"] > 0


def test_a_pipeline_is_compared_without_a_node():
    arguments = ("demo:street-sign", "--prompt", TEXT, "--pipelines", "fopru_fastv", "--without", "fastv", "--json")
    (asked,) = json.loads(invoke("compare", *arguments).stdout)["questions"]
    assert [answer["visual_tokens"]["final"] for answer in asked["answers"]] == [256, 128]


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file_without_script_or_network(compared):
    _, text = compared
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|@import|url\(", text)
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 3 and all(each["src"].startswith("data:image/jpeg;base64,") for each in pictures)
    assert pictures[1]["alt"].endswith("256 → 128 → 64")
    assert "&lt;b&gt;&amp;" in text and "<b>" not in text
    assert "Not asked: " in text and "broken.png" in text


def test_the_terminal_shows_answers_tokens_and_maps():
    result = invoke(
        *(
            "compare",
            "demo:street-sign",
            "demo:taxi-rank",
            "--prompt",
            TEXT,
            "--pipelines",
            "fopru_rank",
            "--ratio",
            "0.25",
        )
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"^baseline +stop +256 ", result.stdout, re.MULTILINE)
    assert re.search(r"^fopru_rank 25 % +stop +256 → 64 ", result.stdout, re.MULTILINE)
    assert "·▄███······████·" in result.stdout
    assert re.search(r"^fopru_rank 25 % +25 % .* 2 of 2$", result.stdout, re.MULTILINE)


ROW = {
    "label": "fopru_no_reordering 11.1 %",
    "text": "a long answer that says much of what there is to say about it, and more",
    "tokens": "2880 → 1440 → 320",
    "ttft_ms": 12345.6,
    "total_ms": 23456.7,
    "same": False,
    "error": None,
    "map": ["█·▄▀" * 9] * 2,
}


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_is_longer_than_the_terminal(monkeypatch, columns, tmp_path):
    with open(tmp_path / "out", "w+", encoding="utf-8") as file:
        monkeypatch.setattr(terminal, "stdout_console", lambda: Console(file=file, width=columns, highlight=False))
        terminal.show_question("photo.jpg", "what is [this] ?", [ROW, ROW | {"error": "[gone]", "map": []}], None)
        terminal.show_question("other.jpg", "what ?", [], "there is no file [x]")
        summary = {"label": ROW["label"], "share": 0.111, "same": 199, "answered": 200, "ttft_share": 0.5}
        times = {"ttft_ms": 12345.6, "total_ms": 23456.7, "total_share": 1.25}
        terminal.show_comparison([summary | times | {"same": None, "ttft_share": None}, summary | times], 200)
    lines = (tmp_path / "out").read_text().splitlines()
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert "what is [this] ?" in text and "no answer: [gone]" in text and "there is no file [x]" in text
    assert "≠ a long answer" in text and "2880 → 1440 → 320" in text and "199 of 200" in text and "(125 %)" in text


def in_bfloat16(folder: Path) -> Path:
    text = Path("pipelines/fopru_row.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("name: $inputs.model", "name: demo, dtype: bfloat16"))
    return folder / "mine.yaml"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no-such.png"], "there is no file"),
        (["--pipelines", ""], "there is no pipeline"),
        (["--pipelines", "fopru_rnk"], "fopru_rank"),
        (["--ratio", "2"], "is not in (0, 1]"),
        (["--pipelines", "fopru_rank,{mine}"], "their times do not compare"),
        (["--set", "model=no/where"], "no/where"),
        (["--html", "{mine}/page.html"], "cannot be written to"),
    ],
)
def test_mistakes_end_in_a_sentence(tmp_path, arguments, sentence):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        Path("pipelines/fopru_row.yaml").read_text().replace("name: $inputs.model", "name: demo, dtype: bfloat16")
    )
    arguments = [argument.format(mine=mine) for argument in arguments]
    result = invoke("compare", "demo:street-sign", "--prompt", TEXT, *arguments)
    assert result.exit_code in (1, 2) and sentence in result.stderr and result.stdout == ""


def test_the_unpruned_model_is_that_of_the_first_pipeline(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        Path("pipelines/fopru_row.yaml").read_text().replace("name: $inputs.model", "name: demo, dtype: bfloat16")
    )
    result = invoke("compare", "demo:street-sign", "--prompt", TEXT, "--pipelines", str(mine), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["dtype"] == "bfloat16"


def test_two_questions_about_one_picture_are_both_timed(tmp_path):
    lines = [{"image": "demo:street-sign", "prompt": prompt} for prompt in (TEXT, "how many shapes are there ?")]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = invoke("compare", str(tmp_path / "asked.jsonl"), "--pipelines", "fopru_rank", "--json")
    assert result.exit_code == 0, result.output
    questions = json.loads(result.stdout)["questions"]
    assert [question["prompt"] for question in questions] == [line["prompt"] for line in lines]
    assert all(answer["ttft_ms"] > 0 for question in questions for answer in question["answers"])


def test_a_pipeline_that_fails_leaves_the_other_answers():
    settings = ("--pipelines", "fopru_fastv", "--set", "fastv.layer=99", "--json")
    result = invoke("compare", "demo:street-sign", "--prompt", TEXT, *settings)
    assert result.exit_code == 3
    plain, failed = json.loads(result.stdout)["questions"][0]["answers"]
    assert plain["text"] == "stop" and failed["text"] is None and "cannot prune at layer 99" in failed["error"]
