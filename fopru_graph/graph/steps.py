"""The nodes of a plan and their cache keys."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from fopru_graph.graph.declare.node import CachePolicy, NodeSpec, accepts, settle
from fopru_graph.graph.values import Ref, has_refs, linked_nodes, refs_in, tagged, with_ancestors
from fopru_graph.identity import digest, source_of, versions_digest


@dataclass(frozen=True, eq=False)
class Step:
    """One node of a plan.

    ``inputs`` are complete, with `Ref` for links; ``location`` is ``file:line``. ``open`` are the lazy inputs of which
    only the run can tell whether they are asked for, ``idle`` those that are known not to be: they hold their defaults.
    """

    name: str
    spec: NodeSpec
    inputs: Mapping[str, Any]
    cache: CachePolicy
    location: str | None
    open: frozenset[str]
    idle: frozenset[str]
    keys: Keys = field(repr=False)

    @property
    def made_of(self) -> Mapping[str, Any]:
        """What the cache key is made of (`ingredients`)."""
        return self.keys.made(self.name).parts

    @property
    def key(self) -> str:
        """The cache key: the digest of `made_of`."""
        return self.keys.made(self.name).key

    @cached_property
    def parents(self) -> frozenset[str]:
        """The nodes whose outputs may be needed."""
        return self.read_by(self.inputs)

    @cached_property
    def eager_parents(self) -> frozenset[str]:
        """The nodes whose outputs are needed whatever the lazy inputs."""
        return self.read_by(self.inputs.keys() - self.open)

    def read_by(self, names: Iterable[str]) -> frozenset[str]:
        """The nodes that these inputs are linked to."""
        return linked_nodes(self.inputs, names)

    @property
    def is_shared(self) -> bool:
        """Whether an equal node of the same run may give its outputs: not if it runs for its effect or every time."""
        return not self.spec.output and self.cache != "never"


class Made(NamedTuple):
    """The key of a step, what it is made of, and a number that equal nodes of a run have in common."""

    key: str
    parts: Mapping[str, Any]
    number: int


class Keys:
    """The keys of the steps of a plan, each made when it is asked for: fingerprints may read files and load torch.

    Of a step's lazy inputs only those that it asked for are in its key. Until the run has told which (`settle`), its
    key and those below count all of them, and are no keys of a cache: the step is `unsettled`.
    """

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self._steps = steps
        self._made: dict[str, Made] = {}
        self._asked: dict[str, frozenset[str]] = {}
        self._final: set[str] = set()  # steps that will ask for no more
        self._sources: dict[type, Mapping[str, Any]] = {}
        self._numbers: dict[Any, int] = {}

    def made(self, name: str) -> Made:
        """The key of a step."""
        stack = [name]
        while stack:
            step = self._steps[stack[-1]]
            if missing := [parent for parent in self.parents(step.name) if parent not in self._made]:
                stack += missing
            else:
                if step.name not in self._made:
                    self._made[step.name] = self._make(step)
                stack.pop()
        return self._made[name]

    def _make(self, step: Step) -> Made:
        if step.spec.cls not in self._sources:
            self._sources[step.spec.cls] = source_of(step.spec.cls).key()
        left_out = step.idle | (step.open - self._asked.get(step.name, step.open))
        inputs = {name: value for name, value in step.inputs.items() if name not in left_out}
        keys = {ref.node: self._made[ref.node].key for value in inputs.values() for _, ref in refs_in(value)}
        parts = ingredients(step.spec, inputs, keys, self._sources[step.spec.cls])
        key = digest(parts)
        # Behind a node that runs every time, equal keys need not mean equal values.
        parents = tuple(self._made[ref.node].number for value in inputs.values() for _, ref in refs_in(value))
        same = (key, parents) if step.is_shared else step.name
        return Made(key, parts, self._numbers.setdefault(same, len(self._numbers)))

    def asked(self, name: str) -> frozenset[str]:
        """The open inputs that the step has asked for so far."""
        return self._asked.get(name, frozenset())

    def settle(self, name: str, asked: Collection[str], *, final: bool) -> None:
        """The step asks for these of its open inputs, and may ask for more once it has them unless this is ``final``.

        A cached value under the key of the first ones is right all the same: whoever made it had equal inputs, and
        asked for no more.
        """
        self._asked[name] = frozenset(asked)
        if final:
            self._final.add(name)
        changed = {name}
        for below in self._steps:  # parents come first
            if not changed.isdisjoint(self._steps[below].parents):
                changed.add(below)
        for below in changed:
            self._made.pop(below, None)
        self.__dict__.pop("unsettled", None)

    @cached_property
    def unsettled(self) -> frozenset[str]:
        """The steps whose keys depend on lazy inputs that the run has not decided on."""
        found: set[str] = set()
        for name, step in self._steps.items():
            if (step.open and name not in self._final) or not found.isdisjoint(self.parents(name)):
                found.add(name)
        return frozenset(found)

    def parents(self, name: str) -> frozenset[str]:
        """The nodes whose outputs the step reads, as far as that is known."""
        step = self._steps[name]
        if not step.open or name not in self._asked:
            return step.parents
        return step.eager_parents | step.read_by(self._asked[name])

    def taken(self, roots: Iterable[str]) -> set[str]:
        """The steps ``roots`` and all above them, without the branches that were not taken."""
        return with_ancestors(roots, self._taken_parents)

    def _taken_parents(self, name: str) -> frozenset[str]:
        step = self._steps[name]
        return step.eager_parents if step.open and name not in self._asked else self.parents(name)


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
