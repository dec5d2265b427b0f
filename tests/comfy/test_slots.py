"""How inputs look on the canvas: one of every kind, and every input of every built-in node."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from fopru_graph import values
from fopru_graph.comfy.plan import LARGEST, Slot, plan_of, plans
from fopru_graph.comfy.slots import OPEN
from fopru_graph.graph import MISSING, Advanced, InputPath, Lazy, Node, OutputFile, Registry, node
from fopru_graph.graph.sockets import BadLiteral

PLANS = plans(Registry.default())
LIMITS = (LARGEST, -LARGEST, 1e9, -1e9)  # of numbers that the node itself does not bound


class Mood(StrEnum):
    """Choices as an enumeration."""

    GOOD = "good"
    BAD = "bad"


Positive = Annotated[float, Field(gt=0, le=1)]


@node(category="toy")
class Desk(Node):
    """An input of every kind."""

    def run(
        self,
        image: values.Image,
        pictures: list[values.Image],
        selection: values.Selection | None = None,
        other: Annotated[Any, Lazy()] = None,
        count: Annotated[int, Field(ge=1, le=9)] = 3,
        inside: Annotated[int, Field(gt=0, lt=9)] = 3,
        limit: Annotated[int | None, Field(ge=1)] = None,
        above: Annotated[int | None, Field(gt=1)] = None,
        any_int: int | None = None,
        share: Positive = 0.5,
        maybe: Positive | None = None,
        weight: Annotated[float | None, Field(ge=0)] = None,
        layer: Annotated[int, Field(ge=1)] | Positive = 2,
        sign: bool = False,
        sure: bool | None = None,
        order: Literal["best", "first"] = "best",
        maybe_order: Literal["best", "first"] | None = None,
        taken: Literal["none", "all"] | None = None,
        number: Literal[1, 2] = 1,
        mood: Mood = Mood.GOOD,
        text: str = "",
        prompt: str | list[str] = "why ?",
        name: str | None = None,
        label: str | None = "",
        questions: str | list[str] = ["a", "b"],  # noqa: B006
        tiny: Annotated[float, Field(gt=0)] = 1e-6,
        short: Annotated[str, Field(min_length=1)] = "a",
        stop: Annotated[list[str] | None, Advanced()] = None,
        messages: list[dict[str, Any]] | None = None,
        path: Annotated[str, InputPath(kind="image")] = "demo:cat",
        file: Annotated[str, OutputFile()] = "a.txt",
    ) -> float:
        return share

    def needs(self) -> list[str]:
        return []


DESK = plan_of(Desk.spec)
WIDGETS = [
    pytest.param(slot, id=f"{plan.type}.{slot.name}") for plan in (*PLANS.values(), DESK) for slot in plan.widgets
]


def looks(slot: Slot) -> tuple[Any, ...]:
    """Kind, value for None, bounds, and whether a rule is left to be checked."""
    return slot.kind, slot.none, slot.minimum, slot.maximum, slot.checked


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("count", ("int", MISSING, 1, 9, False)),
        ("inside", ("int", MISSING, 1, 8, True)),
        ("limit", ("int", 0, 0, LARGEST, False)),
        ("above", ("int", 1, 1, LARGEST, True)),
        ("any_int", ("json", "", None, None, True)),
        ("share", ("float", MISSING, OPEN, 1, True)),
        ("maybe", ("float", 0, 0, 1, True)),
        ("weight", ("float", -1, -1, 1e9, True)),  # what lies between -1 and 0 is told
        ("layer", ("json", MISSING, None, None, True)),
        ("sign", ("bool", MISSING, None, None, False)),
        ("sure", ("json", "", None, None, True)),
        ("order", ("choice", MISSING, None, None, False)),
        ("maybe_order", ("choice", "none", None, None, False)),
        ("taken", ("json", "", None, None, True)),
        ("number", ("json", MISSING, None, None, True)),
        ("mood", ("choice", MISSING, None, None, False)),
        ("text", ("text", MISSING, None, None, False)),
        ("prompt", ("text", MISSING, None, None, False)),
        ("name", ("text", "", None, None, False)),
        ("label", ("json", "", None, None, True)),
        ("questions", ("json", MISSING, None, None, True)),
        ("tiny", ("json", MISSING, None, None, True)),
        ("short", ("text", MISSING, None, None, True)),
        ("stop", ("json", "", None, None, True)),
        ("messages", ("json", "", None, None, True)),
        ("path", ("file", MISSING, None, None, False)),
        ("file", ("text", MISSING, None, None, False)),
    ],
)
def test_a_widget_follows_from_the_annotation(name, expected):
    assert looks(DESK.slot(name)) == expected


def test_links_have_types_and_say_whether_they_grow_and_may_be_left_open():
    links = {
        slot.name: (slot.types, slot.growing, slot.optional, slot.member)
        for slot in DESK.slots
        if slot not in DESK.widgets
    }
    assert links == {
        "image": (("FOPRU_IMAGE", "IMAGE"), False, False, "image"),
        "pictures": (("FOPRU_IMAGE", "IMAGE"), True, False, "picture"),
        "selection": (("FOPRU_SELECTION",), False, True, "selection"),
        "other": (("*",), False, True, "other"),
    }


def test_options_texts_and_marks():
    assert DESK.slot("maybe_order").options == ("none", "best", "first")
    assert (DESK.slot("mood").options, DESK.slot("mood").default) == (("good", "bad"), "good")
    assert [slot.name for slot in DESK.widgets if slot.multiline] == ["prompt", "questions", "stop", "messages"]
    assert [slot.name for slot in DESK.slots if slot.advanced] == ["stop", "file"]
    assert DESK.slot("limit").tooltip == "0 stands for empty"
    ratio = PLANS["FopruRankPrune"].slot("ratio")
    assert ratio.tooltip == ratio.socket.doc


# -- every input of every built-in node, and those above --------------------------------------------------------------


@pytest.mark.parametrize("slot", WIDGETS)
def test_the_default_round_trips(slot):
    if slot.socket.required:
        assert slot.default == "" or slot.problem(slot.default) is None
    else:
        assert slot.from_widget(slot.default) == slot.socket.default_value()


@pytest.mark.parametrize("slot", WIDGETS)
def test_none_round_trips_where_it_is_a_value(slot):
    nullable = slot.socket.type_name.endswith("None")
    assert nullable == (slot.none is not MISSING)
    if nullable:
        assert slot.to_widget(None) == slot.none
        assert slot.from_widget(slot.none) is None


NUMBERS = [parameter for parameter in WIDGETS if parameter.values[0].kind in ("int", "float")]


@pytest.mark.parametrize("slot", NUMBERS)
def test_both_bounds_are_taken_and_what_is_beyond_is_told_with_the_inputs_name(slot):
    assert slot.problem(slot.minimum) is None
    assert slot.problem(slot.maximum) is None
    step = 1 if slot.kind == "int" else OPEN
    beyond = [(slot.minimum, slot.minimum - step), (slot.maximum, slot.maximum + step)]
    for bound, value in beyond:
        if bound not in LIMITS:
            told = slot.problem(value)
            assert told is not None
            assert told.startswith(f"{slot.name} must be ")
            assert "\n" not in told


@pytest.mark.parametrize("slot", [parameter for parameter in NUMBERS if parameter.values[0].checked is False])
def test_every_number_between_the_bounds_is_taken_where_nothing_is_left_to_check(slot):
    between = st.integers if slot.kind == "int" else st.floats

    @settings(max_examples=20, deadline=None)
    @given(between(min_value=slot.minimum, max_value=slot.maximum))
    def check(value):
        literal = slot.from_widget(value)
        assert literal is None or slot.to_widget(literal) == value

    check()


@pytest.mark.parametrize("slot", [parameter for parameter in WIDGETS if parameter.values[0].kind == "choice"])
def test_every_choice_is_taken_and_another_is_told(slot):
    assert [slot.problem(option) for option in slot.options] == [None] * len(slot.options)
    assert slot.problem("something else").startswith(f"{slot.name} must be one of ")


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_a_text_round_trips_unless_it_stands_for_none(text):
    assert DESK.slot("text").from_widget(DESK.slot("text").to_widget(text)) == text
    name = DESK.slot("name")
    if text:
        assert name.from_widget(name.to_widget(text)) == text
    else:
        with pytest.raises(BadLiteral, match='cannot be "" on a canvas'):
            name.to_widget(text)


@settings(max_examples=50, deadline=None)
@given(st.none() | st.lists(st.text()))
def test_a_list_round_trips_as_json(value):
    stop = DESK.slot("stop")
    assert stop.from_widget(stop.to_widget(value)) == value


def test_a_layer_is_a_number_or_a_share_and_stays_what_it_is():
    layer = DESK.slot("layer")
    for value in (3, 0.3333):
        assert repr(layer.from_widget(layer.to_widget(value))) == repr(value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("share", 0, "share must be greater than 0, but is 0"),
        ("weight", -0.5, "weight must be greater than or equal to 0, but is -0.5"),
        ("layer", "deep", "layer is no JSON: deep (write a number)"),
        ("layer", "", "layer is empty (write a number)"),
        ("any_int", "x", "any_int is no JSON: x (write a number, or leave it empty)"),
        ("stop", "a, b", 'stop is no JSON: a, b (write a list, e.g. ["a", "b"] or [1, 2], or leave it empty)'),
        ("stop", "[" * 100_000, "stop is no JSON: " + "[" * 60),
        ("sure", "perhaps", "sure is no JSON: perhaps (write JSON, or leave it empty)"),
        ("limit", True, "limit expects int | None, but is true (a bool)"),
        ("text", 3, "text expects str, but is 3 (put the text in quotes)"),
    ],
)
def test_a_wrong_value_is_told_in_one_sentence(name, value, told):
    said = DESK.slot(name).problem(value)
    assert said is not None
    assert said.startswith(told)
    assert "\n" not in said


def test_blank_json_is_none_and_what_is_no_text_is_taken_as_it_is():
    assert DESK.slot("stop").from_widget(" \n") is None
    assert DESK.slot("layer").from_widget(3) == 3  # of a prompt that was written by hand


def test_a_list_for_a_text_cannot_be_on_a_canvas():
    with pytest.raises(BadLiteral, match=r'cannot be \["a", "b"\] on a canvas') as refused:
        DESK.slot("prompt").to_widget(["a", "b"])
    assert refused.value.hint == "give it one value"
