"""Which branches of a pipeline a run takes, as far as that is known before it."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fopru_graph.graph.declare.node import NodeSpec, accepts, settle
from fopru_graph.graph.values import has_refs, linked_nodes, with_ancestors


@dataclass(frozen=True)
class LazyInputs:
    """The lazy inputs of a node: those that it asks for, that it does not ask for, and that only the run can tell."""

    asked: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()


def lazy_inputs(spec: NodeSpec, inputs: Mapping[str, Any]) -> LazyInputs:
    """What the node's ``needs`` says of its lazy inputs, if all that it wants to know are literals."""
    lazy = frozenset(spec.lazy_inputs())
    if not lazy:
        return LazyInputs()
    hook = spec.cls().needs  # type: ignore[attr-defined]  # types with lazy inputs have it
    parameters = inspect.signature(hook).parameters
    stepwise = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    known = {name: inputs[name] for name in parameters if name in inputs and not has_refs(inputs[name])}
    given = None if stepwise or not lazy.isdisjoint(parameters) else accepts(hook, known)
    if given is None or any(has_refs(inputs[name]) for name in parameters if name in inputs):
        return LazyInputs(open=lazy)
    try:
        asked = frozenset(settle(hook(**given)))
    except Exception:  # the run calls it again, and then names the node
        return LazyInputs(open=lazy)
    return LazyInputs(asked & lazy, lazy - asked) if asked <= inputs.keys() else LazyInputs(open=lazy)


def not_asked(spec: NodeSpec, name: str) -> Any:
    """What ``run`` gets for a lazy input that ``needs`` did not ask for: its default, or None."""
    socket = spec.inputs[name]
    return None if socket.required else socket.default_value()


class Branches:
    """The links of a pipeline by what is known of them; ``lazy`` has the lazy inputs of every node that has some."""

    def __init__(self, bound: Mapping[str, Mapping[str, Any]], lazy: Mapping[str, LazyInputs]) -> None:
        self._lazy = lazy
        self._eager: dict[str, frozenset[str]] = {}
        self._asked: dict[str, frozenset[str]] = {}
        self._open: dict[str, frozenset[str]] = {}
        self._idle: dict[str, frozenset[str]] = {}
        for name, inputs in bound.items():
            of = lazy.get(name, LazyInputs())
            self._eager[name] = linked_nodes(inputs, inputs.keys() - of.asked - of.open - of.idle)
            self._asked[name] = linked_nodes(inputs, of.asked)
            self._open[name] = linked_nodes(inputs, of.open)
            self._idle[name] = linked_nodes(inputs, of.idle)

    def certain(self, roots: Iterable[str]) -> set[str]:
        """What a run from ``roots`` evaluates in any case."""
        return _above(roots, self._eager, self._asked)

    def possible(self, roots: Iterable[str]) -> set[str]:
        """What a run from ``roots`` may evaluate."""
        return _above(roots, self._eager, self._asked, self._open)

    def everything(self, roots: Iterable[str]) -> set[str]:
        """The nodes ``roots`` and all above them, branches that are not taken included."""
        return _above(roots, self._eager, self._asked, self._open, self._idle)

    def sort_effects(
        self, roots: Collection[str], effects: Collection[str]
    ) -> tuple[list[str], dict[str, frozenset[str]], dict[str, str]]:
        """The nodes that run for their effect: an effect never makes a run take a branch.

        Returns those that run, those that run if the run takes the branches with certain nodes (which), and those that
        do not, each with a node in a branch that is not taken.
        """
        readers = [name for name in self._lazy if name in self.everything([*roots, *effects])]
        heads = {head for name in readers for links in (self._asked, self._open, self._idle) for head in links[name]}
        in_branches = self.everything(heads)
        hangs = {name: frozenset(_above([name], self._eager) & in_branches) for name in effects}
        run: list[str] = []
        while ready := [name for name in hangs if hangs[name] <= self.certain([*roots, *run]) and name not in run]:
            run += ready
        maybe: list[str] = []
        rest = [name for name in hangs if name not in run]
        while ready := [n for n in rest if hangs[n] <= self.possible([*roots, *run, *maybe]) and n not in maybe]:
            maybe += ready
        possible = self.possible([*roots, *run, *maybe])
        never = {name: min(hangs[name] - possible) for name in rest if name not in maybe}
        return run, {name: hangs[name] for name in maybe}, never


def _above(nodes: Iterable[str], *links: Mapping[str, Iterable[str]]) -> set[str]:
    return with_ancestors(nodes, lambda name: (parent for kind in links for parent in kind.get(name, ())))
