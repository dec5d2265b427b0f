"""The plan of a run: the nodes it needs, an order for them, and their cache keys."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import networkx as nx

from fopru_graph.graph.cache import DiskCache, MemoryCache
from fopru_graph.graph.check.binding import Checked
from fopru_graph.graph.check.validate import check, upstream
from fopru_graph.graph.declare.node import CachePolicy, NodeSpec, accepts, settle
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import PipelineError, Problem, errors_of, hint_choices
from fopru_graph.graph.model import Model
from fopru_graph.graph.values import INPUTS, Ref, has_refs, parse_reference, refs_in, tagged
from fopru_graph.identity import digest, source_of, versions_digest


@dataclass(frozen=True, eq=False)
class Step:
    """One node of a plan.

    ``inputs`` are complete, with `Ref` for links; ``location`` is ``file:line``.
    """

    name: str
    spec: NodeSpec
    inputs: Mapping[str, Any]
    cache: CachePolicy
    parents: frozenset[str]
    lazy_parents: frozenset[str]
    location: str | None
    keys: _Keys = field(repr=False)

    @property
    def made_of(self) -> Mapping[str, Any]:
        """What the cache key is made of (`ingredients`)."""
        return self.keys.made[self.name][1]

    @property
    def key(self) -> str:
        """The cache key: the digest of `made_of`."""
        return self.keys.made[self.name][0]

    @property
    def eager_parents(self) -> frozenset[str]:
        """The nodes whose outputs are needed whatever the lazy inputs."""
        return self.parents - self.lazy_parents


class _Keys:
    """The keys of all steps of a plan, made when the first is asked for: fingerprints may read files and load torch."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self._steps = steps

    @cached_property
    def made(self) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        """For each step its key, and what the key is made of."""
        keys: dict[str, str] = {}
        sources = {cls: source_of(cls).key() for cls in {step.spec.cls for step in self._steps.values()}}
        made: dict[str, tuple[str, Mapping[str, Any]]] = {}
        for name, step in self._steps.items():  # parents come first
            parts = ingredients(step.spec, step.inputs, keys, sources[step.spec.cls])
            keys[name] = digest(parts)
            made[name] = keys[name], parts
        return made


@dataclass(frozen=True)
class Plan:
    """The steps in an order in which they can run, and the wanted outputs.

    ``wanted`` maps the name of a result to an output of a node, ``literals`` to a value that is known already. The run
    starts from the nodes ``roots``. ``flat`` is ``graph`` without sub-graphs.
    """

    graph: Model
    flat: Model
    steps: Mapping[str, Step]
    wanted: Mapping[str, Ref]
    roots: tuple[str, ...]
    literals: Mapping[str, Any] = field(default_factory=dict)

    def explain(self, cache: MemoryCache | None = None, disk: DiskCache | None = None) -> dict[str, dict[str, Any]]:
        """For every node its ``action`` (run, reuse or skip), ``why``, its ``key``, and what the key is ``made_of``."""
        actions = _actions(self, cache, disk)
        report: dict[str, dict[str, Any]] = {}
        for name in self.flat.nodes:
            step = self.steps.get(name)
            action, why = actions.get(name, ("skip", "no wanted output needs it"))
            made_of = dict(step.made_of) if step else None
            report[name] = {"action": action, "why": why, "key": step.key if step else None, "made_of": made_of}
        return report


def plan(
    graph: Model, registry: Registry | None = None, targets: Iterable[str] | None = None, *, to: str | None = None
) -> Plan:
    """Plan a run of the declared outputs and the output nodes, of some ``targets``, or only up to ``to``.

    A target is the name of a declared output, or else ``node`` or ``node.output``; ``to`` is one of the latter. Raises
    `PipelineError` with all errors of the pipeline.
    """
    registry = registry or graph.registry
    partial = targets is not None or to is not None
    checked = check(graph, registry, to_run=True, partial=partial)
    if errors := errors_of(checked.problems):
        raise PipelineError(errors, graph.file)
    chosen = None if targets is None else list(targets)
    wanted, literals, roots = _targets(checked, chosen, to)
    needed = nx.DiGraph(checked.links.subgraph(upstream(checked.links, roots)))
    order = {name: index for index, name in enumerate(checked.flat.nodes)}
    steps: dict[str, Step] = {}
    keys = _Keys(steps)
    for name in nx.lexicographical_topological_sort(needed, key=order.__getitem__):
        steps[name] = _step(checked, name, keys)
    return Plan(graph, checked.flat, steps, wanted, tuple(roots), literals)


def _step(checked: Checked, name: str, keys: _Keys) -> Step:
    entry, spec, inputs = checked.flat.nodes[name], checked.specs[name], checked.bound[name]
    lazy = set(spec.lazy_inputs())
    eager = {ref.node for key, value in inputs.items() if key not in lazy for _, ref in refs_in(value)}
    parents = {ref.node for value in inputs.values() for _, ref in refs_in(value)}
    line = entry.origin.line if entry.origin else entry.line
    location = f"{checked.flat.file or 'line'}:{line}" if line else None
    policy = cast(CachePolicy, entry.cache or spec.cache)
    if spec.output and policy != "never":  # only `done` can say that an effect is still there
        policy = "memory" if hasattr(spec.cls, "done") else "never"
    return Step(name, spec, inputs, policy, frozenset(parents), frozenset(parents - eager), location, keys)


def _targets(
    checked: Checked, chosen: list[str] | None, to: str | None
) -> tuple[dict[str, Ref], dict[str, Any], list[str]]:
    """The wanted outputs of nodes, the wanted values that are known already, and the nodes to start from."""
    declared = {name: output.ref for name, output in checked.flat.outputs.items()}
    results: dict[str, Any] = {}
    roots: list[str] = []
    if to is not None:
        node, names = _target_node(checked, to)
        roots.append(node)
        results = {name: Ref(node, name) for name in names}
    elif chosen is None:
        results = declared
        roots = [name for name, spec in checked.specs.items() if spec.output]
    for target in chosen or ():
        if target in declared:
            results[target] = declared[target]
        else:
            node, names = _target_node(checked, target)
            roots.append(node)
            for name in names:  # outputs of two nodes may have the same name
                results[f"{node}.{name}" if name in results else name] = Ref(node, name)
    if not results and not roots:
        raise PipelineError([Problem("no-outputs", "nothing was asked for, so nothing would run")], checked.flat.file)
    wanted: dict[str, Ref] = {}
    literals: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Ref) and value.node != INPUTS:
            wanted[name] = Ref(value.node, value.output or next(iter(checked.specs[value.node].outputs)))
            roots.append(value.node)
        else:  # a pipeline input, or a value that a sub-graph passes through
            literals[name] = checked.flat.inputs[value.output or ""].default if isinstance(value, Ref) else value
    return wanted, literals, list(dict.fromkeys(roots))


def _target_node(checked: Checked, target: str) -> tuple[str, list[str]]:
    ref = parse_reference("$" + target.removeprefix("$"))
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
        if step.cache != "never" and cache is not None and step.key in cache:
            actions[step.name] = "reuse", "in the memory cache"
        elif step.cache == "disk" and disk is not None and step.key in disk:
            actions[step.name] = "reuse", "in the disk cache"
        else:
            actions[step.name] = "run", "runs for its effect" if step.spec.output else "not in a cache"
            stack.extend(step.eager_parents)
    for name in plan.steps:
        lazily = any(name in reader.lazy_parents for reader in plan.steps.values() if reader.name in actions)
        why = "evaluated only if a lazy input asks for it" if lazily else "what needs it is reused or not evaluated"
        actions.setdefault(name, ("skip", why))
    return actions


# -- cache keys --------------------------------------------------------------------------------------------------------


def fingerprint(spec: NodeSpec, inputs: Mapping[str, Any]) -> tuple[Any, frozenset[str]]:
    """What the node's ``fingerprint`` method says, as JSON, and the names of the inputs that it stands for.

    If the method fails (e.g. a file is missing) or needs a linked input, the fingerprint is a fresh random value: a
    cached result must not be reused for a state that is unknown.
    """
    if not hasattr(spec.cls, "fingerprint"):
        return None, frozenset()
    hook = spec.cls().fingerprint  # type: ignore[attr-defined]  # optional
    given = accepts(hook, {name: value for name, value in inputs.items() if not has_refs(value)})
    if given is not None:
        with contextlib.suppress(Exception):
            return json.loads(json.dumps(settle(hook(**given)), sort_keys=True)), frozenset(given)
    return {"unknown": uuid.uuid4().hex}, frozenset()


def ingredients(
    spec: NodeSpec, inputs: Mapping[str, Any], keys: Mapping[str, str], source: Mapping[str, Any]
) -> dict[str, Any]:
    """What a node's key is made of (see `fopru_graph.identity`). ``keys`` of earlier nodes stand for their names.

    Inputs that ``fingerprint`` takes are in the key only through what it returns: the content of a file, not its path.
    """

    def parent(ref: Ref) -> list[str]:
        return [keys[ref.node], ref.output or "output"]

    state, covered = fingerprint(spec, inputs)
    return {
        "type": spec.type,
        "version": spec.version,
        "source": source,
        "versions": versions_digest(),
        "inputs": {name: tagged(value, parent) for name, value in inputs.items() if name not in covered},
        "fingerprint": state,
    }
