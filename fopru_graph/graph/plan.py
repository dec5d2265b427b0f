"""The plan of a run: the nodes it needs, and an order for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import networkx as nx

from fopru_graph.graph.branches import Branches, LazyInputs, lazy_inputs, not_asked
from fopru_graph.graph.cache import DiskCache
from fopru_graph.graph.check.binding import Checked
from fopru_graph.graph.check.expand import block_path, expand
from fopru_graph.graph.check.validate import check
from fopru_graph.graph.declare.node import CachePolicy
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import PipelineError, Problem, errors_of, hint_choices
from fopru_graph.graph.memory import MemoryCache
from fopru_graph.graph.model import Model, PipelineOutput, is_block
from fopru_graph.graph.steps import Keys, Step
from fopru_graph.graph.values import INPUTS, Ref, parse_reference, unwrapped
from fopru_graph.graph.yaml.read import read_text


@dataclass(frozen=True)
class Plan:
    """The steps in an order in which they can run, and the wanted outputs.

    ``wanted`` maps the name of a result to an output of a node, ``literals`` to a value that is known already. The run
    starts from the nodes ``roots``. ``flat`` is ``graph`` without sub-graphs.

    A node that runs for its effect does not make a run take a branch, unless it is a target: those in ``maybe`` run if
    the nodes that they name do, those in ``left_out`` hang on a node of a branch that is not taken. Their outputs are
    then None.
    """

    graph: Model
    flat: Model
    steps: Mapping[str, Step]
    wanted: Mapping[str, Ref]
    roots: tuple[str, ...]
    keys: Keys
    literals: Mapping[str, Any] = field(default_factory=dict)
    maybe: Mapping[str, frozenset[str]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    not_taken: frozenset[str] = frozenset()

    def explain(self, cache: MemoryCache | None = None, disk: DiskCache | None = None) -> dict[str, dict[str, Any]]:
        """For every node its ``action`` (run, reuse or skip), ``why``, its ``key``, and what the key is ``made_of``."""
        actions = _actions(self, cache, disk)
        report: dict[str, dict[str, Any]] = {}
        for name in self.flat.nodes:
            step = self.steps.get(name)
            action, why = actions.get(name) or ("skip", self._why_not(name))
            made_of = dict(step.made_of) if step else None
            report[name] = {"action": action, "why": why, "key": step.key if step else None, "made_of": made_of}
        return report

    def _why_not(self, name: str) -> str:
        if not self.flat.nodes[name].enabled:
            return "it is disabled"
        if name in self.left_out:
            return left_out(self.left_out[name])
        return "its branch is not taken" if name in self.not_taken else "no wanted output needs it"


def left_out(node: str) -> str:
    """Why an effect is left out that hangs on ``node``."""
    return f"it hangs on {node}, whose branch is not taken"


def plan(
    graph: Model, registry: Registry | None = None, targets: Iterable[str] | None = None, *, to: str | None = None
) -> Plan:
    """Plan a run of the declared outputs and the output nodes, of some ``targets``, or only up to ``to``.

    A target is the name of a declared output, ``node`` or ``node.output``; so is ``to``, and a node may be a sub-graph.
    Raises `PipelineError` with all errors of the pipeline.
    """
    registry = registry or graph.registry
    chosen = None if targets is None else list(targets)
    asked = [to] if to is not None else chosen
    source = graph
    if of_blocks := {target: outputs for target in asked or () if (outputs := _outputs_of_block(graph, target))}:
        source = graph.copy()
        for outputs in of_blocks.values():
            source.outputs |= outputs
        chosen, to = [name for target in asked or () for name in of_blocks.get(target, [target])], None
    checked = check(source, registry, to_run=True, partial=asked is not None)
    if errors := errors_of(checked.problems):
        raise PipelineError(errors, graph.file)
    wanted, literals, roots = _targets(checked, chosen, to)
    effects = [name for name, spec in checked.specs.items() if spec.output and asked is None]
    roots = [name for name in roots if name not in effects]
    if not (wanted or literals or roots or effects):
        raise PipelineError([Problem("no-outputs", "nothing was asked for, so nothing would run")], graph.file)
    lazy = {name: lazy_inputs(spec, checked.bound[name]) for name, spec in checked.specs.items() if spec.lazy_inputs()}
    branches = Branches(checked.bound, lazy)
    run, maybe, never = branches.sort_effects(roots, effects)
    roots = [*run, *roots]
    literals |= {name: None for name, ref in wanted.items() if ref.node in never}
    wanted = {name: ref for name, ref in wanted.items() if ref.node not in never}
    needed = branches.possible([*roots, *maybe])
    order = {name: index for index, name in enumerate(checked.flat.nodes)}
    steps: dict[str, Step] = {}
    keys = Keys(steps)
    links = nx.DiGraph(checked.links.subgraph(needed))
    for name in nx.lexicographical_topological_sort(links, key=order.__getitem__):
        steps[name] = _step(checked, name, lazy.get(name, LazyInputs()), keys)
    not_taken = branches.everything([*roots, *maybe, *never]) - needed
    return Plan(
        graph, checked.flat, steps, wanted, tuple(roots), keys, literals, maybe, never, frozenset(not_taken)
    )  # fmt: skip


def _outputs_of_block(graph: Model, target: str) -> dict[str, PipelineOutput]:
    """The outputs of a sub-graph that a target names, as ``block.text``, or the one; nothing for any other target."""
    ref = _reference(target)
    if (
        target in graph.outputs
        or ref is None
        or ref.node not in graph.nodes
        or not is_block(graph.nodes[ref.node].type)
    ):
        return {}
    if ref.output is not None:
        return {f"{ref.node}.{ref.output}": PipelineOutput(ref)}
    block, file = Model(registry=graph.registry), block_path(graph.nodes[ref.node].type)
    read_text(block, expand(graph)[0].blocks.get(file, ""), file)
    return {f"{ref.node}.{name}": PipelineOutput(Ref(ref.node, name)) for name in block.outputs}


def _reference(target: str) -> Ref | None:
    return parse_reference("$" + target.removeprefix("$"))


def _step(checked: Checked, name: str, lazy: LazyInputs, keys: Keys) -> Step:
    entry, spec, inputs = checked.flat.nodes[name], checked.specs[name], checked.bound[name]
    inputs = {key: not_asked(spec, key) if key in lazy.idle else value for key, value in inputs.items()}
    line = entry.origin.line if entry.origin else entry.line
    location = f"{checked.flat.file or 'line'}:{line}" if line else None
    policy = cast(CachePolicy, entry.cache or spec.cache)
    if spec.output and policy != "never":  # only `done` can say that an effect is still there
        policy = "memory" if hasattr(spec.cls, "done") else "never"
    return Step(name, spec, inputs, policy, location, lazy.open, lazy.idle, keys)


def _targets(
    checked: Checked, chosen: list[str] | None, to: str | None
) -> tuple[dict[str, Ref], dict[str, Any], list[str]]:
    """The wanted outputs of nodes, the wanted values that are known already, and the nodes to start from."""
    declared = {name: output.ref for name, output in checked.flat.outputs.items()}
    results: dict[str, Any] = {}
    roots: list[str] = []
    if to is not None and (to not in declared or to in checked.specs):
        node, names = _target_node(checked, to)
        roots.append(node)
        results = {name: Ref(node, name) for name in names}
    elif to is not None:
        results = {to: declared[to]}
    elif chosen is None:
        results = declared
    for target in chosen or ():
        if target in declared:
            results[target] = declared[target]
        else:
            node, names = _target_node(checked, target)
            roots.append(node)
            for name in names:  # outputs of two nodes may have the same name
                results[f"{node}.{name}" if name in results else name] = Ref(node, name)
    wanted: dict[str, Ref] = {}
    literals: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Ref) and value.node != INPUTS:
            wanted[name] = Ref(value.node, value.output or next(iter(checked.specs[value.node].outputs)))
            roots.append(value.node)
        else:  # a pipeline input, or a value that a sub-graph passes through
            literal = checked.flat.inputs[value.output or ""].default if isinstance(value, Ref) else value
            literals[name] = unwrapped(literal)
    return wanted, literals, list(dict.fromkeys(roots))


def _target_node(checked: Checked, target: str) -> tuple[str, list[str]]:
    ref = _reference(target)
    if ref is not None and ref.node in checked.flat.nodes and not checked.flat.nodes[ref.node].enabled:
        raise PipelineError([Problem("disabled", f"{ref.node} is disabled, so it has no output")], checked.flat.file)
    if ref is None or ref.node not in checked.specs:
        message, known = f"there is no output or node {target!r}", [*checked.flat.outputs, *checked.specs]
        raise PipelineError([Problem("unknown-node", message, hint=hint_choices(target, known))], checked.flat.file)
    outputs = checked.specs[ref.node].outputs
    if ref.output is not None and ref.output not in outputs:
        message, hint = f"{ref.node} has no output {ref.output!r}", hint_choices(ref.output, outputs)
        raise PipelineError([Problem("unknown-output", message, hint=hint)], checked.flat.file)
    return ref.node, [ref.output] if ref.output else list(outputs)


def _actions(plan: Plan, cache: MemoryCache | None, disk: DiskCache | None) -> dict[str, tuple[str, str]]:
    actions: dict[str, tuple[str, str]] = {}
    stack = list(plan.roots)
    while stack:
        step = plan.steps[stack.pop()]
        if step.name in actions:
            continue
        known = step.name not in plan.keys.unsettled
        if known and step.cache != "never" and cache is not None and step.key in cache:
            actions[step.name] = "reuse", "in the memory cache"
        elif known and step.cache == "disk" and disk is not None and step.key in disk:
            actions[step.name] = "reuse", "in the disk cache"
        else:
            actions[step.name] = "run", "runs for its effect" if step.spec.output else "not in a cache"
            stack.extend(step.eager_parents)
    for name in plan.steps:
        lazily = any(name in reader.parents for reader in plan.steps.values() if reader.name in actions and reader.open)
        why = "evaluated only if a lazy input asks for it" if lazily else "what needs it is reused or not evaluated"
        actions.setdefault(name, ("skip", why if name not in plan.maybe else "runs if its branch is taken"))
    first: dict[int, str] = {}
    for name in plan.steps:  # the first in the order of the run
        if actions[name][0] == "run" and plan.steps[name].is_shared and name not in plan.keys.unsettled:
            other = first.setdefault(plan.keys.made(name).number, name)
            if other != name:
                actions[name] = "reuse", f"the same as {other}"
    return actions
