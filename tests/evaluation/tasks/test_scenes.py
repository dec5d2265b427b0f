"""The bundled task: scenes and questions of ``python -m fopru_graph.demo.evaluate``, painted only when asked for."""

from __future__ import annotations

import numpy as np
import pytest

from fopru_graph.demo.questions import KINDS, all_kinds
from fopru_graph.demo.scenes import render, sample_scene, scene_rng
from fopru_graph.errors import UserError
from fopru_graph.evaluation.tasks import get_task, scenes


@pytest.fixture(scope="module")
def records():
    return get_task("scenes").open(None, None)


def test_they_are_the_scenes_and_questions_of_the_model_card(records):
    expected = []
    for scene in range(300):
        rng = scene_rng("test", scene)
        for number, question in enumerate(all_kinds(sample_scene(rng), rng)):
            expected.append((f"scenes/{scene}/{number}", question.kind, question.text, question.answer))
    task = get_task("scenes")
    got = []
    for index in range(len(records)):
        record = records.read(index)
        got.append((records.key(index), task.kind(record), task.prompt(record), record["answer"]))
    assert got == expected and len(got) == 1534
    assert {kind for _, kind, _, _ in got} == set(KINDS)


def test_consecutive_questions_share_a_picture(records):
    shown = [records.images(index, records.read(index)) for index in range(8)]
    identities = [identity for [(identity, _)] in shown]
    assert len(set(identities)) == 2 and identities == sorted(identities)
    picture = sample_scene(scene_rng("test", 0))
    assert np.array_equal(np.asarray(shown[0][0][1]), np.asarray(render(picture)))


def test_only_whole_answers_count(records):
    task, record = get_task("scenes"), records.read(0)
    assert task.score(record["answer"], record).value == 1
    for wrong in (f"{record['answer']} ", record["answer"].upper(), f"{record['answer']}.", ""):
        assert task.score(wrong, record).value == 0
    assert task.max_new_tokens == 4


def test_a_limit_takes_the_first_and_leaves_the_identity(records):
    few = get_task("scenes").open(None, 7)
    assert len(few) == 7 and few.fingerprint == records.fingerprint
    assert [few.read(i) for i in range(7)] == [records.read(i) for i in range(7)]


def test_nothing_is_painted_before_a_picture_is_asked_for(records, monkeypatch):
    monkeypatch.setattr(scenes, "render", lambda _scene: pytest.fail("painted"))
    task = get_task("scenes").open(None, None)
    assert task.read(1533) == records.read(1533)


def test_it_takes_no_data(tmp_path):
    with pytest.raises(UserError, match="draws its own"):
        get_task("scenes").open(str(tmp_path), None)
