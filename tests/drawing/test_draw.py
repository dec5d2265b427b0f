"""Pictures of pipelines: complete, legible, the same every time, and harmless whatever a pipeline's texts hold."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageFont

from fopru_graph.drawing import FORMATS, draw
from fopru_graph.drawing.style import DARK, LIGHT, NEUTRAL, Ground, accent, fill, text_width
from fopru_graph.graph import Graph, Node, Outputs, Registry, node
from fopru_graph.graph.model import GraphNode, PipelineInput, PipelineOutput
from fopru_graph.graph.values import Ref

PIPELINES = Path(__file__).parents[2] / "pipelines"
SVG = "{http://www.w3.org/2000/svg}"


class Thing:
    """A value that only links can carry."""


class Pair(Outputs):
    """Two outputs."""

    first: Thing
    second: Thing


@node(category="load")
class Make(Node):
    """Make a <thing> & more."""

    def run(self, text: str = "plain", ratio: float = 0.5, names: list[str] | None = None) -> Thing:
        return Thing()


@node(category="flow")
class Both(Node):
    """Take any things, give two."""

    def run(self, things: list[Thing] | Thing | None = None, other: Thing | None = None) -> Pair:
        return Pair(Thing(), Thing())


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add(Make, Both)
    return registry


@pytest.fixture
def small(registry: Registry) -> Graph:
    graph = Graph("small", registry=registry)
    text = graph.input("text", "str", "hello world")
    made = graph.add("Make", "made", text=text, ratio=0.25)
    other = graph.add("Make", "other", ratio=0.5)
    both = graph.add("Both", "both", things=[made, other], other=made)
    last = graph.add("Both", "last", things=both.first, other=both.second)
    graph.output("result", last.second)
    return graph


# -- reading the SVG again --------------------------------------------------------------------------------------------


def parse(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    return root


def shapes(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    return {group.attrib["id"]: group for group in root.findall(f"{SVG}g") if "id" in group.attrib}


def links(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [group for group in root.findall(f"{SVG}g") if "data-from" in group.attrib]


def link_ends(root: ElementTree.Element) -> list[tuple[str, str, str]]:
    names = {key: texts(group)[0] for key, group in shapes(root).items()}
    found = [link.attrib for link in links(root)]
    return [(names[one["data-from"]], names[one["data-to"]], one["data-input"]) for one in found]


def texts(group: ElementTree.Element, css: str | None = None) -> list[str]:
    found = [text for text in group.findall(f"{SVG}text") if css is None or text.attrib["class"] == css]
    order = {"name": 0, "type": 1}
    return [text.text or "" for text in sorted(found, key=lambda text: order.get(text.attrib["class"], 2))]


def frame(group: ElementTree.Element) -> tuple[float, float, float, float]:
    box = next(rect for rect in group.findall(f"{SVG}rect") if rect.attrib["class"] == "box")
    left, top, width, height = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
    return left, top, left + width, top + height


def points(path: str) -> Iterator[tuple[float, float]]:
    """Points along a path, near enough to each other to find a box in between."""
    at = (0.0, 0.0)
    for command, arguments in re.findall(r"([MVHCq])([^MVHCq]*)", path):
        numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", arguments)]
        if command == "V":
            numbers = [at[0], *numbers]
        elif command == "H":
            numbers = [*numbers, at[1]]
        elif command == "q":
            numbers = [number + at[index % 2] for index, number in enumerate(numbers)]
        corners = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command == "M":
            yield corners[0]
        else:
            yield from (bezier([at, *corners], step / 100) for step in range(1, 101))
        at = corners[-1]


def bezier(corners: list[tuple[float, float]], share: float) -> tuple[float, float]:
    while len(corners) > 1:
        pairs = zip(corners, corners[1:], strict=False)
        corners = [(x + (end_x - x) * share, y + (end_y - y) * share) for (x, y), (end_x, end_y) in pairs]
    return corners[0]


Frames = dict[str, tuple[float, float, float, float]]


def assert_well_laid_out(root: ElementTree.Element) -> None:
    """No two boxes overlap, nothing leaves the picture, and every link leads past all boxes to its target."""
    frames = {key: frame(group) for key, group in shapes(root).items()}
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for left, top, right, bottom in frames.values():
        assert left >= 0 and top >= 0 and right <= width and bottom <= height
    for one, other in combinations(frames, 2):
        assert not overlap(frames[one], frames[other]), f"{one} and {other} overlap"
    trunks: dict[str, list[tuple[float, float]]] = {key: [] for key in frames}
    for trunk in root.findall(f"{SVG}path"):
        way = list(points(trunk.attrib["d"]))
        assert_clear(way, frames, width, height)
        assert starts_below(way[0], frames[trunk.attrib["data-trunk"]])
        trunks[trunk.attrib["data-trunk"]] += way
    for link in links(root):
        line, tip = link.findall(f"{SVG}path")
        way = list(points(line.attrib["d"]))
        assert_clear(way, frames, width, height)
        on_trunk = any(math.dist(way[0], point) < 0.2 for point in trunks[link.attrib["data-from"]])
        assert on_trunk or starts_below(way[0], frames[link.attrib["data-from"]])
        assert_points_at(tip, way[-1], frames[link.attrib["data-to"]])


def starts_below(point: tuple[float, float], source: tuple[float, float, float, float]) -> bool:
    return source[0] < point[0] < source[2] and abs(point[1] - source[3]) < 0.2


def assert_points_at(
    tip: ElementTree.Element, end: tuple[float, float], target: tuple[float, float, float, float]
) -> None:
    x, y = map(float, re.findall(r"-?[\d.]+", tip.attrib["d"])[:2])
    assert target[0] < x < target[2]
    assert abs(y - target[1]) < 0.2
    assert abs(end[0] - x) < 0.2
    assert 0 < y - end[1] < 10


def assert_clear(way: list[tuple[float, float]], frames: Frames, width: float, height: float) -> None:
    for x, y in way:
        assert 0 <= x <= width
        assert 0 <= y <= height
        for left, top, right, bottom in frames.values():
            assert not (left < x < right and top + 0.2 < y < bottom - 0.2), f"the link runs through a box at {x}, {y}"


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


# -- what is drawn ----------------------------------------------------------------------------------------------------


def test_formats() -> None:
    assert FORMATS == ("mermaid", "dot", "svg")


def test_other_format_is_refused(small: Graph) -> None:
    with pytest.raises(ValueError, match="mermaid, dot, svg"):
        draw(small, "png")


def kinds(root: ElementTree.Element) -> list[tuple[str, ...]]:
    groups = shapes(root).values()
    return [(group.attrib["class"].split()[0], *texts(group, "name"), *texts(group, "type")) for group in groups]


def test_svg_shows_every_shape_with_its_type(small: Graph) -> None:
    assert kinds(parse(draw(small, "svg"))) == [
        ("input", "text", 'str = "hello world"'),
        ("node", "made", "Make"),
        ("node", "other", "Make"),
        ("node", "both", "Both"),
        ("node", "last", "Both"),
        ("output", "result"),
    ]


def test_literals_are_shown_as_the_pipeline_gives_them(small: Graph) -> None:
    small.set("made.names", ["a", "b"])
    small.set("other.text", "plain")
    details = {texts(group)[0]: texts(group, "detail") for group in shapes(parse(draw(small, "svg"))).values()}
    assert details["made"] == ["ratio: 0.25", 'names: ["a", "b"]']
    assert "text: plain" in details["other"]  # also where it is what it would be anyway
    for form in ("mermaid", "dot"):
        assert "0.25" in draw(small, form)


LINKS = [
    ("text", "made", "text"),
    ("made", "both", "things[0]"),
    ("other", "both", "things[1]"),
    ("made", "both", "other"),
    ("both", "last", "things"),
    ("both", "last", "other"),
    ("last", "result", ""),
]


def test_svg_has_every_link_with_its_input_and_output_named(small: Graph) -> None:
    root = parse(draw(small, "svg"))
    assert sorted(link_ends(root)) == sorted(LINKS)
    sockets = {texts(group)[0]: sorted(texts(group, "socket")) for group in shapes(root).values()}
    assert sockets["both"] == ["first", "other", "second", "things"]
    assert sockets["made"] == ["text"]  # the sole output needs no name
    assert sockets["last"] == ["other", "second", "things"]


def test_mermaid_has_every_link(registry: Registry) -> None:
    graph = Graph("g", registry=registry)
    both = graph.add("Both", "both", things=[graph.add("Make", "made")])
    graph.output("out", both.first)
    assert draw(graph, "mermaid").splitlines()[:6] == [
        "flowchart TD",
        '  n0["made<br/>Make"]',
        '  n1["both<br/>Both"]',
        '  o2(["out"])',
        '  n0 -->|"things#91;0#93;"| n1',
        '  n1 -->|"first"| o2',
    ]


def test_dot_has_every_link(small: Graph) -> None:
    text = draw(small, "dot")
    names = dict(re.findall(r'^  (\w+) \[label="(\w+)', text, re.MULTILINE))
    found = re.findall(r'^  (\w+) -> (\w+) \[label="([^"]*)"', text, re.MULTILINE)
    assert sorted((names[one], names[other], label.split(" → ")[-1]) for one, other, label in found) == sorted(
        (one, other, label or "second") for one, other, label in LINKS
    )
    assert ("first → things") in {label for *_, label in found}


def test_every_node_has_a_tooltip_with_its_documentation(small: Graph) -> None:
    titles = [group.findtext(f"{SVG}title") for group in shapes(parse(draw(small, "svg"))).values()]
    assert "made: Make\nMake a <thing> & more.\nratio: 0.25" in titles


def test_long_texts_are_cut_but_complete_in_the_tooltip(small: Graph) -> None:
    small.set("made.text", "x" * 5000)
    root = parse(draw(small, "svg"))
    made = next(group for group in shapes(root).values() if texts(group)[0] == "made")
    assert any(detail.startswith("text: xx") and detail.endswith("…") for detail in texts(made, "detail"))
    assert "x" * 5000 in (made.findtext(f"{SVG}title") or "")
    assert float(root.attrib["width"]) < 1000


def test_run_states_are_words_and_a_failure_is_framed(small: Graph) -> None:
    states = {"made": "done", "other": "cached", "both": "failed", "nobody": "done"}
    root = parse(draw(small, "svg", states))
    shown = {texts(group)[0]: texts(group, "state") for group in shapes(root).values()}
    assert shown == {"text": [], "made": ["done"], "other": ["cached"], "both": ["failed"], "last": [], "result": []}
    assert [texts(group)[0] for group in shapes(root).values() if "failed" in group.attrib["class"].split()] == ["both"]
    assert "(cached)" in draw(small, "dot", states)
    assert re.search(r"class n\d+ failed", draw(small, "mermaid", states))
    assert_well_laid_out(root)


def test_a_sub_graph_is_one_node_with_the_state_of_its_nodes(registry: Registry) -> None:
    graph = Graph("outer", registry=registry)
    graph.add("./block.yaml", "block", text="hi")
    graph.output("out", Ref("block", "thing"))
    root = parse(draw(graph, "svg", {"block/one": "done", "block/two": "failed"}))
    assert kinds(root) == [("node", "block", "./block.yaml"), ("output", "out")]
    block = shapes(root)["n0"]
    assert [texts(block, css) for css in ("state", "socket", "detail")] == [["failed"], ["thing"], ["text: hi"]]


# -- layout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_pipelines_are_well_laid_out(path: Path) -> None:
    graph = Graph.load(path)
    root = parse(draw(graph, "svg"))
    assert_well_laid_out(root)
    assert len(shapes(root)) == len(graph.inputs) + len(graph.nodes) + len(graph.outputs)
    assert float(root.attrib["width"]) <= 960  # of a page's column: no text gets much smaller
    assert not any("missing" in group.attrib["class"] for group in shapes(root).values())


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_text_leaves_its_box_in_the_widest_font(path: Path) -> None:
    """Measured with DejaVu Sans, the widest of the fonts that the style sheet can lead to."""
    for group in shapes(parse(draw(Graph.load(path), "svg", {"generate": "failed"}))).values():
        left, top, right, bottom = frame(group)
        for text in group.findall(f"{SVG}text"):
            x, y, width = float(text.attrib["x"]), float(text.attrib["y"]), real_width(text)
            assert left + 2 <= x - width / 2
            assert x + width / 2 <= right - 2
            assert top + 7 < y < bottom - 2
        rows: dict[str, list[tuple[float, float]]] = {}
        for text in group.findall(f"{SVG}text"):
            x, width = float(text.attrib["x"]), real_width(text)
            rows.setdefault(text.attrib["y"], []).append((x - width / 2, x + width / 2))
        for spans in map(sorted, rows.values()):
            assert all(one[1] + 3 < other[0] for one, other in zip(spans, spans[1:], strict=False))


SIZES = {"name": 13.0, "type": 11.0, "detail": 10.5, "socket": 9.5, "state": 9.5}


def font(css: str) -> ImageFont.FreeTypeFont:
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0], "mpl-data", "fonts", "ttf")
    bold, mono = "-Bold" if css in ("name", "state") else "", "Mono" if css in ("detail", "socket") else ""
    return ImageFont.truetype(str(folder / f"DejaVuSans{mono}{bold}.ttf"), 100)


def real_width(text: ElementTree.Element) -> float:
    css = text.attrib["class"]
    return font(css).getlength(text.text or "") * SIZES[css] / 100


def test_sizes_of_the_style_sheet_are_those_that_are_measured(small: Graph) -> None:
    style = parse(draw(small, "svg")).findtext(f"{SVG}style") or ""
    assert {css: float(size) for css, size in re.findall(r"\.(\w+)\{font-size:([\d.]+)px", style)} == SIZES


@given(st.text(st.characters(codec="latin-1", exclude_categories=["C"]), min_size=1, max_size=60))
def test_estimated_width_is_never_too_small(text: str) -> None:
    assert text_width(text, 100) >= font("type").getlength(text) * 0.97
    assert text_width(text, 100, bold=True) >= font("name").getlength(text) * 0.97
    assert text_width(text, 100, mono=True) >= font("detail").getlength(text) * 0.97


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=24), st.integers(1, 10))
def test_any_graph_is_well_laid_out(pairs: list[tuple[int, int]], count: int) -> None:
    """Cycles, links to oneself and links to nodes that do not exist included."""
    registry = Registry()
    registry.add(Make, Both)
    graph = Graph("any", registry=registry)
    for number in range(count):
        reads = [Ref(f"m{source}", "first") for source, target in pairs if target == number]
        graph.put(GraphNode(f"m{number}", "Both", {"things": reads[:2], "other": reads[2:]}))
    root = parse(draw(graph, "svg"))
    assert_well_laid_out(root)
    drawn = [(f"m{source}", f"m{target}") for source, target in pairs if target < count]
    assert sorted((source, target) for source, target, _ in link_ends(root)) == sorted(drawn)


def test_a_chain_of_two_thousand_nodes_that_all_read_the_first(registry: Registry) -> None:
    graph = Graph("chain", registry=registry)
    graph.put(GraphNode("n0", "Make"))
    for number in range(1, 2000):
        graph.put(GraphNode(f"n{number}", "Both", {"things": Ref(f"n{number - 1}", "first"), "other": Ref("n0")}))
    root = parse(draw(graph, "svg"))
    tops = [frame(group)[1] for group in shapes(root).values()]
    assert len(tops) == 2000
    assert all(one < other for one, other in zip(tops, tops[1:], strict=False))
    assert len(links(root)) == 2 * 1999
    assert draw(graph, "mermaid").count("-->") == draw(graph, "dot").count("->") == 2 * 1999


def test_two_thousand_nodes_beside_each_other(registry: Registry) -> None:
    graph = Graph("wide", registry=registry)
    for number in range(2000):
        graph.put(GraphNode(f"n{number}", "Make", {"text": Ref("inputs", "missing")}))
    groups = shapes(parse(draw(graph, "svg"))).values()
    frames = sorted(frame(group) for group in groups if "node" in group.attrib["class"])
    assert len(frames) == 2000
    assert all(one[2] < other[0] for one, other in zip(frames, frames[1:], strict=False))


def test_a_cycle_is_drawn_and_leads_back_up(registry: Registry) -> None:
    graph = Graph("cycle", registry=registry)
    graph.put(GraphNode("a", "Both", {"things": Ref("c", "first")}))
    graph.put(GraphNode("b", "Both", {"things": Ref("a", "first")}))
    graph.put(GraphNode("c", "Both", {"things": Ref("b", "first"), "other": Ref("c", "second")}))
    root = parse(draw(graph, "svg"))
    assert sorted(link_ends(root)) == [
        ("a", "b", "things"), ("b", "c", "things"), ("c", "a", "things"), ("c", "c", "other"),
    ]  # fmt: skip
    assert_well_laid_out(root)


def test_what_does_not_exist_is_dashed(registry: Registry) -> None:
    graph = Graph("dangling", registry=registry)
    graph.put(GraphNode("a", "Both", {"things": Ref("ghost", "mist"), "other": Ref("inputs", "nothing")}))
    graph.put(GraphNode("b", "Bothh"))
    graph.put(GraphNode("c", ""))
    graph.output("out", Ref("phantom"))
    root = parse(draw(graph, "svg"))
    missing = [group for group in shapes(root).values() if "missing" in group.attrib["class"]]
    dashed = {texts(group)[0]: texts(group, "type") for group in missing}
    assert dashed == {
        "ghost": ["missing"], "nothing": ["missing"], "phantom": ["missing"],
        "b": ["Bothh (unknown)"], "c": ["no type (unknown)"],
    }  # fmt: skip
    assert "stroke-dasharray" in (root.findtext(f"{SVG}style") or "")
    assert re.search(r"class n\d+(,\w+){4} missing", draw(graph, "mermaid"))
    assert draw(graph, "dot").count("dashed") == 5
    assert_well_laid_out(root)


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_graph_has_a_picture(form: str, registry: Registry) -> None:
    text = draw(Graph(registry=registry), form)
    assert text.endswith("\n")
    if form == "svg":
        parse(text)


def test_a_file_with_mistakes_is_drawn(registry: Registry) -> None:
    text = "format: 1\nnodes:\n  a b: {type: Make, inputs: {text: $5, ratio: [$a, 1]}}\n  c: 5\noutputs: {x: 3}\n"
    root = parse(draw(Graph.loads(text, registry), "svg"))
    details = {texts(group)[0]: texts(group, "detail") for group in shapes(root).values()}
    assert details["a b"] == ['text: "?"', 'ratio: ["$a", 1]']


# -- texts that mean harm ---------------------------------------------------------------------------------------------

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "]]></style><script>alert(1)</script>",
    "a\nb\r\nc",
    "\x00\x08\x1b\ufffe\ud800",
    "&lt;b&gt; &#38;",
    '"]; evil [label="x',
    'x"]\n  click n0 call alert()',
    "%%{init: {'securityLevel': 'loose'}}%%",
    "#quot;#59; `code` **bold**",
    "back\\slash\\",
    "\u202eright to left",
    "漢字 and 🎉",
]


@pytest.fixture(params=ATTACKS, ids=range(len(ATTACKS)))
def attack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hostile(attack: str, registry: Registry) -> Graph:
    """A graph that has the attack in every text that an author can write."""
    graph = Graph(attack, attack, registry)
    graph.inputs[attack] = PipelineInput(attack, attack)
    graph.put(GraphNode(attack, "Make", {"text": attack, attack: attack}, comment=attack))
    values = [Ref(attack, attack), Ref("inputs", attack), attack]
    graph.put(GraphNode("plain", attack, {attack: values}, comment=attack))
    graph.outputs[attack] = PipelineOutput(Ref("plain", attack))
    return graph


def states(graph: Graph) -> dict[str, str]:
    return dict.fromkeys(graph.nodes, graph.name)


def test_svg_holds_hostile_texts_as_text(attack: str, hostile: Graph) -> None:
    text = draw(hostile, "svg", states(hostile))
    root = parse(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags == {"svg", "title", "style", "rect", "g", "text", "path"}
    assert {name for element in root.iter() for name in element.attrib} <= {
        "width", "height", "viewBox", "role", "aria-label", "class", "x", "y", "rx", "id", "d",
        "data-from", "data-to", "data-input", "data-trunk",
    }  # fmt: skip
    assert_well_laid_out(root)
    assert {shape.attrib["id"] for shape in shapes(root).values()} == {"i0", "n1", "n2", "o3"}
    if attack.isprintable():
        assert f"{attack}: Make" in (shapes(root)["n1"].findtext(f"{SVG}title") or "")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\ufffe\ud800-\udfff]", text)
    text.encode()


QUOTED = r'"(?:[^"\\\n]|\\["\\n])*"'
DOT_LINE = re.compile(rf"digraph {QUOTED} \{{|\}}|  (?:\w+(?: -> \w+)? \[\w+={QUOTED}(?:, \w+=(?:{QUOTED}|\d+))*\])")
HARMLESS = r"(?:[A-Za-z0-9 _.,=/()+-]|[^\W\d_]|#\d+;)*"
LABEL = rf"{HARMLESS}(?:<br/>{HARMLESS})*"
MERMAID_LINE = re.compile(
    rf'flowchart TD|  [nio]\d+(?:\["{LABEL}"\]|\(\["{LABEL}"\]\))|  [nio]\d+ -->(?:\|"{HARMLESS}"\|)? [nio]\d+'
    r"|  classDef \w+ [\w:#, -]+|  class [\w,]+ \w+"
)


def test_mermaid_holds_hostile_texts_as_text(attack: str, hostile: Graph) -> None:
    text = draw(hostile, "mermaid", states(hostile))
    for line in text.splitlines():
        assert MERMAID_LINE.fullmatch(line), line
    if attack.isprintable():
        name = re.search(r'n1\["(.*?)<br/>', text)
        assert name is not None
        assert re.sub(r"#(\d+);", lambda match: chr(int(match[1])), name[1]) == attack
    text.encode()


def test_dot_holds_hostile_texts_as_text(attack: str, hostile: Graph) -> None:
    text = draw(hostile, "dot", states(hostile))
    head, _rankdir, _node, _edge, *rest = text.splitlines()
    for line in (head, *rest):
        assert DOT_LINE.fullmatch(line), line
    if attack.isprintable():
        plain = head.removeprefix('digraph "').removesuffix('" {')
        assert re.sub(r"\\(.)", r"\1", plain).replace("&amp;", "&") == attack
    text.encode()


# -- always the same --------------------------------------------------------------------------------------------------


def test_the_same_text_in_every_process() -> None:
    code = (
        "import sys; from fopru_graph.graph import Graph; from fopru_graph.drawing import FORMATS, draw\n"
        "graph = Graph.load(sys.argv[1]); sys.stdout.write(''.join(draw(graph, form) for form in FORMATS))\n"
        "assert 'torch' not in sys.modules"
    )
    path = str(PIPELINES / "fopru_fastv.yaml")
    found = set()
    for seed in ("4242",):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(PIPELINES.parent), "PYTHONIOENCODING": "utf-8"}
        command = [sys.executable, "-c", code, path]
        found.add(subprocess.run(command, env=env, capture_output=True, text=True, check=True, encoding="utf-8").stdout)
    graph = Graph.load(path)
    assert found == {"".join(draw(graph, form) for form in FORMATS)}


def test_drawing_leaves_the_graph_alone(small: Graph) -> None:
    before = small.copy()
    for form in FORMATS:
        draw(small, form)
    assert small == before


# -- colours ----------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    channels = [channel / 255 for channel in bytes.fromhex(colour[1:])]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("index", range(NEUTRAL + 1))
def test_contrast_meets_the_accessibility_guidelines(ground: Ground, index: int) -> None:
    """WCAG: 4.5 to 1 for text, 3 to 1 for what else must be seen."""
    for text in (ground.text, ground.muted):
        assert contrast(text, fill(index, ground)) >= 4.5
    assert contrast(accent(index, ground), ground.panel) >= 3
    assert contrast(accent(index, ground), fill(index, ground)) >= 3
    for badge in (ground.done, ground.failed, ground.muted):
        assert contrast(ground.panel, badge) >= 4.5


def test_hues_are_distinct() -> None:
    for ground in (LIGHT, DARK):
        assert len({accent(index, ground) for index in range(NEUTRAL + 1)}) == NEUTRAL + 1


def test_a_category_has_the_same_colour_in_every_picture(registry: Registry) -> None:
    for number in range(3):
        graph = Graph(registry=registry)
        for _ in range(number):
            graph.add("Both")
        graph.add("Make", "made")
        made = next(group for group in shapes(parse(draw(graph, "svg"))).values() if texts(group)[0] == "made")
        assert made.attrib["class"] == "node c0"
