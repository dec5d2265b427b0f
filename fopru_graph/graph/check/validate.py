"""Validation: all problems of a pipeline at once, before anything runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from fopru_graph.graph.check.binding import (
    Checked,
    InputChecker,
    declared_annotation,
    declared_problem,
    unknown_type_problem,
)
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.declare.node import CACHE_POLICIES, accepts, settle
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import PipelineError, Problem, did_you_mean, sort_problems
from fopru_graph.graph.model import GraphNode, Model
from fopru_graph.graph.sockets import MISSING
from fopru_graph.graph.values import INPUTS, Ref, has_invalid, has_refs, refs_in
from fopru_graph.graph.yaml.read import read_file


def validate(model: Model, registry: Registry | None = None) -> list[Problem]:
    """Every problem of a pipeline in the order of lines, warnings included; a user's mistake raises nothing."""
    return check(model, registry or model.registry).problems


def validate_file(path: str | Path, registry: Registry | None = None) -> list[Problem]:
    """The problems of a YAML file, even if it is not YAML."""
    model = Model(registry=registry)
    try:
        read_file(model, Path(path))
    except PipelineError as error:
        return sort_problems(error.problems)
    return validate(model)


def check(model: Model, registry: Registry, *, to_run: bool = False, partial: bool = False) -> Checked:
    """Validate and bind a pipeline.

    ``to_run`` also requires a value for every pipeline input; ``partial`` accepts a pipeline without outputs.
    """
    flat, problems = expand(model, registry)
    checked = Checked(flat, registry, [*model.document_problems, *problems])
    validator = _Validator(model, checked)
    validator.pipeline_inputs(to_run)
    validator.nodes()
    validator.outputs(partial)
    validator.cycles()
    validator.check_hooks()
    validator.unused()
    checked.problems = sort_problems(checked.problems)
    return checked


def upstream(links: nx.MultiDiGraph[str], roots: Iterable[str]) -> set[str]:
    """The nodes ``roots`` and everything that they depend on."""
    reached: set[str] = set()
    stack = [root for root in roots if root in links]
    while stack:
        name = stack.pop()
        if name not in reached:
            reached.add(name)
            stack.extend(links.predecessors(name))
    return reached


class _Validator:
    def __init__(self, model: Model, checked: Checked) -> None:
        self.model = model
        self.checked = checked
        self.flat = checked.flat
        self.entries = checked.flat.nodes
        self.registry = checked.registry

    def add(self, problem: Problem, entry: GraphNode | None = None) -> None:
        self.checked.problems.append(entry.locate(problem) if entry else problem)

    # -- pipeline inputs and outputs ----------------------------------------------------------------------------------

    def pipeline_inputs(self, to_run: bool) -> None:
        for name, declared in self.model.inputs.items():
            problem = None
            if declared_annotation(declared.type, self.registry) is None:
                problem = unknown_type_problem(declared.type)
            elif declared.default is MISSING:
                if to_run:
                    hint = f"set it: --set {name}=…"
                    problem = Problem("missing-input", "has no default and was not given", hint=hint)
            elif has_refs(declared.default):
                hint = "write $$ for a dollar"
                problem = Problem("bad-reference", "must be a plain value, not a reference", hint=hint)
            elif not has_invalid(declared.default):
                problem = declared_problem(declared.type, declared.default, self.registry)
            if problem:
                message = f"inputs.{name} {problem.message}"
                self.add(Problem(problem.code, message, node=INPUTS, input=name, line=declared.line, hint=problem.hint))

    def outputs(self, partial: bool) -> None:
        for name, output in self.flat.outputs.items():
            if isinstance(output.ref, Ref):
                entry = GraphNode("outputs", "", line=output.line)
                InputChecker(self.checked, entry).resolve(output.ref, name)
            elif has_refs(output.ref):
                message = f"the output {name!r} is a list of references that a sub-graph hands through"
                hint = "make every element an output of its own"
                self.add(Problem("bad-reference", message, node="outputs", input=name, line=output.line, hint=hint))
        runs = any(spec.output for spec in self.checked.specs.values())
        if not partial and not self.model.outputs and not runs:
            hint = "add outputs: {name: $node}"
            self.add(Problem("no-outputs", "the pipeline has no outputs, so nothing would run", hint=hint))

    # -- nodes and their inputs ---------------------------------------------------------------------------------------

    def nodes(self) -> None:
        reported: set[str] = set()
        for name, entry in self.entries.items():
            spec = self.registry.find(entry.type) if entry.type else None
            if spec is not None:
                self.checked.specs[name] = spec
            elif entry.type:
                self._unknown_type(entry, reported)
            if entry.cache is not None and entry.cache not in CACHE_POLICIES:
                hint = did_you_mean(entry.cache, CACHE_POLICIES)
                message = f"cache must be one of {', '.join(CACHE_POLICIES)}, but is {entry.cache!r}"
                self.add(Problem("not-a-choice", message, node=name, hint=hint), entry)
        for name, entry in self.entries.items():
            checker = InputChecker(self.checked, entry)
            if name in self.checked.specs:
                self.checked.bound[name] = checker.bind(self.checked.specs[name])
            else:
                checker.references_only()

    def _unknown_type(self, entry: GraphNode, reported: set[str]) -> None:
        """Report the type; only the first node of a type gets the full text of an error in the type's file."""
        problem = self.registry.unknown(entry.type)
        message = problem.message.partition("\n")[0] if entry.type in reported else problem.message
        reported.add(entry.type)
        self.add(Problem(problem.code, message, node=entry.name, hint=problem.hint), entry)

    def check_hooks(self) -> None:
        """Call the ``check`` method of every node whose inputs have no problem so far."""
        for name, spec in self.checked.specs.items():
            hook = getattr(spec.cls(), "check", None)
            bound = self.checked.bound[name]
            if hook is None or has_invalid(bound):
                continue
            literals = {key: value for key, value in bound.items() if not has_refs(value)}
            for message in _messages(hook, accepts(hook, literals)):
                self.add(Problem("check", message, node=name), self.entries[name])

    # -- the graph as a whole -----------------------------------------------------------------------------------------

    def cycles(self) -> None:
        links = self.checked.links
        order = {name: index for index, name in enumerate(self.entries)}
        for component in nx.strongly_connected_components(links):
            first = min(component, key=lambda name: order.get(name, len(order)))
            if len(component) == 1 and not links.has_edge(first, first):
                continue
            path = " -> ".join(_shortest_cycle(links, first, component))
            message = f"the nodes wait for each other: {path}"
            self.add(Problem("cycle", message, node=first, hint="remove one of these links"), self.entries[first])

    def unused(self) -> None:
        if not self.model.outputs and not any(spec.output for spec in self.checked.specs.values()):
            return
        used = self._needed()
        blocks = {name.split("/")[0] for name in used}
        for name, entry in self.entries.items():
            if name not in used and (entry.origin is None or entry.origin.outer not in blocks):
                message = "no output of the pipeline needs this node"
                self.add(Problem("unused-node", message, "warning", node=name), entry)
        read = self._inputs_read()
        for name, declared in self.model.inputs.items():
            if name not in read:
                message = f"no node uses the pipeline input {name!r}"
                self.add(Problem("unused-input", message, "warning", INPUTS, name, declared.line))

    def _needed(self) -> set[str]:
        roots = [ref.node for output in self.flat.outputs.values() for _, ref in refs_in(output.ref)]
        roots += [name for name in self.entries if self._runs_anyway(name)]
        return upstream(self.checked.links, roots)

    def _runs_anyway(self, name: str) -> bool:
        """Whether the node runs without an output that needs it; a node of unknown type may do so."""
        return name not in self.checked.specs or self.checked.specs[name].output

    def _inputs_read(self) -> set[str | None]:
        values = [value for entry in self.model.nodes.values() for value in entry.inputs.values()]
        values += [output.ref for output in self.model.outputs.values()]
        return {ref.output for value in values for _, ref in refs_in(value) if ref.node == INPUTS}


def _messages(hook: Any, given: Mapping[str, Any] | None) -> Iterable[str]:
    if given is None:
        return []  # an input that it needs is linked, so its value is not known yet
    try:
        return [str(message) for message in settle(hook(**given)) or ()]
    except Exception as error:
        return [f"check failed: {type(error).__name__}: {error}"]


def _shortest_cycle(links: nx.MultiDiGraph[str], start: str, component: set[str]) -> list[str]:
    """The nodes of a shortest cycle through ``start``, in the direction of the data, with ``start`` at both ends."""
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        name = queue.popleft()
        for reader in sorted(set(links.successors(name)) & component):
            if reader == start:
                path = [name]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return [*reversed(path), start]
            if reader not in came_from:
                came_from[reader] = name
                queue.append(reader)
    return [start, start]
