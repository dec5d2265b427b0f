"""Sub-graphs: the nodes of a YAML file, named ``outer/inner``, replace the node whose type names that file."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fopru_graph.graph.check.binding import declared_problem
from fopru_graph.graph.check.bypass import bypass
from fopru_graph.graph.check.places import path_of_input, placed_inputs
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.errors import PipelineError, Problem, hint_choices
from fopru_graph.graph.model import (
    ENABLED,
    GraphNode,
    Model,
    Origin,
    inner_input,
    is_block,
    is_switch,
    read_switch,
)
from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.graph.values import (
    INPUTS,
    INVALID,
    MAX_VALUE_DEPTH,
    MISSING,
    Ref,
    Value,
    has_invalid,
    has_refs,
    refs_in,
    replace_refs,
)
from fopru_graph.graph.yaml.read import read_bytes, read_text
from fopru_graph.graph.yaml.tree import MAX_VALUES

MAX_NESTING = 8
MAX_NODES = 10_000  # of the flat pipeline, sub-graphs counted too
AnyModel = TypeVar("AnyModel", bound=Model)


def expand(model: AnyModel, registry: Registry | None = None) -> tuple[AnyModel, list[Problem]]:
    """A flat copy of the pipeline and the problems of its sub-graphs (``blocks``), or the pipeline if it has none.

    Nothing in the copy refers to a disabled node, see `bypass`.

    The copy's ``blocks`` holds the texts of the files. A problem in a sub-graph carries the outer node and its line,
    and its message names ``block.yaml:LINE``. Sub-graphs may be nested `MAX_NESTING` levels deep.
    """
    if not any(is_block(entry.type) or not entry.enabled for entry in model.nodes.values()):
        return model, []
    flat = type(model)(model.name, model.description, registry or model.registry)
    problems = _Expansion(model, flat).problems
    return flat, [*problems, *bypass(flat, flat.registry)]


def block_path(type_name: str, folder: str = "") -> str:
    """What ``blocks`` calls a sub-graph: its path relative to the pipeline's folder, or the name of one that ships."""
    if type_name in shipped_pipelines():
        return type_name
    return posixpath.normpath(posixpath.join(folder, type_name))


class _Expansion:
    def __init__(self, root: Model, flat: Model) -> None:
        self.root = root
        self.flat = flat
        self.problems: list[Problem] = []
        flat.file, flat.folder, flat.inputs = root.file, root.folder, root.inputs
        self._outputs: dict[str, dict[str, Value]] = {}  # for each block, the value behind each of its outputs
        self._read: dict[str, Model | None] = {}  # by path; None for a file that cannot be read
        self._full = False
        self._resolved: dict[tuple[str, str], Value] = {}  # lists and mappings behind outputs; MISSING while at it
        for entry in root.nodes.values():
            if is_block(entry.type):
                self._block(entry, "", ())
            else:
                flat.put(replace(entry, inputs=dict(entry.inputs)))
        for entry in flat.nodes.values():
            entry.inputs = {key: self._resolve(value, entry, key) for key, value in entry.inputs.items()}
        for name, output in root.outputs.items():
            flat.outputs[name] = replace(output, ref=self._resolve(output.ref, GraphNode("outputs", "")))

    def _block(self, outer: GraphNode, folder: str, above: tuple[str, ...]) -> None:
        """Add the nodes of the block that ``outer`` names; ``folder`` is the folder of the including file."""
        self._outputs[outer.name] = {}
        path = block_path(outer.type, folder)
        block = None if self._full else self._load(outer, path, above)
        if block is None:
            return
        if len(self.flat.nodes) + len(self._outputs) + len(block.nodes) > MAX_NODES:
            self._full = True
            self._add(outer, "bad-subgraph", f"with its sub-graphs the pipeline has more than {MAX_NODES} nodes")
            return
        around, here = Path(self.root.folder or "", folder), self._folder(path)
        given, inside = self._given(outer, block, around, here), self._inside(outer, block)
        prefix = outer.name + "/"

        def inner(ref: Ref) -> Value:
            if ref.node == INPUTS:
                return given.get(ref.output or "", INVALID)
            return Ref(prefix + ref.node, ref.output)

        for name, output in block.outputs.items():
            self._outputs[outer.name][name] = replace_refs(output.ref, inner)
        root = outer.origin.outer if outer.origin else outer.name
        line = outer.origin.line if outer.origin else outer.line
        for entry in block.nodes.values():
            origin = Origin(root, line, path, entry.line)
            expanded = replace(entry, name=prefix + entry.name, line=line, inputs={}, input_lines={}, origin=origin)
            unknown = (r for _, r in refs_in(entry.inputs) if r.node == INPUTS and r.output not in block.inputs)
            for ref in dict.fromkeys(unknown):
                hint = hint_choices(ref.output or "", block.inputs)
                self._add(expanded, "unknown-pipeline-input", f"{ref} is no input of this block", hint)
            for key, value in placed_inputs(self.flat.registry, entry.type, entry.inputs, here).items():
                expanded.inputs[key] = self._bounded(replace_refs(value, inner), expanded, key)
            expanded.enabled = entry.enabled and outer.enabled
            outside = inside.get(entry.name, {})
            self._set_inside(expanded, placed_inputs(self.flat.registry, entry.type, outside, around))
            if is_block(expanded.type):
                self._block(expanded, posixpath.dirname(path), (*above, path))
            else:
                self.flat.put(expanded)

    def _set_inside(self, entry: GraphNode, inputs: dict[str, Value]) -> None:
        """Set what the outer node sets in a node of its block: inputs, or whether it is enabled."""
        spec = self.flat.registry.find(entry.type)
        if ENABLED in inputs and is_switch(ENABLED, spec):
            try:
                entry.enabled &= read_switch(inputs.pop(ENABLED), entry)
            except PipelineError as error:
                self.problems += error.problems
        entry.inputs |= inputs

    def _load(self, outer: GraphNode, path: str, above: tuple[str, ...]) -> Model | None:
        reason, hint = self._refusal(outer, path, above)
        if reason:
            self._add(outer, "bad-subgraph", reason, hint)
            return None
        if path not in self._read:
            self._read[path] = self._parse(outer, path)
        return self._read[path]

    def _parse(self, outer: GraphNode, path: str) -> Model | None:
        block = Model(registry=self.flat.registry)
        try:
            read_text(block, self._text(path), path)
        except PipelineError as error:
            self._block_problems(outer, path, error.problems)
            return None
        self._block_problems(outer, path, block.document_problems)
        return block

    def _refusal(self, outer: GraphNode, path: str, above: tuple[str, ...]) -> tuple[str | None, str | None]:
        kind = outer.type
        ships = kind in shipped_pipelines()
        if "://" in kind or kind.startswith(("/", "~")) or "\\" in kind or kind[1:2] == ":":
            return f"the sub-graph {kind} is no relative path", "write ./block.yaml, relative to this file"
        if not ships and not kind.endswith((".yaml", ".yml")):
            return f"the sub-graph {kind} is no .yaml file", "write ./block.yaml, relative to this file"
        if path in above or (self.root.file and path == posixpath.basename(self.root.file) and self.root.folder):
            return "the sub-graphs include each other: " + " -> ".join((*above, path)), None
        if len(above) >= MAX_NESTING:
            return f"sub-graphs are nested deeper than {MAX_NESTING} levels", None
        if not ships and path not in self.root.blocks and self.root.folder is None:
            return f"cannot find {kind}: this graph was not read from a file", "set graph.folder"
        return None, None

    def _text(self, path: str) -> str | bytes:
        text: str | bytes
        if path in self.root.blocks:
            text = self.root.blocks[path]
        else:
            folder = self.root.folder or Path()  # without a folder _refusal has let only names of shipped files pass
            text = read_bytes(shipped_pipelines().get(path, folder / path), regular=True)
        self.flat.blocks[path] = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return text

    def _folder(self, path: str) -> Path:
        """The folder of a block: relative paths in its text are relative to that."""
        ships = shipped_pipelines().get(path)
        return ships.parent if ships else Path(self.root.folder or "", posixpath.dirname(path))

    def _given(self, outer: GraphNode, block: Model, above: Path, here: Path) -> dict[str, Value]:
        """The value of each of the block's inputs: the outer node's, or the default, with paths of their folders."""
        for name in outer.inputs:
            if name not in block.inputs and inner_input(name) is None:
                hint = hint_choices(name, block.inputs)
                self._add(outer, "unknown-input", f"{outer.type} has no input {name!r}", hint, name)
        values: dict[str, Value] = {}
        for name, declared in block.inputs.items():
            value = outer.inputs.get(name, declared.default)
            if value is MISSING:
                hint = f"it is a {declared.type}"
                self._add(outer, "missing-input", f"{outer.type} needs a value for {name!r}", hint, name)
                value = INVALID
            elif has_refs(value) or has_invalid(value):
                pass  # the socket that a link leads to judges it
            elif problem := declared_problem(declared.type, value, self.flat.registry):
                self._add(outer, problem.code, f"{outer.name}.{name} {problem.message}", problem.hint, name)
                value = INVALID
            elif path := path_of_input(self.flat.registry, block, name):
                value = path.place(value, above if name in outer.inputs else here)
            values[name] = value
        return values

    def _inside(self, outer: GraphNode, block: Model) -> dict[str, dict[str, Value]]:
        """The inputs that the outer node sets in nodes of the block, by their names: ``prune.ratio`` that of prune."""
        inside: dict[str, dict[str, Value]] = {}
        for key, value in outer.inputs.items():
            if (place := inner_input(key)) is None:
                continue
            node, name = place
            if node in block.nodes:
                inside.setdefault(node, {})[name] = value
            else:
                hint = hint_choices(node, block.nodes)
                self._add(outer, "unknown-node", f"{outer.type} has no node {node!r}", hint, key)
        return inside

    def _resolve(self, value: Value, entry: GraphNode, key: str | None = None, depth: int = 0) -> Value:
        """Follow references through blocks: a block's output may be that of an inner block, or a value given to it."""
        source, steps = None, 0
        while isinstance(value, Ref) and value.node in self._outputs:
            outputs = self._outputs[value.node]
            name = value.output or (next(iter(outputs)) if len(outputs) == 1 else None)
            steps += 1
            if name is None or name not in outputs:
                self._bad_output(value, outputs, entry, key)
                return INVALID
            if steps > len(self._outputs):
                self._add(entry, "cycle", f"{value} leads back to itself", key=key)
                return INVALID
            source, value = (value.node, name), outputs[name]
        if not isinstance(value, (list, dict)):
            return value
        if source not in self._resolved:
            if source:
                self._resolved[source] = MISSING
            value = self._bounded(value, entry, key, depth)
            value = replace_refs(value, lambda ref: self._resolve(ref, entry, key, depth + 1))
            value = self._bounded(value, entry, key)
            if source is None:
                return value
            self._resolved[source] = value
        elif self._resolved[source] is MISSING:
            self._add(entry, "cycle", f"the output {source[1]!r} of ${source[0]} leads back to itself", key=key)
            return INVALID
        return self._resolved[source]

    def _bounded(self, value: Value, entry: GraphNode, key: str | None, depth: int = 0) -> Value:
        """The value, or `INVALID` with a problem: what blocks hand on can double with each of them."""
        if _is_larger(value, MAX_VALUES, MAX_VALUE_DEPTH - depth):
            limits = f"{MAX_VALUES} values or {MAX_VALUE_DEPTH} levels"
            self._add(entry, "too-many-values", f"what sub-graphs hand on here has more than {limits}", key=key)
            return INVALID
        return value

    def _bad_output(self, ref: Ref, outputs: dict[str, Value], entry: GraphNode, key: str | None) -> None:
        if not outputs:
            return  # the block could not be read, which is reported already
        code = "ambiguous-output" if ref.output is None else "unknown-output"
        what = "has several outputs" if ref.output is None else f"has no output {ref.output!r}"
        self._add(entry, code, f"${ref.node} {what}", hint_choices(ref.output or "", outputs), key)

    def _block_problems(self, outer: GraphNode, path: str, problems: list[Problem]) -> None:
        for problem in problems:
            inner = ".".join(part for part in (problem.node, problem.input) if part)
            location = f"{path}:{problem.line}" if problem.line else path
            text = f"{location}: {inner + ': ' if inner else ''}{problem.message}"
            root, line = (outer.origin.outer, outer.origin.line) if outer.origin else (outer.name, outer.line)
            self.problems.append(replace(problem, node=root, input=None, line=line, message=text))

    def _add(self, entry: GraphNode, code: str, message: str, hint: str | None = None, key: str | None = None) -> None:
        self.problems.append(entry.problem(code, message, key, hint))


def _is_larger(value: Value, most: int, depth: int) -> bool:
    """Whether a value holds more than ``most`` values, itself counted, or more than ``depth`` levels of collections."""
    stack, count = [(value, 0)], 0
    while stack:
        item, level = stack.pop()
        count += 1
        if count > most or level > depth:
            return True
        if isinstance(item, (list, dict)):
            stack.extend((child, level + 1) for child in (item.values() if isinstance(item, dict) else item))
    return False
