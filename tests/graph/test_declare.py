from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field

from fopru_graph.graph import (
    Advanced,
    Context,
    InputPath,
    Lazy,
    Node,
    OutputFile,
    Outputs,
    PipelineError,
    Registry,
    Socket,
    node,
)
from fopru_graph.graph.annotations import compatible
from fopru_graph.graph.declare.node import snake_case
from fopru_graph.graph.sockets import BadLiteral
from tests.graph import toys

if TYPE_CHECKING:
    from decimal import Decimal


def test_sockets_are_derived_from_the_signature_of_run():
    spec = toys.Keep.spec
    assert list(spec.inputs) == ["scores", "ratio", "order", "tokens"]
    assert [socket.type_name for socket in spec.inputs.values()] == [
        "Scores",
        "float",
        "'best' | 'first'",
        "int | None",
    ]
    assert [socket.required for socket in spec.inputs.values()] == [True, False, False, False]
    assert spec.inputs["scores"].is_link_only
    assert not spec.inputs["ratio"].is_link_only
    assert spec.inputs["ratio"].doc == "share kept"
    assert spec.inputs["order"].choices == ["best", "first"]
    assert spec.outputs["output"].type_name == "list[float]"
    assert (spec.type, spec.category, spec.summary) == ("Keep", "toy", "Keep the best share of the scores.")


def test_json_schema_carries_bounds_default_and_description():
    schema = toys.Keep.spec.inputs["ratio"].json_schema()
    assert schema == {
        "type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.5, "description": "share kept",
    }  # fmt: skip
    assert toys.Keep.spec.inputs["scores"].json_schema() == {"type": "string", "pattern": r"^\$[A-Za-z_]"}


def test_marks_are_read_from_the_annotation_as_instances_and_as_classes():
    @node(category="toy")
    class Marked(Node):
        """Inputs with marks."""

        def run(
            self,
            size: int,
            depth: Annotated[int, Advanced()] = 1,
            width: Annotated[int, Field(ge=1), Advanced] = 1,
            picture: Annotated[str, InputPath(kind="image")] = "a.png",
            data: Annotated[str, InputPath()] = "a.bin",
            file: Annotated[str, OutputFile()] = "a.txt",
        ) -> int:
            return size

    inputs = Marked.spec.inputs
    assert [name for name, socket in inputs.items() if socket.advanced] == ["depth", "width"]
    assert [name for name, socket in inputs.items() if socket.file] == ["file"]
    kinds = {name: socket.path.kind for name, socket in inputs.items() if socket.path is not None}
    assert kinds == {"picture": "image", "data": "file"}


def test_the_nodes_that_read_files_say_of_which_kind():
    kinds = {
        f"{spec.type}.{name}": socket.path.kind
        for spec in Registry.default().types().values()
        for name, socket in spec.inputs.items()
        if socket.path is not None
    }
    assert kinds == {
        "LoadImage.path": "image", "LoadModel.name": "model", "LoadTokens.file": "tokens", "LoadVideo.path": "video",
    }  # fmt: skip


def test_every_field_of_outputs_is_an_output():
    assert list(toys.Split.spec.outputs) == ["low", "high"]
    halves = toys.Split()(picture=toys.Picture((1, 2, 3, 4)))
    assert (halves.low.pixels, halves.high.pixels) == ((1, 2), (3, 4))
    with pytest.raises(AttributeError):
        halves.low = None


def test_a_node_is_a_plain_callable_with_defaults_and_validation():
    scores = toys.Scores((3.0, 1.0, 2.0, 4.0))
    assert toys.Keep()(scores=scores) == [4.0, 3.0]
    with pytest.raises(PipelineError) as caught:
        toys.Keep()(ratio=2.0, rati=1, order="bst")
    assert sorted(problem.code for problem in caught.value.problems) == [
        "missing-input", "not-a-choice", "out-of-range", "unknown-input",
    ]  # fmt: skip
    assert "did you mean 'ratio'?" in str(caught.value)


def test_a_plain_call_injects_a_context_that_does_nothing():
    assert toys.Steps()(count=2) == "done"


def test_a_coroutine_is_run_to_its_end_by_a_plain_call():
    assert toys.Sleepy()(value=2) == 2.0


def test_defaults_are_copied_for_every_call():
    @node(category="toy")
    class Grow(Node):
        """Badly behaved."""

        def run(self, values: list[int] = []) -> int:  # noqa: B006
            values.append(1)
            return len(values)

    assert (Grow()(), Grow()()) == (1, 1)


def no_run():
    class NoRun(Node):
        pass

    return NoRun


def no_annotation():
    class NoAnnotation(Node):
        def run(self, size) -> int:
            return size

    return NoAnnotation


def no_return():
    class NoReturn(Node):
        def run(self, size: int):
            return size

    return NoReturn


def star_args():
    class StarArgs(Node):
        def run(self, *sizes: int) -> int:
            return len(sizes)

    return StarArgs


def star_star():
    class StarStar(Node):
        def run(self, **sizes: int) -> int:
            return len(sizes)

    return StarStar


def unresolved():
    class Unresolved(Node):
        def run(self, size: Decimal) -> int:
            return 1

    return Unresolved


def lazy_without_needs():
    class LazyWithoutNeeds(Node):
        def run(self, size: Annotated[int, Lazy()] = 1) -> int:
            return size

    return LazyWithoutNeeds


def odd_default():
    class OddDefault(Node):
        def run(self, size: Any = object()) -> int:  # noqa: B008
            return size

    return OddDefault


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_run, "NoRun has no run method"),
        (no_annotation, "NoAnnotation.run: parameter 'size' has no annotation"),
        (no_return, "NoReturn.run has no return annotation"),
        (star_args, "StarArgs.run: .*sizes.* is not allowed"),
        (star_star, "StarStar.run: .*sizes.* is not allowed"),
        (unresolved, "Unresolved: an annotation names 'Decimal'"),
        (lazy_without_needs, "LazyWithoutNeeds has lazy inputs and so must define needs"),
        (odd_default, "OddDefault.run: the default of 'size' must be a plain value"),
    ],
)
def test_a_wrong_declaration_is_refused_with_class_and_parameter(make, message):
    with pytest.raises(TypeError, match=message):
        node(category="toy")(make())


@pytest.mark.parametrize(
    ("annotation", "value", "read"),
    [
        (float, 1, 1.0), (float, 0.5, 0.5), (int, 3, 3), (bool, True, True), (str, "1", "1"), (Any, [1, "a"], [1, "a"]),
        (int | None, None, None), (list[float], [1, 2.5], [1.0, 2.5]), (Path, "a/b", Path("a/b")),
        (Literal["a", "b"], "a", "a"), (list[toys.Picture], [], []), (toys.Picture | None, None, None),
        (str | toys.Picture, "x", "x"), (dict[str, int], {"a": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_literals_that_fit(annotation, value, read):
    result = Socket("x", annotation).read(value)
    assert result == read
    assert type(result) is type(read)


@pytest.mark.parametrize(
    ("annotation", "value", "code"),
    [
        (float, "0.5", "bad-value"), (float, True, "bad-value"), (int, True, "bad-value"), (int, 1.0, "bad-value"),
        (int, 1.5, "bad-value"), (bool, 1, "bad-value"), (str, 1, "bad-value"), (int, None, "bad-value"),
        (list[int], [1, "2"], "bad-value"), (Literal["a", "b"], "c", "not-a-choice"),
        (Literal["a", "b"] | None, "c", "not-a-choice"),
        (toys.Picture, "x", "bad-value"), (toys.Picture, {}, "bad-value"),
        (list[toys.Picture], ["x"], "bad-value"), (str | toys.Picture, 3, "bad-value"),
        (toys.Keep.spec.inputs["ratio"].annotation, 0, "out-of-range"),
        (toys.Keep.spec.inputs["ratio"].annotation | None, 2.0, "out-of-range"),
    ],
)  # fmt: skip
def test_literals_that_do_not_fit(annotation, value, code):
    with pytest.raises(BadLiteral) as caught:
        Socket("x", annotation).read(value)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (int, int), (int, float), (str, str | list[str]), (toys.Photo, toys.Picture), (Any, int), (toys.Picture, Any),
        (int, int | None), (list[int], list[float]), (list[toys.Photo], list[toys.Picture]), (list, list[int]),
        (int | float, float), (Literal["a"], str), (Literal["a"], Literal["a", "b"]), (list[int], list),
    ],
)  # fmt: skip
def test_compatible_types(source, target):
    assert compatible(source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (float, int), (bool, int), (bool, float), (str, int), (toys.Picture, toys.Photo), (int | None, int),
        (toys.Picture, toys.Scores), (list[float], list[int]), (list[int], int), (int, list[int]), (str, Literal["a"]),
        (Literal["a", "c"], Literal["a", "b"]), (int, bool),
    ],
)  # fmt: skip
def test_incompatible_types(source, target):
    assert not compatible(source, target)


def test_snake_case_of_type_names():
    assert [snake_case(name) for name in ("LLMGenerate", "RankPrune", "FastVPrune", "Load")] == [
        "llm_generate", "rank_prune", "fast_v_prune", "load",
    ]  # fmt: skip


def test_the_context_is_no_socket():
    assert "ctx" not in toys.Steps.spec.inputs
    assert toys.Steps.spec.context_names == ("ctx",)
    assert Context().cancelled() is False


def test_run_must_return_its_declared_outputs():
    class Pair(Outputs):
        a: int
        b: int

    with pytest.raises(TypeError, match="run must return Halves, but returned int"):
        toys.Split.spec.pack(3)
    assert (Pair(1, 2).a, Pair(1, 2).b) == (1, 2)
