"""Dumping and loading, as properties over random graphs and damaged files."""

from __future__ import annotations

import random
from typing import Any

import yaml
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from fopru_graph.graph import Graph, PipelineError, Ref, Registry
from tests.graph import toys

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
REGISTRY = Registry()
REGISTRY.add(*toys.ALL)

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,8}", fullmatch=True).filter(lambda name: name != "inputs")
tricky = st.sampled_from(
    [
        "",
        " ",
        "a b",
        "null",
        "~",
        "true",
        "no",
        "1e-3",
        "0x1F",
        "1.",
        ".5",
        ".inf",
        "-",
        "- a",
        "a: b",
        "a:",
        ":a",
        "a #b",
        "#",
    ]
    + [
        "$x",
        "$$x",
        "${env}",
        "$",
        "a$b",
        "<<",
        "=",
        "---",
        "...",
        "a,b",
        "[a]",
        "{a}",
        "!t",
        "&a",
        "*a",
        "%a",
        "@a",
        "`a",
    ]
    + [
        "a\nb",
        "a\tb",
        "\t",
        "\x00",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x7f",
        "é ü",
        "日本",
        "😀",
        "'",
        '"',
        "\\",
        "? a",
        "a ?",
        "|",
    ]
    + ["x" * 130, "what does the text say ?", "demo:street-sign", "a  b", " a", "a ", "\r\n", "12:30", "²", "٣"]
)
texts = st.one_of(tricky, st.text(max_size=12))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
refs = st.builds(Ref, names, st.one_of(st.none(), names)) | st.builds(Ref, st.just("inputs"), names)
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
values = st.recursive(
    scalars | refs, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph(draw(texts), draw(texts), REGISTRY)
    for name in draw(st.lists(names, max_size=3, unique=True)):
        graph.input(name, draw(st.sampled_from(["str", "int", "list[str]", "json"])), draw(plain))
    for name in draw(st.lists(names, max_size=4, unique=True)):
        graph.add("Echo", name, value=draw(values))
        graph.nodes[name].cache = draw(st.sampled_from([None, "disk", "never"]))
        graph.nodes[name].comment = draw(st.one_of(st.none(), texts))
    for name in draw(st.lists(names, max_size=2, unique=True)):
        graph.output(name, draw(refs))
    graph.ui = draw(plain)
    return graph


@SETTINGS
@given(graphs())
def test_a_dumped_graph_loads_as_an_equal_graph_and_dumps_to_the_same_bytes(graph):
    text = graph.dumps()
    note(repr(text))
    loaded = Graph.loads(text.encode(), REGISTRY)
    assert loaded.document_problems == []
    assert loaded == graph
    assert loaded.dumps() == text


VALID = """\
format: 1
name: example
description: A pipeline, with everything in it.
inputs:
  size:  {type: int, default: 4}
  words: {type: "list[str]", default: [a, "b c"]}
nodes:
  load:  {type: Load, inputs: {size: $inputs.size}}
  split: {type: Split, inputs: {picture: $load}, comment: "two, halves"}
  score: {type: Score, inputs: {picture: $split.low, scale: 2.5}}
  keep:
    type: Keep
    inputs:
      scores: $score
      ratio: 0.5
      order: first
  total: {type: Total, inputs: {values: $keep}, cache: disk}
  text:  {type: Join, inputs: {texts: $inputs.words}}
outputs: {total: $total, text: $text}
ui: {zoom: 1}
"""
PIECES = [
    "$",
    "$$",
    "[",
    "]",
    "{",
    "}",
    ":",
    ": ",
    ",",
    "&a ",
    "*a",
    "!!str ",
    "\n",
    "\t",
    "  ",
    "-",
    '"',
    "'",
    "#",
    "1e9",
    "null",
]
PIECES += [
    "load",
    "split",
    "inputs",
    "nodes",
    "type",
    "picture",
    "$split",
    "$load.x",
    "\x00",
    "\ufeff",
    "é",
    "<<",
    "...",
    "---\n",
]


def damaged(seed: int) -> str:
    """The valid file after a few random cuts, insertions, swaps of lines and repetitions."""
    chance = random.Random(seed)
    text = VALID
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 3, 10, 40]))
        lines = text.splitlines(keepends=True)
        kind = chance.randrange(4)
        if kind == 0:
            text = text[:start] + text[end:]
        elif kind == 1:
            text = text[:start] + chance.choice(PIECES) + text[end:]
        elif kind == 2:
            text = text[:start] + text[start:end] * 2 + text[end:]
        else:
            chance.shuffle(lines)
            text = "".join(lines)
    return text


def problems_or_equal(text: str) -> None:
    """The text gives located problems, or a graph that reads back as itself."""
    try:
        graph = Graph.loads(text, REGISTRY)
        problems = graph.problems()
    except PipelineError as error:
        problems = error.problems
        graph = Graph()
    assert all(problem.line is not None for problem in problems if problem.code != "no-outputs")
    if graph.nodes and not any(problem.severity == "error" for problem in problems):
        assert Graph.loads(graph.dumps(), REGISTRY) == graph


@settings(SETTINGS, max_examples=1200)
@given(st.integers(0, 2**32))
def test_a_damaged_file_gives_problems_or_a_graph_and_never_an_exception(seed):
    problems_or_equal(damaged(seed))


KEYS = [*("format", "name", "description", "inputs", "nodes", "outputs", "ui", "type", "default", "cache", "comment")]
KEYS += ["load", "score", "scores", "size", "ratio", "picture", "x", "", "1", "$x", "a b", "é"]
LEAVES = [
    None,
    True,
    False,
    0,
    1,
    -7,
    10**30,
    0.5,
    1e300,
    "",
    "demo",
    "$load",
    "$load.output",
    "$inputs.x",
    "$$5",
    "${env}",
]
LEAVES += [
    "Load",
    "Score",
    "Keep",
    "Loda",
    "str",
    "path",
    "int",
    "./block.yaml",
    "never",
    "\n",
    "a: b",
    "!!str",
    "no",
    "1e3",
]


def tree(chance: random.Random, depth: int) -> Any:
    """A random tree of the words that pipelines are made of, seldom in the right places."""
    kind = chance.random()
    if depth == 0 or kind < 0.3:
        return chance.choice(LEAVES)
    if kind < 0.45:
        return [tree(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(KEYS): tree(chance, depth - 1) for _ in range(chance.randrange(5))}


def document(seed: int) -> str:
    """A random tree as YAML; three in four look like a pipeline at the top, so that the reader gets deep into them."""
    chance = random.Random(seed)
    data = tree(chance, 5)
    if chance.random() < 0.75:
        data = {"format": chance.choice([1, 1, 1, 2, "1"]), "nodes": tree(chance, 4), "outputs": tree(chance, 2)}
        data |= {"inputs": tree(chance, 3)} if chance.random() < 0.5 else {}
    return yaml.safe_dump(
        data, allow_unicode=True, sort_keys=False, default_flow_style=chance.choice([None, True, False])
    )


@settings(SETTINGS, max_examples=1200)
@given(st.integers(0, 2**32))
def test_a_random_tree_gives_problems_or_a_graph_and_never_an_exception(seed):
    problems_or_equal(document(seed))


def test_the_undamaged_file_is_valid_and_byte_stable():
    graph = Graph.loads(VALID, REGISTRY)
    assert graph.problems() == []
    short = VALID.replace('"b c"', "b c").replace(
        VALID[VALID.index("  keep:") : VALID.index("  total")],
        "  keep:  {type: Keep, inputs: {scores: $score, ratio: 0.5, order: first}}\n",
    )
    assert graph.dumps() == short


def test_the_layout_of_a_dumped_file():
    graph = Graph("fopru", "Keep half, then answer.", REGISTRY)
    size = graph.input("size", "int", 4)
    prompt = graph.input("prompt", "str", "what does the text say ?")
    score = graph.Score(picture=graph.Load(size=size), scale=0.5)
    text = graph.Join(texts=[prompt, "x" * 80], by="no", id="a_longer_name")
    graph.output("score", score)
    graph.output("text", text)
    assert (
        graph.dumps()
        == f"""\
format: 1
name: fopru
description: Keep half, then answer.
inputs:
  size:   {{type: int, default: 4}}
  prompt: {{type: str, default: "what does the text say ?"}}
nodes:
  load:          {{type: Load, inputs: {{size: $inputs.size}}}}
  score:         {{type: Score, inputs: {{picture: $load, scale: 0.5}}}}
  a_longer_name:
    type: Join
    inputs:
      texts: [$inputs.prompt, {"x" * 80}]
      by: no
outputs: {{score: $score, text: $a_longer_name}}
"""
    )
