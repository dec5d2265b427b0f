"""What was changed on a canvas, carried over into the pipeline that the canvas was made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fopru_graph.comfy.blocks import Nodes, exports_of, flat_names, flattened, renamed_nodes
from fopru_graph.comfy.decode import decode
from fopru_graph.comfy.names import Names
from fopru_graph.comfy.prompt import encode
from fopru_graph.errors import UserError
from fopru_graph.graph import MISSING, Graph, GraphNode, PipelineError, Ref
from fopru_graph.graph.check.binding import declared_problem
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.errors import errors_of
from fopru_graph.graph.model import is_block
from fopru_graph.graph.values import INPUTS, Value, has_refs, refs_in, replace_refs


def carried(graph: Graph, wanted: Nodes) -> Graph | None:
    """The pipeline with what differs on the canvas: an equal one if nothing does, None if it cannot be carried over.

    A changed value that is an input's of the pipeline becomes that input's default, any other is set on its node. A
    sub-graph that cannot hold a change is replaced by its nodes, ``host/inner`` as ``host_inner``.
    """
    for _ in range(len(graph.nodes) + 1):
        attempt = _Attempt(graph, wanted)
        if attempt.succeeds():
            return attempt.work
        if not attempt.stuck:
            return None
        graph, wanted = flattened(graph, wanted, attempt.stuck)
    return None


def nodes_on_canvas(graph: Graph) -> dict[str, GraphNode]:
    """What one reads back from a prompt of this pipeline, problems and all, by flat names.

    Raises:
        UserError: no canvas can hold it.
        PipelineError: it has a value that its node does not take.
    """
    return flat_names(decode(encode(expand(graph)[0]), graph.registry))


class _Attempt:
    """A copy of the pipeline (``work``) that is changed until it looks as wanted, and the sub-graphs that hinder it."""

    def __init__(self, graph: Graph, wanted: Nodes) -> None:
        self.work = graph.copy()
        self.wanted = wanted
        self.stuck: set[str] = set()
        self._hosts = {name for name, entry in graph.nodes.items() if is_block(entry.type)}
        self._names = Names([*graph.nodes, INPUTS])

    def succeeds(self) -> bool:
        """Change the copy; whether it then looks as wanted."""
        try:
            if self._differing():
                self._enable()
                self._leave_out(nodes_on_canvas(self.work))
                self._add_new()
                self._change(nodes_on_canvas(self.work))
                self._drop_outputs()
                self.stuck |= {self._host(name) for name in self._differing()} & self._hosts
                return not self.stuck and not self._differing()
        except (UserError, PipelineError):
            return False
        return True

    def _differing(self) -> set[str]:
        """The nodes that are not as wanted."""
        now = nodes_on_canvas(self.work)
        wanted = renamed_nodes(self.wanted, lambda name: self._names.known.get(name, name))
        return {name for name in {*now, *wanted} if not _alike(now.get(name), wanted.get(name))}

    def _host(self, name: str) -> str:
        return name.partition("/")[0]

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _enable(self) -> None:
        """Enable disabled nodes that are on the canvas."""
        for name in self.wanted:
            entry = self.work.nodes.get(self._host(name))
            if entry is not None and (entry.name == name or entry.name in self._hosts):
                entry.enabled = True

    def _leave_out(self, now: Nodes) -> None:
        """Disable what is led around on the canvas, and remove what else is gone."""
        gone = [name for name in now if name not in self.wanted]
        hosts = {host for host in self._hosts if all(name in gone for name in now if self._host(name) == host)}
        outer = {self._host(name) if self._host(name) in hosts else name for name in gone}
        for name in outer:
            if "/" in name:
                self.work.set(f"{name}.enabled", False)
            else:
                self.work.nodes[name].enabled = False
        around = nodes_on_canvas(self.work)
        wrong = {problem.node for problem in errors_of(expand(self.work)[1])}
        explained = {
            self._host(ref.node)
            for name, entry in around.items()
            if self._host(name) not in wrong and _alike(entry, self.wanted.get(name))
            for _, ref in refs_in(now[name].inputs)
        }
        for name in (outer & set(self.work.nodes)) - explained:
            del self.work.nodes[name]
        while lost := [e.name for e in self.work.nodes.values() if not e.enabled and self._dangles(e.inputs)]:
            for name in lost:
                del self.work.nodes[name]

    def _dangles(self, value: Value) -> bool:
        """Whether it refers to a node that is gone."""
        return any(ref.node not in self.work.nodes and ref.node != INPUTS for _, ref in refs_in(value))

    def _add_new(self) -> None:
        known = {*nodes_on_canvas(self.work), *self.work.nodes}
        new = [name for name in self.wanted if name not in known]
        if inside := {self._host(name) for name in new} & self._hosts:
            self.stuck |= inside
        for name in new:
            entry = self.wanted[name]
            self.work.put(GraphNode(self._names.of(name, entry.type), entry.type))

    # -- inputs -------------------------------------------------------------------------------------------------------

    def _change(self, now: Nodes) -> None:
        """Set every input that differs; those of the pipeline first, where all that read one of them agree."""
        changed: dict[tuple[str, str], Value] = {}
        for name, entry in self.wanted.items():
            old = now.get(self._names.known.get(name, name))
            if old is None:  # disabled in the text of a sub-graph
                self.stuck.add(self._host(name))
                continue
            if old.type != entry.type:
                self._retype(name, entry)
                old = GraphNode(name, entry.type)
            for key in {*old.inputs, *entry.inputs}:
                value = entry.inputs.get(key, MISSING)
                if not _same(old.inputs.get(key, MISSING), value):
                    changed[name, key] = value
            if name in self.work.nodes:
                written = self.work.nodes[name].inputs
                changed |= {
                    (name, key): entry.inputs.get(key, MISSING) for key in written if self._dangles(written[key])
                }
        exported = {inner: outer for outer, inner in exports_of(self.work)}
        for place in [*self._defaults(changed), *self._relinked(changed, exported)]:
            changed.pop(place, None)
        for (name, key), value in changed.items():
            self._set(self._names.known.get(name, name), key, value, exported)

    def _retype(self, name: str, entry: GraphNode) -> None:
        if name in self.work.nodes:
            self.work.put(GraphNode(name, entry.type, comment=self.work.nodes[name].comment))
        else:
            self.stuck.add(self._host(name))

    def _defaults(self, changed: Mapping[tuple[str, str], Value]) -> Iterator[tuple[str, str]]:
        """Set the inputs of the pipeline whose value was changed wherever it is read; the places that this settles."""
        flat = expand(self.work)[0]
        for name, declared in self.work.inputs.items():
            ref = Ref(INPUTS, name)
            uses = [
                (entry.name, key, value == ref)
                for entry in flat.nodes.values()
                for key, value in entry.inputs.items()
                if entry.enabled and ref in (found for _, found in refs_in(value))
            ]
            values = [self._literal(node, key, changed.get((node, key), MISSING)) for node, key, _ in uses]
            settled = all(alone and (node, key) in changed for node, key, alone in uses)
            settled = settled and _agree(values) and not any(map(has_refs, values))
            if settled and not declared_problem(declared.type, values[0], self.work.registry):
                declared.default = values[0]
                yield from [(node, key) for node, key, _ in uses]

    def _relinked(
        self, changed: Mapping[tuple[str, str], Value], exported: Mapping[Ref, Ref]
    ) -> Iterator[tuple[str, str]]:
        """Link the inputs of sub-graphs whose source is gone to the new one; the places that this settles."""
        probe = Ref(INPUTS, "")
        for host in self._hosts & set(self.work.nodes):
            inputs = self.work.nodes[host].inputs
            for name in [name for name, value in inputs.items() if self._dangles(value)]:
                inputs[name] = probe
                flat = expand(self.work)[0]
                uses = [(e.name, key) for e in flat.nodes.values() for key, value in e.inputs.items() if value == probe]
                values = [changed.get(use, MISSING) for use in uses]
                if not _agree(values):
                    self.stuck.add(host)
                    continue
                self._set(host, name, values[0], exported)
                yield from uses

    def _literal(self, name: str, key: str, value: Value) -> Value:
        """A value; of one that is left out the default."""
        spec = self.work.registry.find(self.wanted[name].type) if name in self.wanted else None
        if value is not MISSING or spec is None or key not in spec.inputs or spec.inputs[key].required:
            return value
        return spec.inputs[key].default_value()

    def _set(self, name: str, key: str, value: Value, exported: Mapping[Ref, Ref]) -> None:
        inner = name not in self.work.nodes
        if (inner and self._host(name) not in self._hosts) or self._host(name) in self.stuck:
            return

        def outer(ref: Ref) -> Ref:
            node = self._names.known.get(ref.node, ref.node)
            if node in self.work.nodes:
                return Ref(node, ref.output)
            if ref not in exported:
                self.stuck.add(self._host(node))
            return exported.get(ref, ref)

        value = replace_refs(value, outer)
        if inner:
            value = self._literal(name, key, value)
            name, key = self.work.place_of(f"{name}.{key}")
        inputs = self.work.nodes[name].inputs
        if value is MISSING:
            inputs.pop(key, None)
        else:
            inputs[key] = value

    def _drop_outputs(self) -> None:
        """Drop the outputs of the pipeline whose nodes are gone."""
        for name, output in list(self.work.outputs.items()):
            if isinstance(output.ref, Ref) and output.ref.node not in self.work.nodes:
                del self.work.outputs[name]


def _same(left: Any, right: Any) -> bool:
    return left is right or (type(left) is type(right) and bool(left == right))


def _agree(values: list[Value]) -> bool:
    """Whether there are values, and they are the same."""
    return bool(values) and values[0] is not MISSING and all(_same(value, values[0]) for value in values)


def _alike(left: GraphNode | None, right: GraphNode | None) -> bool:
    if left is None or right is None or left.type != right.type:
        return False
    keys = {*left.inputs, *right.inputs}
    return all(_same(left.inputs.get(key, MISSING), right.inputs.get(key, MISSING)) for key in keys)
