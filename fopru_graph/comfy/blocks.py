"""Sub-graphs as their nodes: names on a canvas, what stands behind their outputs, and flattening them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from fopru_graph.comfy.names import Names
from fopru_graph.graph import Graph, GraphNode, Ref
from fopru_graph.graph.check.expand import block_path, expand
from fopru_graph.graph.model import PipelineOutput, is_block
from fopru_graph.graph.values import INPUTS, replace_refs

Nodes: TypeAlias = Mapping[str, GraphNode]  # by the names of the flat pipeline, e.g. host/inner


def flat_names(nodes: Nodes) -> dict[str, GraphNode]:
    """Nodes by ids as nodes by names of a flat pipeline: ``host:inner`` is ``host/inner``."""
    return renamed_nodes(nodes, lambda name: name.replace(":", "/"))


def renamed_nodes(nodes: Nodes, name_of: Callable[[str], str]) -> dict[str, GraphNode]:
    """Nodes under other names, with the references to them."""

    def renamed(ref: Ref) -> Ref:
        return Ref(name_of(ref.node), ref.output)

    found = {}
    for name, entry in nodes.items():
        inputs = {key: replace_refs(value, renamed) for key, value in entry.inputs.items()}
        found[name_of(name)] = replace(entry, name=name_of(name), inputs=inputs)
    return found


def exports_of(graph: Graph) -> list[tuple[Ref, Ref]]:
    """The outputs of a pipeline's sub-graphs as its nodes write them, each with what is behind it."""
    flat = expand(graph)[0]
    probe = graph.copy()
    probe.outputs = {}
    for name, entry in graph.nodes.items():
        if is_block(entry.type) and (text := flat.blocks.get(block_path(entry.type))) is not None:
            outputs = list(Graph.loads(text, graph.registry).outputs)
            for output in outputs:
                probe.outputs[f"{name}/{output}"] = PipelineOutput(Ref(name, output))
    behind = {name: output.ref for name, output in expand(probe)[0].outputs.items()}
    return [(probe.outputs[name].ref, ref) for name, ref in behind.items() if isinstance(ref, Ref)]


def flattened(graph: Graph, wanted: Nodes, hosts: Iterable[str]) -> tuple[Graph, Nodes]:
    """The pipeline with the nodes of these sub-graphs in their place, and the wanted nodes under the same names."""
    hosts = set(hosts)
    flat = expand(graph)[0]
    names = Names([*graph.nodes, INPUTS])
    inside = {name: names.of(name, entry.type) for name, entry in flat.nodes.items() if name.partition("/")[0] in hosts}
    exports = exports_of(graph)
    outward = {behind: ref for ref, behind in exports if ref.node not in hosts}
    inward = {ref: behind for ref, behind in exports if ref.node in hosts}
    single = {ref.node for ref in inward if sum(other.node == ref.node for other in inward) == 1}
    inward |= {Ref(ref.node): behind for ref, behind in inward.items() if ref.node in single}

    def renamed(ref: Ref) -> Ref:
        ref = inward.get(ref, ref)
        return Ref(inside[ref.node], ref.output) if ref.node in inside else outward.get(ref, ref)

    copy = graph.copy()
    copy.nodes = {}
    for name, entry in graph.nodes.items():
        parts = [flat.nodes[key] for key in inside if key.partition("/")[0] == name] if name in hosts else [entry]
        for part in parts:
            inputs = {key: replace_refs(value, renamed) for key, value in part.inputs.items()}
            copy.put(replace(part, name=inside.get(part.name, part.name), inputs=inputs, origin=None, line=None))
    for output in copy.outputs.values():
        output.ref = replace_refs(output.ref, renamed)
    return copy, renamed_nodes(wanted, lambda name: inside.get(name, name))
