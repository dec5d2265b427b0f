"""Own tasks by a file: what it may say, and the line and hint of everything that is wrong in it."""

from __future__ import annotations

import json

import pytest
from jinja2.exceptions import SecurityError

from fopru_graph.demo.scenes import render, sample_scene, scene_rng
from fopru_graph.errors import UserError
from fopru_graph.evaluation.configurations import configurations_of
from fopru_graph.evaluation.task import RecordError, Shown
from fopru_graph.evaluation.tasks import TASKS, get_task
from fopru_graph.evaluation.tasks.read import shipped
from fopru_graph.graph import Graph, PipelineError
from fopru_graph.sweep.plan import CommonOptions, cell_of
from tests.evaluation.datafiles import inline, write_lines
from tests.test_cli import PIPELINES, invoke

GOOD = """\
format: 1
name: circles
title: Circles
data: {file: circles.jsonl}
columns:
  question: text
  answer: text
  kind: {column: about.kind, default: all}
pictures: picture
prompt: |-
  {{ question | trim }}
  Answer shortly.
scorer: exact_match
max_new_tokens: 4
"""


def write(folder, text=GOOD, name="circles.yaml"):
    (folder / name).write_text(text)
    return str(folder / name)


def rows(*changes):
    row = {"question": " is there a red circle ? ", "answer": "yes", "about": {"kind": "red"}, "picture": inline()}
    return [row | change for change in changes or ({},)]


def problems_of(folder, text):
    with pytest.raises(PipelineError) as caught:
        get_task(write(folder, text))
    return [(problem.line, problem.message, problem.hint) for problem in caught.value.problems]


def test_a_file_is_a_task(tmp_path):
    write_lines(tmp_path / "circles.jsonl", rows({}, {"about": None}, {"answer": 3}))
    task = get_task(write(tmp_path))
    assert (task.name, task.title, task.scorer, task.max_new_tokens) == ("circles", "Circles", "exact_match@1", 4)
    records = task.open(None, None)
    record = records.read(0)
    assert task.prompt(record) == "is there a red circle ?\nAnswer shortly."
    assert (task.score("Yes.", record).value, task.score("no", record).value) == (1, 0)
    assert [task.kind(records.read(index)) for index in (0, 1)] == ["red", "all"]
    assert records.images(0, record)[0][1].size == (4, 4)
    with pytest.raises(RecordError, match="circles.jsonl row 3: column 'answer' holds 3, not text"):
        records.read(2)


def test_its_data_may_be_given_and_must_be_somewhere(tmp_path):
    task = get_task(write(tmp_path, GOOD.replace("data: {file: circles.jsonl}\n", "")))
    other = write_lines(tmp_path / "other.jsonl", rows({}, {}))
    assert len(task.open(other, None)) == 2
    with pytest.raises(UserError) as caught:
        task.open(None, None)
    assert "'circles' names no data" in caught.value.message and "--data" in caught.value.hint
    with pytest.raises(UserError, match=r"there is no file or folder '.*circles.jsonl'"):
        get_task(write(tmp_path)).open(None, None)


def test_its_name_is_that_of_its_file_unless_it_says_another(tmp_path):
    assert get_task(write(tmp_path, GOOD.replace("name: circles\n", ""), "round.yml")).name == "round"


def test_all_types_of_columns(tmp_path):
    text = """\
format: 1
columns:
  options: {type: texts, column: [A, B, C, D]}
  words: {type: texts, column: words.said, empty: true}
  one: texts
  answer: {type: option, of: options}
  sure: {type: word, of: ["yes", "no"]}
  index: whole
  box: {type: box, form: size}
  corners: {type: box, column: box}
prompt: "{{ options | lettered }} {{ words | join('+') }} {{ index }}: <image>"
scorer: ai2d
"""
    row = {
        "A": "x",
        "B": "y",
        "C": "nan",
        "D": None,
        "words": [{"said": "a"}, {"said": "b"}],
        "one": "only",
        "answer": 1,
    }
    row |= {"sure": " YES", "index": "12", "box": [1, 2, 3, 4], "image": inline()}
    task = get_task(write(tmp_path, text, "typed.yaml"))
    record = task.open(write_lines(tmp_path / "x.jsonl", [row]), None).read(0)
    assert record == {
        **{"options": ["x", "y"], "words": ["a", "b"], "one": ["only"], "answer": "B", "sure": "yes", "index": 12},
        **{"box": [1, 2, 4, 6], "corners": [1, 2, 3, 4], "image": row["image"]},
    }
    assert task.prompt(record) == "A. x\nB. y a+b 12: <image>"
    assert task.prompt({**record, "words": ["<image>"]}).count("<image>") == 1, "data marks no place of a picture"


def test_rows_may_be_chosen_and_make_several_records(tmp_path):
    text = GOOD.replace("data: {file: circles.jsonl}", "data: {file: circles.jsonl, where: {split: a}, each: question}")
    lines = rows({"question": ["q1", "q2"], "split": "a"}, {"split": "b"}, {"question": [], "split": "a"})
    write_lines(tmp_path / "circles.jsonl", [*lines[:2], "{", lines[2], lines[0]])
    records = get_task(write(tmp_path, text)).open(None, None)
    assert len(records) == 6
    assert [records.read(index)["question"] for index in (0, 1, 4, 5)] == ["q1", "q2", "q1", "q2"]
    for index, reason in ((2, "row 3: the line is no JSON"), (3, "row 4: column 'question' holds")):
        with pytest.raises(RecordError, match=reason):
            records.read(index)
    assert len(get_task(write(tmp_path, text)).open(None, 2)) == 2
    write_lines(tmp_path / "circles.jsonl", lines)
    with pytest.raises(UserError, match="no row with split: z"):
        get_task(write(tmp_path, text.replace("split: a", "split: z"))).open(None, None)


def test_it_may_extend_a_shipped_task(tmp_path):
    write_lines(tmp_path / "mine.jsonl", [{"answer": ["x"], "bbox": [0, 0, 2, 2], "image": inline()}])
    scorer = "{name: box, coordinates: padded, threshold: 0.9}"
    text = f"format: 1\nextends: refcoco\ndata: {{file: mine.jsonl}}\nscorer: {scorer}\n"
    task, base = get_task(write(tmp_path, text, "mine.yaml")), get_task("refcoco")
    record = task.open(None, None).read(0)
    assert task.prompt(record) == base.prompt(record) and task.variants == {}, "its scorer is for all models"
    assert task.score("[0, 0, 0.5, 0.5]", {**record, "shown": [Shown((4, 4), lambda: (4, 4))]}).value == 1
    assert task.facts != base.facts


def test_models_are_asked_in_their_own_words(tmp_path):
    class Handle:
        def __init__(self, model_type):
            self.family = type("Family", (), {"model_type": model_type})

    task, record = get_task("refcoco"), {"expression": "the dog", "box": [50, 50, 150, 100]}
    shown = [Shown((200, 100), lambda: (56, 28))]
    said = {
        "llava": ("[0.25, 0.5, 0.75, 1.0]", "between 0 and 1"),
        "internvl": ("[[250, 500, 750, 1000]]", "<ref>the dog</ref>"),
        "qwen2_vl": ("(250,500),(750,1000)", "<|object_ref_start|>the dog<|object_ref_end|>"),
        "qwen2_5_vl": ('[{"bbox_2d": [14, 14, 42, 28]}]', "JSON"),
        "qwen3_vl": ('[{"bbox_2d": [250, 500, 750, 1000]}]', "JSON"),
        "paligemma": ("<loc0512><loc0256><loc1023><loc0768> the dog", "detect the dog"),
    }
    for model_type, (answer, words) in said.items():
        asked = task.asked_of(Handle(model_type))
        assert words in asked.prompt(record)
        assert asked.score(answer, {**record, "shown": shown}).facts["iou"] > 0.99, model_type
    assert set(task.variants) == set(said) - {"llava"}


WRONG = [
    ("format: 1\n", "format: 2\n", 1, "format: input should be 1", None),
    ("format: 1\n", "", 1, "the key 'format' is missing", None),
    ("scorer: exact_match\n", "", 1, "the key 'scorer' is missing", None),
    ("title: Circles", "titel: Circles", 3, "there is no key 'titel'", "did you mean 'title'?"),
    ("{file: circles.jsonl}", "{fiel: circles.jsonl}", 4, "there is no key 'data.fiel'", "did you mean 'file'?"),
    ("{file: circles.jsonl}", "{hub: x, pictures: {kee: y}}", 4, "there is no key 'data.pictures.kee'", "'key'"),
    ("name: circles", "name: a/b", 2, "name: string should match pattern", None),
    ("name: circles", "name: pope", 2, "'pope' is the name of a task that is there already", "another"),
    ("name: circles", "extend: pope", 2, "there is no key 'extend'", "did you mean 'extends'?"),
    ("name: circles", "extends: popo", 2, "there is no task 'popo' to extend", "did you mean 'pope'?"),
    ("question: text", "question: txt", 6, "columns.question.type: input should be 'text', 'texts'", None),
    ("question: text", "question: {typ: text}", 6, "there is no key 'columns.question.typ'", "did you mean 'type'?"),
    ("question: text", "question: {type: option}", 6, "columns.question: 'of' is missing", "of: and the column"),
    ("question: text", "question: {type: word}", 6, "columns.question: 'of' is missing", "list of the words"),
    ("question: text", "question: {type: option, of: answer}", 6, "'answer' is no column of type texts", None),
    ("question: text", "question: {of: answer}", 6, "type text takes no 'of'", None),
    ("question: text", "question: {type: texts, default: x}", 6, "only a column of type text may have a default", None),
    ("question: text", "question: {column: [a, b]}", 6, "several columns make one of type texts", None),
    ("question: text", "my-question: text", 6, "'my-question' is no name for a column", "letters"),
    ("question: text", "picture: text", 6, "'picture' is the name of pictures", "another name"),
    ("answer: text", "answers: texts", 13, "needs a column 'answer' of type text", "write under columns"),
    ("answer: text", "answer: texts", 7, "columns.answer: the scorer 'exact_match' needs type text", None),
    ("{{ question", "{{ qestion", 10, "the prompt names 'qestion', which is no column", "did you mean 'question'?"),
    ("| trim }}", "| trimm }}", 10, "line 1 of the prompt: No filter named 'trimm'", None),
    ("Answer shortly.", "{% if %}", 10, "line 2 of the prompt: Expected an expression", "{{ name }}"),
    ("scorer: exact_match", "scorer: exact_mach", 13, "there is no scorer 'exact_mach'", "did you mean 'exact_match'?"),
    ("scorer: exact_match", "scorer: {name: relaxed, tolerence: 1}", 13, "has no option 'tolerence'", "'tolerance'"),
    ("scorer: exact_match", "scorer: {name: relaxed, tolerance: x}", 13, "scorer.tolerance: input should be", None),
    ("scorer: exact_match", "scorer: {name: exact_match, tolerance: 1}", 13, "no option 'tolerance'", "it has none"),
    ("max_new_tokens: 4", "max_new_tokens: 0", 14, "max_new_tokens: input should be greater than or equal to 1", None),
    ("max_new_tokens: 4", "max_new_tokens: many", 14, "max_new_tokens: input should be a valid integer", None),
    ("max_new_tokens: 4", "models: {llavva: {}}", 14, "there is no model type 'llavva'", "did you mean 'llava'?"),
    ("max_new_tokens: 4", "models: {llava: {promt: x}}", 14, "no key 'models.llava.promt'", "did you mean 'prompt'?"),
    ("max_new_tokens: 4", "models:\n  llava:\n    prompt: '{{ x }}'", 16, "the prompt names 'x'", None),
    ("title: Circles", "name: again", 3, "the key 'name' stands here and in line 2", None),
    ("title: Circles", "title: [", 5, "while parsing", None),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "message", "hint"), WRONG)
def test_what_is_wrong_is_said_with_its_line(old, new, line, message, hint, tmp_path):
    assert old in GOOD
    found = problems_of(tmp_path, GOOD.replace(old, new, 1))
    assert any(message in said and at == line for at, said, _ in found), found
    assert hint is None or any(hint in (told or "") for _, _, told in found), found


def test_all_problems_are_told_at_once(tmp_path):
    text = (
        GOOD.replace("scorer: exact_match", "scorer: exact").replace("{{ question", "{{ x").replace("answer:", "reply:")
    )
    assert [line for line, _, _ in problems_of(tmp_path, text)] == [10, 13]


@pytest.mark.parametrize("text", ["", "- a\n", "text", "format: 1\n---\nformat: 1\n", "\t- x"])
def test_a_file_that_is_no_mapping_is_refused(text, tmp_path):
    assert problems_of(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="cannot read"):
        get_task(str(tmp_path / "none.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(PipelineError, match="no regular file"):
        get_task(str(tmp_path / "folder.yaml"))


@pytest.mark.parametrize("prompt", ["{{ ''.__class__ }}", "{{ question.__class__.__mro__ }}", "{{ cycler.__init__ }}"])
def test_a_prompt_reaches_nothing_but_its_record(prompt, tmp_path):
    write_lines(tmp_path / "circles.jsonl", rows())
    text = GOOD.replace("{{ question | trim }}", prompt)
    with pytest.raises((PipelineError, SecurityError), match="unsafe|which is no column"):
        rendered(write(tmp_path, text))


def rendered(file):
    task = get_task(file)
    return task.prompt(task.open(None, None).read(0))


def test_every_shipped_file_is_right():
    for name in shipped():
        assert get_task(name).name == name
    assert {"scenes", "mmmu", *shipped()} == set(TASKS)


def test_two_tasks_of_a_name_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    result = invoke("tasks", write(tmp_path), write(tmp_path / "b"))
    assert result.exit_code == 2 and "two tasks are called 'circles'" in result.stderr


def scene_task(folder, text=GOOD):
    lines = []
    for index in range(6):
        render(sample_scene(scene_rng("test", index // 3))).save(folder / f"{index // 3}.png")
        lines += rows({"picture": f"{index // 3}.png", "about": {"kind": "odd" if index % 2 else "even"}})
    write_lines(folder / "circles.jsonl", lines)
    return write(folder, text)


def test_eval_sweep_tune_and_report_take_a_file(tmp_path):
    task, rank, out = scene_task(tmp_path), str(PIPELINES / "fopru_rank.yaml"), str(tmp_path / "out")
    result = invoke("eval", rank, "--task", task, "--ratio", "0.25", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    (summary,) = json.loads(result.stdout)["results"]
    assert (summary["task"], summary["n"], set(summary["per_type"])) == ("circles", 6, {"odd", "even"})
    sweep = invoke("sweep", rank, "--task", task, "--ratio", "0.25", "--out", out, "--json")
    assert sweep.exit_code == 0 and "done" in sweep.stdout, "the sweep takes the cell for done"
    assert not (tmp_path / "out" / "logs").exists(), "and starts no process for it"
    result = invoke("tune", rank, "--task", task, "--ratio", "0.25", "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["results"][0]["task"] == "circles"
    assert invoke("report", out).exit_code == 0 and "circles" in (tmp_path / "out" / "report.html").read_text()


def test_a_change_of_the_file_is_another_identity_and_its_place_is_not(tmp_path):
    task, rank, out = scene_task(tmp_path), str(PIPELINES / "fopru_rank.yaml"), str(tmp_path / "out")
    command = ("eval", rank, "--ratio", "0.25", "--out", out, "--data", str(tmp_path / "circles.jsonl"), "--task")
    assert invoke(*command, task).exit_code == 0
    (tmp_path / "b").mkdir()
    moved = write(tmp_path / "b", "# elsewhere\n" + GOOD.replace("title: Circles", "title: Other words"))
    assert invoke(*command, moved).exit_code == 0
    result = invoke(*command, write(tmp_path, GOOD.replace("Answer shortly", "Answer in short")))
    assert result.exit_code == 1 and "prompt" in result.stderr


@pytest.mark.parametrize("command", ["eval", "sweep", "tune", "tasks"])
def test_a_wrong_file_ends_every_command_with_its_lines(command, tmp_path):
    wrong = write(tmp_path, GOOD.replace("exact_match", "exact_mach").replace("| trim", "| trimm"))
    options = (wrong,) if command == "tasks" else (str(PIPELINES / "fopru_rank.yaml"), "--task", wrong)
    result = invoke(command, *options)
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert f"{wrong}:13" in result.stderr.replace("\n", "") and f"{wrong}:10" in result.stderr.replace("\n", "")
    assert "did you mean 'exact_match'?" in result.stderr


def test_the_listing_shows_own_tasks_and_scorers(tmp_path):
    listed = json.loads(invoke("tasks", write(tmp_path), "--json").stdout)
    assert [task["name"] for task in listed["tasks"]] == ["circles"]
    relaxed = next(scorer for scorer in listed["scorers"] if scorer["name"] == "relaxed")
    assert (relaxed["columns"], relaxed["options"]) == (["answer"], {"tolerance": 0.05})
    assert "tolerance: 0.05" in invoke("tasks").stdout


def test_a_cell_of_a_sweep_names_the_file_and_its_data(tmp_path):
    (configuration,) = configurations_of(Graph.load(PIPELINES / "fopru_rank.yaml"), (0.25,))
    task, common = get_task(write(tmp_path)), CommonOptions(out=tmp_path)
    cell = cell_of(configuration, PIPELINES / "fopru_rank.yaml", (), task, "rows.jsonl", common)
    assert cell.argv[cell.argv.index("--task") + 1] == str(tmp_path / "circles.yaml")
    assert cell.argv[cell.argv.index("--data") + 1] == "circles=rows.jsonl"
    changed = get_task(write(tmp_path, GOOD.replace("shortly", "in short")))
    other = cell_of(configuration, PIPELINES / "fopru_rank.yaml", (), changed, "rows.jsonl", common)
    assert cell.label == other.label and cell.request != other.request
