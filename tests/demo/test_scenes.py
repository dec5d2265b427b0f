"""The demo's scenes and questions: reproducible, disjoint by split, and with answers that are right."""

from __future__ import annotations

import numpy as np
import pytest

from fopru_graph.demo.questions import KINDS, NUMBERS, all_kinds, ask, plural
from fopru_graph.demo.samples import SCENES
from fopru_graph.demo.scenes import COLOURS, SHAPES, WORDS, patch_labels, render, sample_scene, scene_rng


def draw(split: str, index: int):
    rng = scene_rng(split, index)
    scene = sample_scene(rng)
    return scene, all_kinds(scene, rng)


def test_a_scene_is_a_function_of_split_and_index():
    assert draw("test", 5) == draw("test", 5)
    assert np.array_equal(render(draw("test", 5)[0]), render(draw("test", 5)[0]))


def test_splits_share_no_scene():
    scenes = [{repr(draw(split, i)[0]) for i in range(300)} for split in ("train", "validation", "test")]
    assert not scenes[0] & scenes[1] and not scenes[0] & scenes[2] and not scenes[1] & scenes[2]


def test_every_answer_follows_from_the_scene():
    seen = set()
    for i in range(300):
        scene, questions = draw("test", i)
        for question in questions:
            seen.add(question.kind)
            words = question.text.split()
            if question.kind == "existence":
                colour, shape = words[3], words[4]
                there = any(s.colour == colour and s.shape == shape for s in scene.shapes)
                assert question.answer == ("yes" if there else "no")
            elif question.kind == "colour":
                assert [s.colour for s in scene.shapes if s.shape == words[4]] == [question.answer]
            elif question.kind == "shape":
                assert [s.shape for s in scene.shapes if s.colour == words[4]] == [question.answer]
            elif question.kind == "counting":
                count = sum(plural(s.shape) == words[2] for s in scene.shapes)
                assert question.answer == NUMBERS[count]
            elif question.kind == "position":
                (one,) = [s for s in scene.shapes if s.shape == words[3]]
                vertical, horizontal = question.answer.split()
                assert (vertical == "top") == (one.y < 0.5) and (horizontal == "left") == (one.x < 0.5)
            else:
                assert scene.sign is not None and question.answer == scene.sign.word
    assert seen == set(KINDS)


def test_existence_is_balanced():
    answers = [ask(draw("train", i)[0], "existence", np.random.default_rng(i)) for i in range(400)]
    share = np.mean([q.answer == "yes" for q in answers if q is not None])
    assert 0.42 < share < 0.58


def test_a_scene_without_sign_or_unique_shape_has_no_such_question():
    rng = np.random.default_rng(0)
    assert ask(SCENES["three-stars"], "reading", rng) is None
    twins = SCENES["three-stars"].shapes[:2]
    assert ask(type(SCENES["three-stars"])(twins, None, 0), "colour", rng) is None


@pytest.mark.parametrize("grid", [8, 16])
def test_patch_labels_lie_where_the_paint_is(grid):
    for name, scene in SCENES.items():
        labels = patch_labels(scene, grid)
        picture = np.asarray(render(scene, grid * 14), dtype=int)
        for item in scene.shapes:
            if item.shape == "ring":
                continue  # its middle is background
            row, column = int(item.y * grid), int(item.x * grid)
            index = row * grid + column
            assert labels.shape[index] == 1 + SHAPES.index(item.shape), name
            assert labels.colour[index] == 1 + list(COLOURS).index(item.colour)
            assert labels.centre[index] == 1
            pixel = picture[int(item.y * grid * 14), int(item.x * grid * 14)]
            assert np.abs(pixel - COLOURS[item.colour]).max() < 12
        assert (labels.shape > 0).sum() < 0.3 * grid * grid
        if scene.sign is not None:
            assert set(labels.word[labels.word > 0]) == {1 + WORDS.index(scene.sign.word)}
            letters = labels.letter[labels.letter > 0]
            assert {chr(ord("a") + letter - 1) for letter in letters} <= set(scene.sign.word)
        else:
            assert not labels.word.any()
