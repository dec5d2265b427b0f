"""Writes compositions that nobody has run: pipelines that prune before the language model, with chains inside it.

    python tools/compositions.py build/compositions
    fopru-graph sweep build/compositions/*.yaml --task scenes --ratio 0.25,0.11,0.05
    fopru-graph report fopru-eval

A composition is the first pipeline with the pruners of the second. The two share a ratio: each of n stages keeps its
n-th root, and a Schedule of several cuts is one stage.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, GraphNode, Ref
from fopru_graph.graph.values import INPUTS, refs_in, with_ancestors
from fopru_graph.terminal.console import say

PIPELINES = Path(__file__).resolve().parent.parent / "pipelines"


def compose(before: Graph, inside: Graph) -> Graph:
    """The first pipeline, with the pruners of the second inside its language model, behind its own.

    Raises:
        UserError: the second prunes nothing inside the language model.
    """
    if not (pruners := pruners_of(inside)):
        raise UserError(f"{inside.name} prunes nothing inside the language model", "give e.g. pipelines/fastv.yaml")
    graph = before.copy()
    graph.name = f"{before.name}_{inside.name}"
    graph.description = f"{before.name} before the language model, {inside.name} inside."
    (generate,) = graph.of_type("LLMGenerate")
    last = {name: graph.nodes.pop(name) for name in list(graph.nodes)[list(graph.nodes).index(generate) :]}
    needed = with_ancestors([ref.node for ref in pruners], lambda name: _parents(inside, name))
    for name, entry in inside.nodes.items():
        if name not in needed:
            continue
        if (taken := before.nodes.get(name)) and (taken.type, taken.inputs) != (entry.type, entry.inputs):
            raise UserError(f"both {before.name} and {inside.name} have a node {name}", "give one of them another name")
        graph.put(GraphNode(name, entry.type, dict(entry.inputs)))
    graph.nodes.update(last)
    graph.inputs |= {name: declared for name, declared in inside.inputs.items() if name not in graph.inputs}
    graph.set(f"{generate}.pruners", [*pruners_of(before), *pruners])
    return graph


def pruners_of(graph: Graph) -> list[Ref]:
    """What is wired to the generating node's pruners."""
    (generate,) = graph.of_type("LLMGenerate")
    return [ref for _, ref in refs_in(graph.node(generate).inputs.get("pruners"))]


def _parents(graph: Graph, name: str) -> list[str]:
    inputs = graph.node(name).inputs.values()
    return [ref.node for value in inputs for _, ref in refs_in(value) if ref.node != INPUTS]


def compositions(before: Iterable[Graph], inside: Iterable[Graph]) -> list[Graph]:
    """All of the first with all of the second, as far as the one prunes only before and the other only inside."""
    chains = [graph for graph in inside if pruners_of(graph) and not _selects(graph)]
    return [compose(graph, chain) for graph in before if _selects(graph) and not pruners_of(graph) for chain in chains]


def _selects(graph: Graph) -> bool:
    """Whether the language model gets fewer tokens than the encoder made."""
    return any("selection" in graph.node(name).inputs for name in graph.of_type("Project"))


def main() -> None:
    """Write the files; without names, of all pipelines that ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go")
    shipped = sorted(PIPELINES.glob("*.yaml"))
    parser.add_argument("--before", type=Path, nargs="+", default=shipped, help="pipelines that prune before the LM")
    parser.add_argument("--inside", type=Path, nargs="+", default=shipped, help="pipelines that prune inside the LM")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    made = compositions(map(Graph.load, given.before), map(Graph.load, given.inside))
    for graph in made:
        graph.save(given.folder / f"{graph.name}.yaml")
    say(f"{len(made)} compositions in {given.folder}")


if __name__ == "__main__":
    main()
