"""Each shipped pipeline as a blueprint: a subgraph that ComfyUI offers in its search of nodes, without the loaders.

The frontend (1.58.1) takes a file for a blueprint if its canvas holds the subgraph's node alone; it names it after the
file, and reads what the search shows and finds in ``extra``. A widget inside stands on the node outside, too, if the
subgraph's input that is linked to it has a place in the node's ``widgets_values``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fopru_graph.comfy.canvas_nodes import PRIMITIVES
from fopru_graph.comfy.layout import size_of
from fopru_graph.comfy.plan import ALIASES, NodePlan, plans
from fopru_graph.comfy.prompt import Prompt, encode
from fopru_graph.comfy.workflow import uses_of
from fopru_graph.comfy.writer import Border, Writer
from fopru_graph.graph import MISSING, Graph, Ref, Registry
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.shipped import shipped_pipelines

SHOWN = ("prompt", "ratio", "max_new_tokens")  # inputs of a pipeline that the node has as widgets
_ANSWERS = "LLMGenerate"
_HELD = " value"  # ends the ids of nodes that hold values outside while the file is made; no name has a space
_LOADERS = {"FopruLoadModel": "model", "FopruLoadImage": "image", "FopruLoadVideo": "video"}


def blueprints(registry: Registry) -> dict[str, dict[str, Any]]:
    """The blueprints of the shipped pipelines, by the names that the search shows."""
    found = {}
    for name in shipped_pipelines():
        graph = Graph.load(name, registry)
        for each in graph.inputs.values():
            if each.default is MISSING:
                each.default = ""  # of a loader, which is left out
        found[title_of(graph)] = blueprint_of(graph)
    return found


def title_of(graph: Graph) -> str:
    """The words of the pipeline's name, spelt as in its description: ``fopru_fastv`` is ``FoPru FastV (FoPru)``."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", graph.description))  # VidCom² is vidcom2
    spelt = {word.lower(): word for word in reversed(words)}
    title = " ".join(spelt.get(word, word) for word in graph.name.split("_"))
    return f"{title[0].upper()}{title[1:]} (FoPru)"


def blueprint_of(graph: Graph) -> dict[str, Any]:
    """The workflow with the pipeline as its only node, a subgraph of all but its loaders.

    Raises:
        UserError: as `encode`.
    """
    known, host = plans(graph.registry), graph.name
    prompt = encode(expand(graph)[0])
    values = _values(graph, prompt, known)
    outside = [name for name, node in prompt.items() if node["class_type"] in _LOADERS]
    inner = _inside(prompt, values, host, outside)
    entering = [*_loaded(prompt, outside, host, known), *(_held(value, host) for value in values)]
    # `generation` beside what the pipeline gives: other nodes show it.
    given = {name: each.ref for name, each in graph.outputs.items()}
    answering = next((name for name, node in graph.nodes.items() if node.type == _ANSWERS), None)
    if answering is not None:
        given["generation"] = Ref(answering, "generation")
    leaving = [
        ((f"{host}:{ref.node}", known[prompt[ref.node]["class_type"]].index(ref.output)), name)
        for name, ref in given.items()
        if isinstance(ref, Ref)
    ]
    workflow = Writer(known, host).workflow(inner, {}, entering, leaving)
    return _alone(workflow, graph, values)


@dataclass(frozen=True)
class _Shown:
    """An input of the pipeline that the node shows as a widget, and the widgets that it fills: node and input."""

    name: str
    kind: str
    value: Any
    uses: tuple[tuple[str, str], ...]


def _values(graph: Graph, prompt: Prompt, known: Mapping[str, NodePlan]) -> list[_Shown]:
    found = []
    for name in (name for name in SHOWN if name in graph.inputs):
        uses = tuple(uses_of(graph, name, prompt))
        kinds = {known[prompt[node]["class_type"]].slot(key).kind for node, key in uses}
        if len(kinds) == 1 and kinds <= PRIMITIVES.keys():
            node, key = uses[0]
            found.append(_Shown(name, kinds.pop(), prompt[node]["inputs"][key], uses))
    return found


def _inside(prompt: Prompt, values: list[_Shown], host: str, outside: list[str]) -> Prompt:
    """The prompt with all but the loaders in a subgraph, and a node outside for each value that is shown."""
    found: Prompt = {name: prompt[name] for name in outside}
    for shown in values:
        inputs = {"value": shown.value}
        found[f"{shown.name}{_HELD}"] = {"class_type": PRIMITIVES[shown.kind][0], "inputs": inputs}
    filled = {(node, key): f"{shown.name}{_HELD}" for shown in values for node, key in shown.uses}
    for name, node in prompt.items():
        if name in outside:
            continue
        inputs = {}
        for key, value in node["inputs"].items():
            if isinstance(value, list):
                inputs[key] = [value[0] if value[0] in outside else f"{host}:{value[0]}", value[1]]
            else:
                inputs[key] = [filled[name, key], 0] if (name, key) in filled else value
        found[f"{host}:{name}"] = node | {"inputs": inputs}
    return found


def _loaded(prompt: Prompt, outside: list[str], host: str, known: Mapping[str, NodePlan]) -> Iterator[Border]:
    """What comes from a loader: a picture for all types that each of its readers takes."""
    for source in outside:
        readers = [
            known[node["class_type"]].slot(key).types
            for node in prompt.values()
            for key, value in node["inputs"].items()
            if value == [source, 0]
        ]
        types = [kind for kind in readers[0] if all(kind in other for other in readers)]
        yield (source, 0), host, _LOADERS[prompt[source]["class_type"]], ",".join(types)


def _held(shown: _Shown, host: str) -> Border:
    return (f"{shown.name}{_HELD}", 0), host, shown.name, PRIMITIVES[shown.kind][1]


def _alone(workflow: dict[str, Any], graph: Graph, values: list[_Shown]) -> dict[str, Any]:
    """The workflow with nothing left on the canvas but the subgraph's node, with its widgets."""
    title = title_of(graph)
    (node,) = (each for each in workflow["nodes"] if each["id"] == graph.name)
    (subgraph,) = workflow["definitions"]["subgraphs"]
    shown = {each.name: each.value for each in values}
    for each in node["inputs"]:
        each |= {"link": None} | ({"widget": {"name": each["name"]}} if each["name"] in shown else {})
    for each in node["outputs"]:
        each["links"] = None
    long = "prompt" in shown
    rows = max(len(node["inputs"]) - len(shown), len(node["outputs"]))
    node |= {
        "title": title, "pos": [0, 0], "size": list(size_of(rows, len(shown) - long, long, title)), "order": 0,
        "properties": {}, "widgets_values": list(shown.values()), "widgets_values_named": shown,
    }  # fmt: skip
    subgraph |= {"name": title, "description": graph.description, "category": "fopru"}
    extra = {"BlueprintDescription": graph.description, "BlueprintSearchAliases": list(ALIASES)}
    return workflow | {"nodes": [node], "links": [], "extra": extra}
