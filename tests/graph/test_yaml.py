"""The YAML reader: what it refuses, where, and how soon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fopru_graph.graph import Graph, PipelineError, Problem, Ref, Registry, parse_value, validate_file
from fopru_graph.graph.yaml import tree

HEAD = "format: 1\n"
BODY = HEAD + "nodes:\n  a: {type: Echo, inputs: {value: VALUE}}\noutputs: {a: $a}\n"


def problems_of(text: str | bytes, registry: Registry) -> list[Problem]:
    try:
        return Graph.loads(text, registry).problems()
    except PipelineError as error:
        return error.problems


def places(text: str | bytes, registry: Registry) -> list[tuple[str, int | None]]:
    return [(problem.code, problem.line) for problem in problems_of(text, registry)]


BOMB = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n" for i in range(1, 30)
)

ATTACKS = {
    "two megabytes": (HEAD + "# " + "x" * 2_000_000 + "\n", "too-large", 1),
    "two megabytes of values": (HEAD + "ui: [" + "1, " * 330_000 + "1]\n", "too-many-values", 2),
    "depth 200": (HEAD + "ui: " + "[" * 200 + "]" * 200 + "\n", "too-deep", 2),
    "depth 100,000": (HEAD + "ui: " + "[" * 100_000 + "\n", "too-deep", 2),
    "depth 200 in blocks": (HEAD + "ui:\n" + "".join(" " * i + "a:\n" for i in range(1, 200)), "too-deep", 66),
    "depth by aliases": (
        HEAD
        + "a0: &a0 [[[[[[[[1]]]]]]]]\n"
        + "".join(f"a{i}: &a{i} [[[[[[[[*a{i - 1}]]]]]]]]\n" for i in range(1, 12)),
        "too-deep",
        9,
    ),
    "alias bomb": (HEAD + BOMB, "too-many-values", 6),
    "alias of itself": (HEAD + "ui: &a [1, *a]\n", "bad-structure", 2),
    "alias of nothing": (HEAD + "ui: [*a]\n", None, 2),
    "duplicate keys": (HEAD + "name: a\nname: b\n", "duplicate-key", 3),
    "tab": (HEAD + "nodes:\n\ta: 1\n", "syntax", 3),
    "utf-8 BOM": (b"\xef\xbb\xbf" + HEAD.encode(), "encoding", 1),
    "utf-16": (HEAD.encode("utf-16"), "encoding", 1),
    "invalid utf-8": (HEAD.encode() + b"name: \xff\n", "encoding", 2),
    "NUL": (HEAD + "name: a\x00b\n", "encoding", 2),
    "escape character": (HEAD + "\nname: a\x1bb\n", "encoding", 3),
    "python tag": (HEAD + "name: !!python/object/apply:os.system ['touch MARKER']\n", "yaml-tag", 2),
    "python name tag": (HEAD + "ui: {a: !!python/name:os.system }\n", "yaml-tag", 2),
    "harmless tag": (HEAD + "name: !!str 5\n", "yaml-tag", 2),
    "environment": (BODY.replace("VALUE", "'${env}'"), "bad-reference", 3),
    "environment unquoted": (BODY.replace("VALUE", "$HOME/x"), "bad-reference", 3),
    "price": (BODY.replace("VALUE", "$5"), "bad-reference", 3),
    "merge key": (HEAD + "ui:\n  <<: {a: 1}\n", "bad-structure", 3),
    "number as a key": (HEAD + "ui: {1: 2}\n", "bad-structure", 2),
    "list as a key": (HEAD + "ui: {[1]: 2}\n", "bad-structure", 2),
    "null as a key": (HEAD + "ui: {null: 2}\n", "bad-structure", 2),
    "two documents": (HEAD + "---\nformat: 1\n", "bad-structure", 2),
    "a list": ("- 1\n", "bad-structure", 1),
    "nothing": ("", "bad-structure", 1),
    "a colon in text": (HEAD + "name: a: b\n", "syntax", 2),
    "infinity": (BODY.replace("VALUE", ".inf"), "bad-value", 3),
    "not a number": (BODY.replace("VALUE", ".nan"), "bad-value", 3),
    "a float too large": (BODY.replace("VALUE", "1e999"), "bad-value", 3),
    "an integer of 30 digits": (BODY.replace("VALUE", "1" * 30), "bad-value", 3),
    "an integer of a million digits": (BODY.replace("VALUE", "1" * 1_000_000), "bad-value", 3),
}


@pytest.mark.parametrize("pure", [False, True], ids=["libyaml", "python"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gives_a_located_problem_within_a_second(name, pure, registry, monkeypatch, tmp_path):
    text, code, line = ATTACKS[name]
    if pure:
        if len(text) > 100_000:
            pytest.skip("the parser written in Python is slow on long texts")
        monkeypatch.setattr(tree, "_LOADER", yaml.SafeLoader)
    monkeypatch.chdir(tmp_path)
    begin = time.process_time()
    problems = problems_of(text, registry)
    assert time.process_time() - begin < 1
    first = next(problem for problem in problems if problem.severity == "error" and code in (None, problem.code))
    assert first.line == line
    assert not list(tmp_path.iterdir())


def test_a_huge_file_is_refused_before_it_is_read_whole(tmp_path):
    path = tmp_path / "big.yaml"
    with path.open("wb") as stream:
        stream.truncate(1 << 33)  # sparse: reading it would need eight gibibytes
    assert [problem.code for problem in validate_file(path)] == ["too-large"]


def test_a_tagged_file_executes_nothing(tmp_path):
    """Python's own audit events see every program start, import by tag and file opened for writing."""
    script = """
import sys
from fopru_graph.graph import Graph, PipelineError, Registry
bad = []
Graph.loads("format: 1\\nnodes: {a: {type: Load}}\\n", Registry()).problems()  # what is imported and compiled once
watched = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "exec", "compile", "import", "open")
sys.addaudithook(lambda event, args: bad.append((event, str(args))) if event in watched else None)
texts = %r
for text in texts:
    try:
        Graph.loads(text, Registry()).document_problems
    except PipelineError:
        pass
seen = [entry for entry in bad]
print(len(seen), seen[:3])
"""
    texts = [
        text if isinstance(text, str) else text.decode("latin-1")
        for name, (text, _, _) in ATTACKS.items()
        if len(text) < 9999
    ]
    texts += [
        f"format: 1\nui: !!python/{tag}\n" for tag in ("object/new:os.system [ls]", "module:this", "name:os.system ''")
    ]
    done = subprocess.run(
        [sys.executable, "-c", script % (texts,)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.stdout.startswith("0 "), done.stdout + done.stderr


def test_both_lines_of_a_duplicate_key_are_named(registry):
    [problem] = Graph.loads(HEAD + "nodes:\n  a: {type: Load}\n\n  a: {type: Text}\n", registry).document_problems
    assert (problem.code, problem.line) == ("duplicate-key", 5)
    assert "line 3" in problem.message


def test_a_tab_is_named_as_such(registry):
    [problem] = problems_of(HEAD + "nodes:\n\ta: 1\n", registry)
    assert "tab" in problem.message


def test_a_dollar_that_is_no_reference_tells_how_to_write_one(registry):
    problem = next(p for p in problems_of(BODY.replace("VALUE", "'${env}'"), registry) if p.code == "bad-reference")
    assert "$${env}" in (problem.hint or "")
    assert (problem.node, problem.input) == ("a", "value")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-0", 0), ("0x1F", 31), ("0o17", 15), ("017", 17),
        ("no", "no"), ("on", "on"), ("off", "off"), ("yes", "yes"), ("True", True), ("FALSE", False), ("~", None),
        ("null", None), ("12:30", "12:30"), ("2001-01-01", "2001-01-01"), ("1_000", "1_000"), ("'1'", "1"), ("=", "="),
        ("[1, [a, true]]", [1, ["a", True]]), ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("$$x", "$x"), ("$$$x", "$$x"), ("a$b", "a$b"),
        ("", None), ("|\n  a\n  b", "a\nb"), ("$x", Ref("x")),
        ("[$x.y]", [Ref("x", "y")]), ("9223372036854775807", 2**63 - 1),
    ],
)  # fmt: skip
def test_scalars_of_yaml_1_2(text, value):
    read = parse_value(text)
    assert read == value
    assert type(read) is type(value)


def test_references_may_stand_in_nested_lists_and_values_of_mappings(registry):
    graph = Graph.loads(BODY.replace("VALUE", "{k: [1, [$b.output, $$c]], $d: 2}"), registry)
    assert graph.nodes["a"].inputs["value"] == {"k": [1, [Ref("b", "output"), "$c"]], "$d": 2}


def test_aliases_of_plain_values_are_values(registry):
    graph = Graph.loads(
        HEAD + "nodes:\n  a: {type: Echo, inputs: {value: &v [1, 2]}}\n  b: {type: Echo, inputs: {value: *v}}\n"
    )
    assert graph.nodes["b"].inputs == {"value": [1, 2]}


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("name: x\n", "bad-format", 1),
        ("format: 2\n", "bad-format", 1),
        ("format: true\n", "bad-format", 1),
        ("format: [1]\n", "bad-format", 1),
        (HEAD + "node: {}\n", "unknown-key", 2),
        (HEAD + "nodes: [a]\n", "bad-structure", 2),
        (HEAD + "nodes:\n  a: Load\n", "bad-structure", 3),
        (HEAD + "nodes:\n  a: {inputs: {}}\n", "bad-structure", 3),
        (HEAD + "nodes:\n  a: {type: 3}\n", "bad-structure", 3),
        (HEAD + "nodes:\n  a: {type: Load, inputs: [1]}\n", "bad-structure", 3),
        (HEAD + "nodes:\n  a:\n    type: Load\n    input: {}\n", "unknown-key", 5),
        (HEAD + "nodes:\n  inputs: {type: Load}\n", "bad-name", 3),
        (HEAD + "nodes:\n  a.b: {type: Load}\n", "bad-name", 3),
        (HEAD + "nodes:\n  a: {type: Load, cache: memry}\n", "not-a-choice", 3),
        (HEAD + "inputs:\n  a: 3\n", "bad-structure", 3),
        (HEAD + "inputs:\n  a: {default: 3}\n", "bad-structure", 3),
        (HEAD + "inputs:\n  a: {type: strng}\n", "bad-value", 3),
        (HEAD + "inputs:\n  a: {type: int, default: x}\n", "bad-value", 3),
        (HEAD + "inputs:\n  a: {type: int, default: $b}\n", "bad-reference", 3),
        (HEAD + "outputs: {a: b}\n", "bad-reference", 2),
        (HEAD + "outputs: [a]\n", "bad-structure", 2),
        (HEAD + "description: 3\n", "bad-structure", 2),
    ],
)
def test_structure_of_the_document(text, code, line, registry):
    assert (code, line) in places(text, registry)


def test_a_graph_with_document_problems_neither_runs_nor_is_written(registry, calls):
    graph = Graph.loads(HEAD + "name: 3\nnodes:\n  a: {type: Load}\noutputs: {a: $a}\n", registry)
    for action in (graph.run, graph.dumps):
        with pytest.raises(PipelineError, match="name must be a text"):
            action()
    assert calls == []


def test_compose_reports_what_it_found_before_a_syntax_error():
    with pytest.raises(PipelineError) as caught:
        tree.compose("a: 1\na: 2\nb: [\n")
    assert [problem.code for problem in caught.value.problems] == ["duplicate-key", "syntax"]


def test_ui_is_kept_verbatim_and_ignored(registry):
    text = HEAD + "nodes:\n  a: {type: Load}\noutputs: {a: $a}\nui: {zoom: 1.5, note: $not a reference, a: [{x: 1}]}\n"
    graph = Graph.loads(text, registry)
    assert graph.problems() == []
    assert graph.ui == {"zoom": 1.5, "note": "$not a reference", "a": [{"x": 1}]}
    assert graph.dumps() == text
