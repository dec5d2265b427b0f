"""The schema for editors: draft-07, accepts what the engine accepts, refuses what can be told from one file."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import yaml
from pydantic import Field

from fopru_graph.graph import Graph, Node, Outputs, Registry, node
from fopru_graph.graph.errors import errors_of
from fopru_graph.graph.yaml.schema import pipeline_schema

PIPELINES = Path(__file__).parents[2] / "pipelines"


class Thing:
    """A value that only links can carry."""


class Mode(enum.Enum):
    """Ways to do it."""

    FAST = "fast"
    PAID = "$paid"


class Pair(Outputs):
    """Two outputs."""

    first: Thing
    second: str


@node(category="load")
class Make(Node):
    """Make a thing."""

    def run(
        self,
        ratio: Annotated[float, Field(gt=0, le=1, description="share kept")] = 0.5,
        count: Annotated[int | None, Field(ge=1)] = None,
        text: str = "$",
        kind: Literal["a", "b"] = "a",
        mode: Mode = Mode.FAST,
        size: tuple[int, float] = (1, 2.0),
        names: Annotated[list[str], Field(max_length=2)] = [],  # noqa: B006 - the engine copies defaults
        table: dict[str, int] | None = None,
        anything: Any = None,
        flag: bool = False,
    ) -> Thing:
        return Thing()


@node(category="flow", cache="disk")
class Use(Node):
    """Use things."""

    def run(self, thing: Thing, more: list[Thing] | None = None) -> Pair:
        return Pair(thing, "")


@pytest.fixture(scope="module")
def registry() -> Registry:
    registry = Registry()
    registry.add(Make, Use)
    return registry


@pytest.fixture(scope="module")
def schema(registry: Registry) -> dict[str, Any]:
    return pipeline_schema(registry)


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> jsonschema.Draft7Validator:
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.fixture(scope="module")
def shipped() -> jsonschema.Draft7Validator:
    schema = pipeline_schema(Registry.default())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def read(text: str) -> Any:
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def make(inputs: str, more: str = "") -> str:
    """A pipeline with one node of type Make."""
    return (
        "format: 1\ninputs:\n  x: {type: float, default: 0.5}\nnodes:\n"
        f"  made: {{type: Make, inputs: {{{inputs}}}{more}}}\n  used: {{type: Use, inputs: {{thing: $made}}}}\n"
        "outputs: {out: $used.first}\n"
    )


def accepts(text: str, validator: jsonschema.Draft7Validator, registry: Registry) -> tuple[bool, bool]:
    """Whether the schema accepts the file, and whether the engine does."""
    return validator.is_valid(read(text)), not errors_of(Graph.loads(text, registry).problems())


# -- the shipped pipelines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(PIPELINES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_pipelines_are_valid(path: Path, shipped: jsonschema.Draft7Validator) -> None:
    assert [error.message for error in shipped.iter_errors(read(path.read_text(encoding="utf-8")))] == []


def test_a_sub_graph_by_its_name_is_valid(shipped: jsonschema.Draft7Validator) -> None:
    text = "format: 1\nnodes:\n  ask: {type: fastv, inputs: {ratio: 0.5}}\noutputs: {text: $ask.text}\n"
    assert accepts(text, shipped, Registry.default()) == (True, True)
    assert accepts(text.replace("fastv", "fastw"), shipped, Registry.default()) == (False, False)


MISTAKES = {
    "unknown top-level key": ("outputs:", "output:"),
    "wrong format": ("format: 1", "format: 2"),
    "format as a text": ("format: 1", "format: '1'"),
    "misspelt node key": ("type: RankPrune, inputs", "type: RankPrune, input"),
    "misspelt type": ("type: RankPrune", "type: RankPrun"),
    "ratio of nothing": ("ratio: 0.5", "ratio: 0"),
    "ratio above one": ("ratio: 0.5", "ratio: 1.5"),
    "ratio as a text": ("ratio: 0.5", "ratio: '0.5'"),
    "ratio as a bool": ("ratio: 0.5", "ratio: true"),
    "ratio as a list": ("ratio: 0.5", "ratio: [0.5]"),
    "tokens below one": ("ratio: 0.5", "tokens: 0"),
    "tokens as a fraction": ("ratio: 0.5", "tokens: 1.5"),
    "misspelt input": ("ratio: 0.5", "ration: 0.5"),
    "input of another type": ("ratio: 0.5", "layer: 3"),
    "missing input": ("significance: $significance, ratio", "ratio"),
    "no inputs at all": ("inputs: {selection: $prune}", "comment: none"),
    "literal where a link must be": ("selection: $prune", "selection: 5"),
    "text where a link must be": ("selection: $prune", "selection: prune"),
    "half a reference": ("selection: $prune", "selection: $prune."),
    "environment variable": ("name: $inputs.model", "name: '${HOME}'"),
    "inputs without a name": ("name: $inputs.model", "name: $inputs"),
    "literal in a list of links": ("inputs: {layer: 3", "inputs: {layer: three"),
    "output without a reference": ("text: $generate.text", "text: generate.text"),
    "unknown type of a pipeline input": ("type: path", "type: file"),
    "default of the wrong type": ("default: demo}", "default: 5}"),
    "bad name": ("  prune: ", "  pr une: "),
    "reserved name": ("  prune: ", "  inputs: "),
    "unknown cache": ("type: RankPrune", "cache: ram, type: RankPrune"),
    "sub-graph outside": ("type: RankPrune", "type: /etc/block.yaml"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_as_the_engine_refuses_them(mistake: str, shipped: jsonschema.Draft7Validator) -> None:
    text = (PIPELINES / "fopru_fastv.yaml").read_text(encoding="utf-8").replace("ratio: $stage_ratio", "ratio: 0.5")
    right, wrong = MISTAKES[mistake]
    assert right in text
    assert accepts(text.replace(right, wrong, 1), shipped, Registry.default()) == (False, False)


# -- literals and references ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        "", "ratio: 1", "ratio: 0.001", "ratio: $inputs.x", "count: null", "count: 3", "text: hello", "text: $$5",
        "text: $$", "text: ''", "kind: b", "mode: fast", "mode: $$paid", "size: [1, 0.5]", "size: [1, 2]",
        "names: [a, b]", "names: [$other.second, b]", "names: []", "table: {a: 1}", "table: null",
        "anything: [1, {a: b}]", "anything: $other.second", "anything: $$x", "flag: true",
    ],
)  # fmt: skip
def test_good_inputs_are_accepted(inputs: str, validator: jsonschema.Draft7Validator, registry: Registry) -> None:
    others = "  thing: {type: Make}\n  other: {type: Use, inputs: {thing: $thing}}\n"
    text = make(inputs).replace("outputs:", f"{others}outputs:")
    assert accepts(text, validator, registry) == (True, True)


@pytest.mark.parametrize(
    "inputs",
    [
        "ratio: 0", "ratio: 2", "ratio: null", "ratio: a", "ratio: true", "count: 0", "count: 1.5", "text: 5",
        "text: null", "text: $5",
        "text: $", "kind: c", "kind: 1", "mode: slow", "mode: $paid", "size: [1]", "size: [1, 2, 3]",
        "size: [1.5, 2]", "names: [a, b, c]", "names: a", "names: [1]", "names: [$5]", "table: {a: b}", "anything: $5",
        "flag: 1", "flag: 'true'", "other: 1",
    ],
)  # fmt: skip
def test_bad_inputs_are_refused(inputs: str, validator: jsonschema.Draft7Validator, registry: Registry) -> None:
    schema_accepts, engine_accepts = accepts(make(inputs), validator, registry)
    assert not engine_accepts
    assert schema_accepts == (inputs == "mode: $paid")  # for all a schema can tell, that is a reference to a node


@pytest.mark.parametrize("more", ["$made", "[$made, $made]", "[]", "null", "$made.output"])
def test_a_list_of_links(more: str, validator: jsonschema.Draft7Validator, registry: Registry) -> None:
    text = make("").replace("thing: $made", f"thing: $made, more: {more}")
    schema_accepts, engine_accepts = accepts(text, validator, registry)
    assert schema_accepts
    assert engine_accepts or more.startswith("$")  # which types fit is the engine's to judge


@pytest.mark.parametrize("more", ["[$made, 1]", "[made]", "{a: $made}", "5", "[null]", "[[$made]]"])
def test_what_is_no_list_of_links(more: str, validator: jsonschema.Draft7Validator, registry: Registry) -> None:
    text = make("").replace("thing: $made", f"thing: $made, more: {more}")
    assert accepts(text, validator, registry) == (False, False)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("str", "text", "1"), ("path", "a.png", "[a]"), ("int", "1", "1.5"), ("float", "1", "text"),
        ("bool", "false", "0"), ("list[str]", "[a]", "[1]"), ("list[int]", "[1]", "[a]"), ("list[float]", "[1]", "1"),
        ("json", "{a: [1]}", "$made"), ("str", "$$", "$x"), ("int", "null", "true"),
    ],
)  # fmt: skip
def test_defaults_of_pipeline_inputs(
    kind: str, good: str, bad: str, validator: jsonschema.Draft7Validator, registry: Registry
) -> None:
    for value, expected in ((good, True), (bad, False)):
        text = make("").replace("nodes:", f"  y: {{type: {kind!r}, default: {value}}}\nnodes:", 1)
        assert accepts(text, validator, registry) == (expected, expected)


def test_a_pipeline_input_can_have_the_type_of_a_socket(
    validator: jsonschema.Draft7Validator, registry: Registry
) -> None:
    text = make("").replace("nodes:", "  y: {type: Thing}\nnodes:", 1)
    assert accepts(text, validator, registry) == (True, True)
    assert accepts(text.replace("Thing}", "Think}"), validator, registry) == (False, False)


def test_empty_sections_and_optional_inputs(validator: jsonschema.Draft7Validator, registry: Registry) -> None:
    nodes = "  made: {type: Make}\n  too: {type: Make, inputs: }\n"
    text = f"format: 1\ninputs:\nnodes:\n{nodes}outputs: {{a: $made, b: $too}}\n"
    assert accepts(text, validator, registry) == (True, True)
    assert not validator.is_valid(read(text.replace("type: Make, inputs: ", "type: Use, inputs: ")))


def test_sub_graphs_take_any_inputs(validator: jsonschema.Draft7Validator) -> None:
    text = make("").replace("type: Make, inputs: {}", "type: ./blocks/one.yaml, inputs: {a: 1, b: [$used, x]}")
    assert "./blocks/one.yaml" in text
    assert validator.is_valid(read(text))
    assert not validator.is_valid(read(text.replace("a: 1", "a: $5")))
    assert not validator.is_valid(read(text.replace("one.yaml", "one.yam")))


def test_ui_is_free(validator: jsonschema.Draft7Validator, registry: Registry) -> None:
    assert accepts(make("") + "ui: {anything: [$here, {x: 1}]}\n", validator, registry) == (True, True)


# -- help for authors -------------------------------------------------------------------------------------------------


def test_inputs_are_described_with_type_bounds_and_default(schema: dict[str, Any]) -> None:
    inputs = schema["definitions"]["inputs of Make"]["properties"]
    assert inputs["ratio"]["description"] == "share kept\n\nfloat; > 0; ≤ 1; default 0.5"
    assert inputs["ratio"]["default"] == 0.5
    assert inputs["count"]["description"] == "int | None; ≥ 1; default null"
    assert inputs["text"]["default"] == "$$"  # as it is written in a file
    assert inputs["names"]["description"] == "list[str]; at most 2 items; default []"
    thing = schema["definitions"]["inputs of Use"]["properties"]["thing"]
    assert thing["description"] == "Thing from another node; required"


def test_types_can_be_completed_with_their_documentation(schema: dict[str, Any]) -> None:
    offered = schema["definitions"]["node"]["properties"]["type"]["anyOf"]
    assert [one["const"] for one in offered if "const" in one] == ["Make", "Use"]
    assert offered[1]["description"] == "Use things.\n\nGives first (Thing), second (str)."


def test_every_key_has_a_description(schema: dict[str, Any]) -> None:
    places = [schema, schema["definitions"]["node"], schema["definitions"]["inputs of Make"]]
    described = [value for place in places for value in place["properties"].values()]
    assert len(described) > 15
    assert all(value.get("description") for value in described)


def test_only_words_of_draft_07(schema: dict[str, Any]) -> None:
    """And nothing beside a reference, since draft-07 readers ignore it."""
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    stack: list[Any] = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            assert not part.keys() & {"$defs", "prefixItems", "$dynamicRef", "unevaluatedItems", "dependentRequired"}
            assert "$ref" not in part or part.keys() == {"$ref"}
            assert re.match(r"#/definitions/[\w.%-]+$", part.get("$ref", "#/definitions/x"))
        stack += part.values() if isinstance(part, dict) else part if isinstance(part, list) else []


def test_the_same_schema_every_time(registry: Registry) -> None:
    assert pipeline_schema(registry) == pipeline_schema(registry)
    assert list(pipeline_schema(registry)["definitions"]) == list(pipeline_schema(registry)["definitions"])
