"""What IMAGE… on a command line stands for; nothing is opened, and nothing heavy is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fopru_graph.commands.questions import Question, read_questions
from fopru_graph.errors import UserError

ASK = "what is this ?"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden.png", "sub/c.webp", ".git/d.png", "list.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"never read")
    return tmp_path


def images(*arguments):
    return [question.image for question in read_questions(arguments, ASK)]


def test_files_samples_folders_and_patterns_in_their_order(folder):
    assert images("b.PNG", "demo:street-sign", "a.jpg") == ["b.PNG", "demo:street-sign", "a.jpg"]
    assert images(".") == ["./a.jpg", "./b.PNG", "./sub/c.webp"]
    assert images("sub/") == ["sub/c.webp"]
    assert images("*.[jP]*[gG]") == ["a.jpg", "b.PNG"], "list.jsonl is not matched, and nothing is twice"
    assert images("**/*.webp") == ["sub/c.webp"]
    assert images("notes.txt") == ["notes.txt"], "a file that is named is asked about, whatever it is called"
    assert read_questions(["a.jpg"], ASK) == [Question("a.jpg", "a.jpg", ASK)]


def test_a_name_with_the_characters_of_a_pattern_is_a_file_first(folder):
    (folder / "a[1].jpg").touch()
    assert images("a[1].jpg") == ["a[1].jpg"]


def test_home_and_addresses_of_files(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    (folder / "my photo.png").touch()
    assert images("~/a.jpg") == [str(folder / "a.jpg")]
    assert images((folder / "my photo.png").as_uri()) == [str(folder / "my photo.png")]


def lines(path, *rows, **options):
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    Path(path).write_text(text, **options)
    return str(path)


def test_a_line_is_a_question_and_its_path_is_relative_to_the_file(folder):
    (folder / "data").mkdir()
    rows = ({"image": "p.png", "prompt": "a ?"}, "", {"image": "/x/q.png", "id": 7, "label": "ignored"},
            {"image": "demo:taxi-rank", "prompt": "b ?", "id": "third"}, {"image": "~/r.png"})  # fmt: skip
    given = lines(folder / "data" / "x.JSONL", *rows, encoding="utf-8-sig")
    home = str(Path("~/r.png").expanduser())
    assert read_questions([f"data/{Path(given).name}"], ASK) == [
        Question("p.png", "data/p.png", "a ?"),
        Question("7", "/x/q.png", ASK),
        Question("third", "demo:taxi-rank", "b ?"),
        Question("~/r.png", home, ASK),
    ]


def test_every_question_has_an_id_of_its_own(folder):
    lines("x.jsonl", *({"image": "a.jpg"}, {"image": "a.jpg"}, {"image": "b.PNG", "id": "a.jpg #3"}))
    ids = [question.id for question in read_questions(["x.jsonl", "a.jpg"], ASK)]
    assert ids == ["a.jpg", "a.jpg #2", "a.jpg #3", "a.jpg #4"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"image": "a.jpg"', "this is no JSON"),
        ("[1]", "this is a list, not an object"),
        ({"prompt": "?"}, "there is no image"),
        ({"image": 3, "prompt": "?"}, "image is no path"),
        ({"image": "a.jpg"}, "there is no prompt, and no --prompt"),
        ({"image": "a.jpg", "prompt": ["?"]}, "prompt is no text"),
        ({"image": "a.jpg", "prompt": "?", "id": 1.5}, "id is neither a text nor a whole number"),
        ({"image": "a.jpg", "prompt": "?", "id": "x"}, "the id 'x' is that of line 1 too"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_broken_line_is_named_by_file_and_line(folder, row, says):
    lines("x.jsonl", {"image": "a.jpg", "prompt": "?", "id": "x"}, "", row)
    with pytest.raises(UserError) as refused:
        read_questions(["x.jsonl"])
    assert refused.value.message.startswith("x.jsonl:3: ") and says in refused.value.message
    assert "\n" not in refused.value.message and '{"image"' in refused.value.hint


def test_all_broken_lines_are_counted(folder):
    lines("x.jsonl", *["nothing"] * 5)
    with pytest.raises(UserError, match=r"x.jsonl:1: .*; x.jsonl:2: .*; x.jsonl:3: .*; and 2 more lines") as refused:
        read_questions(["x.jsonl"])
    assert refused.value.message.count(";") == 3
    Path("x.jsonl").write_bytes(b'{"image": "a"}\n\xff')
    with pytest.raises(UserError, match="x.jsonl:2: this is no UTF-8"):
        read_questions(["x.jsonl"], ASK)
    Path("x.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no question"):
        read_questions(["x.jsonl"], ASK)


@pytest.mark.parametrize(
    ("argument", "prompt", "says"),
    [
        ("gone.png", ASK, "there is no file 'gone.png'"),
        ("gone/*.png", ASK, "no file matches 'gone/[*].png'"),
        ("demo:street-sing", ASK, "there is no sample picture 'demo:street-sing'"),
        (".git/..", "", "nothing is asked about"),
        ("empty", ASK, "the folder 'empty' holds no picture"),
    ],
)
def test_what_names_nothing_is_refused_with_a_hint(folder, argument, prompt, says):
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=says) as refused:
        read_questions([argument], prompt)
    assert refused.value.hint


def test_reading_loads_no_torch():
    code = (
        "import sys\nfrom fopru_graph.commands.questions import read_questions\n"
        "read_questions(['demo:street-sign'], 'what ?')\nprint('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
