"""Validation: all problems of a pipeline at once, before anything runs."""

from __future__ import annotations

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
from fopru_graph.graph.context import RECORD, file_key, output_name
from fopru_graph.graph.declare.node import CACHE_POLICIES, accepts, settle
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import PipelineError, Problem, did_you_mean, sort_problems
from fopru_graph.graph.model import GraphNode, Model
from fopru_graph.graph.values import INPUTS, MISSING, Ref, has_invalid, has_refs, refs_in
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
    validator.check_pipeline_inputs(to_run)
    validator.check_nodes()
    validator.check_outputs(partial)
    validator.check_cycles()
    validator.check_files()
    validator.call_check_methods()
    validator.warn_of_unused()
    checked.problems = sort_problems(checked.problems)
    return checked


def upstream(links: nx.MultiDiGraph[str], roots: Iterable[str]) -> set[str]:
    """The nodes ``roots`` and everything that they depend on."""
    layers = nx.bfs_layers(links.reverse(copy=False), [root for root in roots if root in links])
    return {name for layer in layers for name in layer}


class _Validator:
    def __init__(self, model: Model, checked: Checked) -> None:
        self.model = model
        self.checked = checked
        self.flat = checked.flat
        self.specs = checked.specs
        self.nodes = checked.flat.nodes
        self.registry = checked.registry

    def add(self, entry: GraphNode, code: str, message: str, *args: Any, **details: Any) -> None:
        """Report a problem; see `GraphNode.problem`."""
        self.checked.problems.append(entry.problem(code, message, *args, **details))

    # -- pipeline inputs and outputs ----------------------------------------------------------------------------------

    def check_pipeline_inputs(self, to_run: bool) -> None:
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
                section = GraphNode(INPUTS, "", line=declared.line)
                self.add(section, problem.code, f"inputs.{name} {problem.message}", name, problem.hint)

    def check_outputs(self, partial: bool) -> None:
        for name, output in self.flat.outputs.items():
            section = GraphNode("outputs", "", line=output.line)
            if isinstance(output.ref, Ref):
                InputChecker(self.checked, section).resolve(output.ref, name)
            elif has_refs(output.ref):
                message = f"the output {name!r} is a list of references that a sub-graph hands through"
                self.add(section, "bad-reference", message, name, "make every element an output of its own")
        if not partial and not self._has_results():
            hint = "add outputs: {name: $node}"
            message = "the pipeline has no outputs, so nothing would run"
            self.checked.problems.append(Problem("no-outputs", message, hint=hint))

    def _has_results(self) -> bool:
        return bool(self.model.outputs) or any(spec.output for spec in self.specs.values())

    # -- nodes and their inputs ---------------------------------------------------------------------------------------

    def check_nodes(self) -> None:
        reported: set[str] = set()
        for name, entry in self.nodes.items():
            spec = self.registry.find(entry.type) if entry.type else None
            if spec is not None and entry.enabled:
                self.specs[name] = spec
            elif spec is None and entry.type:
                self._unknown_type(entry, reported)
            if entry.cache is not None and entry.cache not in CACHE_POLICIES:
                message = f"cache must be one of {', '.join(CACHE_POLICIES)}, but is {entry.cache!r}"
                self.add(entry, "not-a-choice", message, hint=did_you_mean(entry.cache, CACHE_POLICIES))
        for name, entry in self.nodes.items():
            checker = InputChecker(self.checked, entry)
            if name in self.specs:
                self.checked.bound[name] = checker.bind(self.specs[name])
            else:
                for key in entry.inputs:
                    checker.references(key)

    def _unknown_type(self, entry: GraphNode, reported: set[str]) -> None:
        """Report the type; only the first node of a type gets the full text of an error in the type's file."""
        problem = self.registry.unknown(entry.type)
        message = problem.message.partition("\n")[0] if entry.type in reported else problem.message
        reported.add(entry.type)
        self.add(entry, problem.code, message, hint=problem.hint)

    def call_check_methods(self) -> None:
        """Call the ``check`` method of every node whose inputs have no problem so far."""
        for name, spec in self.specs.items():
            hook = getattr(spec.cls(), "check", None)
            bound = self.checked.bound[name]
            if hook is None or has_invalid(bound):
                continue
            literals = {key: value for key, value in bound.items() if not has_refs(value)}
            for message in _messages(hook, accepts(hook, literals)):
                self.add(self.nodes[name], "check", message)

    def check_files(self) -> None:
        """Two nodes that write the same file would lose one of the results without a word."""
        writers: dict[str, str] = {RECORD: "the run's record"}
        for name, spec in self.specs.items():
            entry, bound = self.nodes[name], self.checked.bound[name]
            for key in [key for key, socket in spec.inputs.items() if socket.file and isinstance(bound[key], str)]:
                file = output_name(name, bound[key])
                if writer := writers.get(file_key(file)):
                    message = f"{name} would write the file {file} of {writer}"
                    self.add(entry, "same-file", message, key, "give one of them another name")
                writers[file_key(file)] = f"{name} ({_line(entry, key)})"

    # -- the graph as a whole -----------------------------------------------------------------------------------------

    def check_cycles(self) -> None:
        links = self.checked.links
        order = {name: index for index, name in enumerate(self.nodes)}
        for component in nx.strongly_connected_components(links):
            first = min(component, key=lambda name: order.get(name, len(order)))
            if len(component) > 1 or links.has_edge(first, first):
                message = f"the nodes wait for each other: {' -> '.join(_shortest_cycle(links, first))}"
                self.add(self.nodes[first], "cycle", message, hint="remove one of these links")

    def warn_of_unused(self) -> None:
        """Warn of nodes and pipeline inputs that no result needs. A node of unknown type may run for its effect."""
        if not self._has_results():
            return
        roots = [ref.node for output in self.flat.outputs.values() for _, ref in refs_in(output.ref)]
        # What only a disabled node reads is not in vain: it is needed again as soon as that one is enabled.
        roots += [name for name in self.nodes if name not in self.specs or self.specs[name].output]
        used = upstream(self.checked.links, roots)
        used_roots = {name.split("/")[0] for name in used}  # a sub-graph is used if a node of it is
        for name in dict.fromkeys(name.split("/")[0] for name in self.nodes):
            if name not in used_roots:
                message = "no output of the pipeline needs this node"
                self.add(self.model.nodes[name], "unused-node", message, severity="warning")
        values = [value for entry in self.model.nodes.values() for value in entry.inputs.values()]
        values += [output.ref for output in self.model.outputs.values()]
        read = {ref.output for value in values for _, ref in refs_in(value) if ref.node == INPUTS}
        for name, declared in self.model.inputs.items():
            if name not in read:
                section = GraphNode(INPUTS, "", line=declared.line)
                self.add(section, "unused-input", f"no node uses the pipeline input {name!r}", name, severity="warning")


def _line(entry: GraphNode, key: str) -> str:
    if entry.origin:
        return f"{entry.origin.file}:{entry.origin.inner_line}"
    return f"line {entry.input_lines.get(key, entry.line) or '?'}"


def _messages(hook: Any, given: Mapping[str, Any] | None) -> Iterable[str]:
    if given is None:
        return []  # an input that it needs is linked, so its value is not known yet
    try:
        return [str(message) for message in settle(hook(**given)) or ()]
    except Exception as error:
        return [f"check failed: {type(error).__name__}: {error}"]


def _shortest_cycle(links: nx.MultiDiGraph[str], start: str) -> list[str]:
    """The nodes of a shortest cycle through ``start``, in the direction of the data, with ``start`` at both ends."""
    distances = nx.shortest_path_length(links, target=start)
    nearest = min(sorted(set(links.successors(start)) & set(distances)), key=distances.__getitem__)
    return [start, *nx.shortest_path(links, nearest, start)]
