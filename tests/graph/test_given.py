"""Objects given in Python where a file has a literal: for inputs that take them, never lost without a word."""

from __future__ import annotations

import json
import pickle
from typing import Annotated

import pytest

from fopru_graph.graph import Graph, MemoryCache, Node, PipelineError, Registry, Takes, node


class Photo:
    """Stands for a picture."""

    def __init__(self, content: str) -> None:
        self.content = content


def is_photo(value: object) -> bool:
    return isinstance(value, Photo)


@node(category="load")
class Open(Node):
    """Says what it got."""

    def run(self, path: Annotated[str, Takes(is_photo)] = "file") -> str:
        return path.content if isinstance(path, Photo) else path

    def fingerprint(self, path: str = "") -> str:
        return self.run(path)


@node(category="load")
class Unread(Node):
    """Takes photos and tells nothing of their content."""

    def run(self, path: Annotated[str, Takes(is_photo)]) -> str:
        return path.content if isinstance(path, Photo) else path


@node(category="text")
class Upper(Node):
    """Of a text."""

    def run(self, text: str) -> str:
        return text.upper()


def pipeline(type_name: str = "Open") -> Graph:
    registry = Registry()
    registry.add(Open, Unread, Upper)
    graph = Graph("photos", registry=registry)
    path = graph.input("image", "path", "default")
    graph.output("text", graph.add("Upper", text=graph.add(type_name, "open", path=path)))
    return graph


@pytest.mark.parametrize("target", ["image", "open.path"])
def test_an_object_reaches_the_node_that_takes_it(target):
    graph = pipeline()
    assert graph.run(sets={target: Photo("cat")})["text"] == "CAT"
    graph.set(target, Photo("dog"))
    assert graph.run()["text"] == graph.copy().run()["text"] == pickle.loads(pickle.dumps(graph.copy())).run()["text"]
    assert graph.problems() == [] or all(problem.severity == "warning" for problem in graph.problems())
    assert Open()(path=Photo("cow")) == "cow"


def test_an_object_reaches_through_a_sub_graph(tmp_path):
    pipeline().save(tmp_path / "block.yaml")
    graph = Graph("outer", registry=pipeline().registry)
    graph.folder = tmp_path
    graph.output("text", graph.add("./block.yaml", "block").text)
    assert graph.run(sets={"block.image": Photo("cat")})["text"] == "CAT"
    assert graph.run(sets={"block/open.path": Photo("dog")})["text"] == "DOG"


def test_equal_content_is_one_key_and_other_content_another():
    graph, cache = pipeline(), MemoryCache()
    first = graph.run(sets={"image": Photo("cat")}, cache=cache)
    assert graph.run(sets={"image": Photo("cat")}, cache=cache).cached
    other = graph.run(sets={"image": Photo("dog")}, cache=cache)
    assert (first["text"], other["text"], other.cached) == ("CAT", "DOG", frozenset())


def test_without_a_fingerprint_every_object_is_its_own():
    graph, photo = pipeline("Unread"), Photo("cat")
    graph.set("image", photo)
    assert graph.run()["text"] == "CAT" and graph.run().cached
    graph.set("image", Photo("cat"))
    assert graph.run().cached <= {"upper"}


@pytest.mark.parametrize("target", ["image", "open.path"])
def test_no_file_holds_it_and_a_record_names_it(target):
    graph = pipeline()
    graph.set(target, Photo("cat"))
    for write in (graph.dumps, lambda: graph.save("never.yaml")):
        with pytest.raises(PipelineError, match="is Photo, given in Python, which no file can hold"):
            write()
    record = graph.run().record
    assert "given:Photo:" in record.pipeline and json.dumps(record.to_json())
    assert record.nodes["open"]["inputs"]["path"] == "Photo, given in Python"
    assert graph != pipeline() and graph == graph.copy()


def test_where_it_does_not_fit_it_is_refused():
    graph = pipeline()
    graph.set("image", object())
    with pytest.raises(PipelineError, match="open.path expects str, but is object, given in Python"):
        graph.run()
    with pytest.raises(PipelineError, match="neither a plain value"):
        graph.set("open.path", object())
    with pytest.raises(PipelineError, match="neither a plain value"):
        graph.set("upper.text", Photo("cat"))
    with pytest.raises(PipelineError, match="neither a plain value"):
        graph.set("image", [Photo("cat")])
