"""The PNG of a pipeline: the SVG's geometry, texts and colours, in pixels."""

from __future__ import annotations

import io
import math
import re
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageColor

from fopru_graph.drawing import draw, draw_png
from fopru_graph.drawing.png import _curve, _points
from fopru_graph.drawing.style import LIGHT, NEUTRAL, accent, colour_index, fill
from fopru_graph.graph import Graph
from tests.test_cli import python

PIPELINES = Path(__file__).parents[2] / "pipelines"
SVG = "{http://www.w3.org/2000/svg}"


def opened(graph: Graph, states: dict[str, str] | None = None) -> Image.Image:
    return Image.open(io.BytesIO(draw_png(graph, states)))


@pytest.fixture(scope="module")
def pipeline() -> Graph:
    return Graph.load(PIPELINES / "downsample.yaml")


def test_it_has_two_pixels_for_each_of_the_svg_and_is_the_same_every_time(pipeline):
    root = ElementTree.fromstring(draw(pipeline, "svg"))
    size = tuple(round(2 * float(root.attrib[side])) for side in ("width", "height"))
    assert opened(pipeline).size == size
    assert draw_png(pipeline) == draw_png(pipeline)


def test_every_box_is_where_the_svg_has_it_in_the_colours_of_its_category(pipeline):
    picture = opened(pipeline)
    boxes = ElementTree.fromstring(draw(pipeline, "svg")).findall(f"{SVG}g[@id]")
    assert len(boxes) == 15
    for box in boxes:
        rect = box.find(f"{SVG}rect[@class='box']")
        assert rect is not None
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        hue = int(re.findall(r"\bc(\d+)", box.attrib["class"])[0])
        inside = picture.getpixel((round(2 * (x + 9)), round(2 * (y + height / 2))))
        edge = picture.getpixel((round(2 * x) + 1, round(2 * (y + height / 2))))
        assert inside == ImageColor.getrgb(fill(hue))
        assert math.dist(edge, ImageColor.getrgb(accent(hue))) < 60
    assert picture.getpixel((8, picture.height // 2)) == ImageColor.getrgb(LIGHT.panel)


def test_texts_and_states_are_drawn():
    plain, told = Graph("one"), Graph("one")
    for graph, name in ((plain, "a"), (told, "aaaaaaaa")):
        graph.add("LoadModel", name)
    ink = ImageColor.getrgb(LIGHT.text)
    count = [Counter(opened(graph).get_flattened_data())[ink] for graph in (plain, told)]
    assert 0 < count[0] < count[1]
    pixels = set(opened(plain, {"a": "failed"}).get_flattened_data())
    assert ImageColor.getrgb(LIGHT.failed) in pixels and accent(colour_index("load")) != LIGHT.failed


def test_what_is_missing_is_dashed():
    graph = Graph.loads("format: 1\nnodes: {x: {type: NoSuchType}}\n")
    picture = opened(graph)
    rect = ElementTree.fromstring(draw(graph, "svg")).find(f".//{SVG}rect[@class='box']")
    assert rect is not None
    y, left = round(2 * float(rect.attrib["y"])), float(rect.attrib["x"]) + 10
    row = [picture.getpixel((round(2 * left + step), y)) for step in range(0, 120)]
    ink = ImageColor.getrgb(accent(NEUTRAL))
    dashes = "".join("#" if math.dist(pixel, ink) < 90 else "." for pixel in row)
    assert len(re.findall("#+", dashes)) > 4 and len(re.findall(r"\.+", dashes)) > 4


def test_a_curve_is_that_of_bernstein():
    ends = [(0.0, 0.0), (1.0, 5.0), (4.0, -2.0), (6.0, 3.0)]
    for step, point in enumerate(_curve(ends), 1):
        t = step / 24
        weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
        for axis in (0, 1):
            assert point[axis] == pytest.approx(sum(w * end[axis] for w, end in zip(weights, ends, strict=True)))


def test_a_path_is_followed_relative_and_absolute():
    points = list(_points("M1,2 V4 H-3 l2,0.5 -1,1 q0,2 2,2 z"))
    assert points[:5] == [(1, 2), (1, 4), (-3, 4), (-1, 4.5), (-2, 5.5)]
    assert points[-1] == pytest.approx((0, 7.5))


def test_matplotlib_is_not_loaded():
    code = (
        f"from fopru_graph.graph import Graph; from fopru_graph.drawing import draw_png; import sys\n"
        f"draw_png(Graph.load({str(PIPELINES / 'baseline.yaml')!r}))\n"
        "print({'matplotlib', 'torch'} & set(sys.modules))"
    )
    assert python("-c", code).stdout == "set()\n", sys.executable
