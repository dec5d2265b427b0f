"""A pipeline as a function of columns: what it reads, what it writes, and what becomes of rows that fail."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from fopru_graph import Graph, PipelineMap, PipelineModel
from fopru_graph.errors import UserError
from fopru_graph.graph import NodeError
from fopru_graph.pipeline_map import WRITE
from tests.test_cli import PIPELINES, SAMPLES

FILE = str(PIPELINES / "fopru_rank.yaml")
BOTH = {"image": "path", "prompt": "question"}
QUESTION = "what does the text say ?"


@pytest.fixture(scope="module")
def mapped():
    """What is pickled has no model and makes an equal object."""
    made = pickle.loads(pickle.dumps(PipelineMap(FILE, BOTH, list(WRITE), folder=SAMPLES)))
    made.load()
    return made


def test_rows_have_the_answers_and_figures_of_a_pipeline_model(mapped):
    pictures = ["demo:street-sign", "demo:taxi-rank"]
    made = mapped({"path": np.array(pictures), "question": [QUESTION, "what colour is the star ?"], "n": np.arange(2)})
    model = PipelineModel(Graph.load(FILE))
    answers = [model.answer(QUESTION, pictures[:1]), model.answer("what colour is the star ?", pictures[1:])]
    assert list(made) == ["path", "question", "n", *WRITE, "error"]
    assert made["text"] == [answer.text for answer in answers] and made["error"] == [None, None]
    assert made["visual_tokens"] == [answer.report["visual_tokens"] for answer in answers]
    assert made["new_tokens"] == [answer.report["new_tokens"] for answer in answers]
    assert made["n"] == [0, 1] and made["ttft_ms"] == made["prefill_ms"] == [None, None]  # both had one run
    alone = mapped({"path": pictures[:1], "question": [QUESTION]})
    assert alone["text"] == made["text"][:1] and alone["ttft_ms"][0] > 0 and alone["prefill_ms"][0] > 0


def test_rows_of_a_batch_are_asked_in_one_run(mapped, monkeypatch):
    asked = []
    answers = PipelineModel.answers

    def counted(self, questions, max_new_tokens=None, sets=None):
        asked.append(len(questions))
        return answers(self, questions, max_new_tokens, sets=sets)

    monkeypatch.setattr(PipelineModel, "answers", counted)
    pictures = ["demo:street-sign", "nowhere.png", "demo:taxi-rank", ["demo:street-sign"] * 2, "demo:street-sign"]
    made = mapped({"path": pictures, "question": [QUESTION] * 3 + ["<image> and <image> ?", QUESTION]})
    assert asked == [3] and [error is None for error in made["error"]] == [True, False, True, True, True]
    assert [made["text"][at] for at in (0, 2, 4)] == ["stop", "taxi", "stop"]


def test_a_picture_is_a_path_bytes_a_mapping_a_pil_picture_or_a_list(mapped):
    file = SAMPLES / "street-sign.png"
    forms = [
        "street-sign.png",  # in ``folder``
        str(file),
        file.read_bytes(),
        {"bytes": file.read_bytes(), "path": None},
        {"bytes": None, "path": "street-sign.png"},
        PIL.Image.open(file),
        np.asarray(PIL.Image.open(file).convert("RGB")),
        ["demo:street-sign"],
    ]
    made = mapped({"path": forms, "question": [QUESTION] * len(forms)})
    assert made["error"] == [None] * len(forms) and set(made["text"]) == {"stop"}


def test_a_row_that_fails_has_an_error_and_costs_no_other_row(mapped):
    pictures = [None, "nowhere.png", b"no picture", 7, [], {"path": ""}, "street-sign.png", "street-sign.png"]
    made = mapped({"path": pictures, "question": [QUESTION] * 7 + [3]})
    assert made["text"] == [None] * 6 + ["stop", None]
    assert made["visual_tokens"][6]["final"] == 64
    for error, said in zip(
        made["error"],
        [
            "column 'path' holds no picture",
            "there is no file '",
            "'the picture' is ",
            "a picture cannot be made of int",
            "column 'path' holds no picture",
            "column 'path' holds no picture",
            None,
            "column 'question' holds 3, not text",
        ],
        strict=True,
    ):
        assert error is None if said is None else said in error, (error, said)


def test_without_a_column_of_questions_all_rows_are_asked_that_of_the_pipeline():
    sets = {"prompt": "what colour is the star ?", "generate.max_new_tokens": 2}
    made = PipelineMap(FILE, {"image": "path"}, sets=sets, keep=())({"path": ["demo:taxi-rank"], "other": [1]})
    assert made == {"text": ["white"], "error": [None]}


def test_what_is_read_from_columns_needs_no_default_in_the_file(tmp_path):
    text = (PIPELINES / "fopru_rank.yaml").read_text()
    for default in (", default: demo:street-sign", ', default: "what does the text say ?"'):
        assert default in text
        text = text.replace(default, "")
    (tmp_path / "bare.yaml").write_text(text)
    PipelineMap(tmp_path / "bare.yaml", BOTH).plan()
    with pytest.raises(UserError, match="bare.yaml:7: inputs.prompt has no default"):
        PipelineMap(tmp_path / "bare.yaml", {"image": "path"}).plan()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((FILE, {"prompt": "q"}), "no column is read as the picture"),
        ((FILE, {"image": "path", "ratio": "r"}), "'ratio' cannot be read from a column"),
        ((FILE, BOTH, ["txt"]), "there is no 'txt' to write"),
        ((FILE, BOTH, ["text", "text"]), "named twice or not at all"),
        ((FILE, BOTH, []), "named twice or not at all"),
        ((FILE, BOTH, ["text"], {"nowhere.ratio": 1}), "nowhere"),
        ((FILE, BOTH, ["text"], {"prune.ratio": 7}), "fopru_rank.yaml:"),
        ((FILE + "x", BOTH), "there is no file"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_made(arguments, said):
    with pytest.raises(UserError, match=said):
        PipelineMap(*arguments)


def test_a_batch_without_its_columns_is_refused(mapped):
    with pytest.raises(UserError, match="the batch has no column question") as caught:
        mapped({"path": ["a"], "text": ["b"]})
    assert caught.value.hint == "it has path, text"
    with pytest.raises(UserError, match="has a column text already"):
        mapped({"path": ["a"], "question": ["b"], "text": ["c"]})


def test_a_lost_device_is_no_row_to_blame_and_lost_memory_is(mapped, monkeypatch):
    def fails(cause):
        def answers(questions, max_new_tokens, sets=None):
            raise NodeError("generate", "LLMGenerate", None, cause, {}, [])

        handle = SimpleNamespace(family=None)
        monkeypatch.setattr(mapped, "_model", SimpleNamespace(answers=answers, handle=handle))

    batch = {"path": ["demo:street-sign"], "question": [QUESTION]}
    fails(torch.OutOfMemoryError("CUDA out of memory"))
    assert mapped(batch)["error"] == ["generate: CUDA out of memory"]
    fails(torch.AcceleratorError("device-side assert triggered"))
    with pytest.raises(NodeError):
        mapped(batch)
