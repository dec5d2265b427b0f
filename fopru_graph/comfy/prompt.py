"""A pipeline as ComfyUI's API prompt: every node with its widgets and links, as *Save (API)* writes it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from fopru_graph.comfy.plan import IMAGE, MOST, PICTURES, NodePlan, Slot, plan_of
from fopru_graph.errors import Caution, UserError
from fopru_graph.graph import MISSING, Graph, GraphNode, PipelineError, Ref
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.errors import errors_of
from fopru_graph.graph.sockets import BadLiteral
from fopru_graph.graph.values import INPUTS, INVALID, Given, Value, has_invalid, has_refs, replace_refs
from fopru_graph.paths import absolute_path

Prompt: TypeAlias = dict[str, dict[str, Any]]
(_GATHERED,) = PICTURES.slots  # the links of the node that gathers pictures


def prompt_of(graph: Graph) -> Prompt:
    """The pipeline as nodes by id: ``class_type``, ``inputs`` with every widget's value, and links ``[id, output]``.

    Ids are the names of the nodes, ``host:inner`` for those of sub-graphs. Inputs of the pipeline are their defaults,
    and disabled nodes are led around; see `header` for what keeps both.

    Raises:
        PipelineError: the pipeline has problems.
        UserError: it says what no canvas can: an input without a value, a list of prompts, an object given in Python.
    """
    if errors := errors_of(graph.problems()):
        raise PipelineError(errors, graph.file)
    flat = expand(graph)[0]
    prompt = encode(flat)
    if not prompt:
        raise UserError("no node of the pipeline is enabled, so there is nothing to put on a canvas", None)
    _warn_of_paths(flat)
    return prompt


def encode(flat: Graph) -> Prompt:
    """The prompt of a pipeline without sub-graphs; what is missing or wrong in it is left out.

    Raises:
        UserError: as `prompt_of`.
    """
    return _Encoder(flat).prompt


def node_id(name: str) -> str:
    """The id of a node of the flat pipeline: what we call ``host/inner`` is ``host:inner`` on a canvas."""
    return name.replace("/", ":")


class _Encoder:
    def __init__(self, flat: Graph) -> None:
        self.flat = flat
        self.prompt: Prompt = {}
        self._plans: dict[str, NodePlan] = {}
        for entry in flat.nodes.values():
            if entry.enabled and (plan := self._plan(entry)) is not None:
                inputs: dict[str, Any] = {}
                for slot in plan.slots:
                    self._put(entry, slot, inputs)
                self._add(node_id(entry.name), plan.type, inputs)

    def _add(self, name: str, class_type: str, inputs: dict[str, Any]) -> None:
        self.prompt[name] = {"inputs": inputs, "class_type": class_type, "_meta": {"title": name}}

    def _plan(self, entry: GraphNode) -> NodePlan | None:
        if entry.type not in self._plans and (spec := self.flat.registry.find(entry.type)) is not None:
            self._plans[entry.type] = plan_of(spec)
        return self._plans.get(entry.type)

    def _put(self, entry: GraphNode, slot: Slot, inputs: dict[str, Any]) -> None:
        """Write the value or the links of one input."""
        value = self._value(entry, slot)
        if value is INVALID or value is MISSING or has_invalid(value):
            return
        if slot.growing:
            inputs |= self._links(entry, slot, value, slot)
        elif isinstance(value, Ref):
            if link := self._link(value):
                inputs[slot.name] = link
        elif slot.kind == "link":
            if value not in (None, []):
                inputs[slot.name] = self._gathered(entry, slot, value)
        else:
            inputs[slot.name] = self._widget(entry, slot, value)

    def _value(self, entry: GraphNode, slot: Slot) -> Value:
        if slot.name not in entry.inputs:
            return MISSING if slot.socket.required else slot.socket.default_value()
        value = replace_refs(entry.inputs[slot.name], self._resolved)
        if entry.origin is not None and slot.socket.path is not None and isinstance(value, str):
            return _without_folder(value, self.flat.folder, slot.socket.path.or_name)
        return value

    def _resolved(self, ref: Ref) -> Value:
        if ref.node != INPUTS:
            return ref
        name = ref.output or ""
        if name not in self.flat.inputs:
            return INVALID
        if (value := self.flat.inputs[name].default) is MISSING:
            hint = f"give it a default, or set it: --set {name}=VALUE"
            raise UserError(f"the pipeline input {name} has no value, and a canvas shows one", hint)
        return value

    def _link(self, ref: Ref) -> list[Any]:
        """The link to a node's output; empty if there is none of that name."""
        entry = self.flat.nodes.get(ref.node)
        plan = self._plan(entry) if entry is not None and entry.enabled else None
        if plan is None or (ref.output is not None and ref.output not in plan.spec.outputs):
            return []
        return [node_id(ref.node), plan.index(ref.output)]

    def _links(self, entry: GraphNode, slot: Slot, value: Value, growing: Slot) -> dict[str, Any]:
        """The links of a list, called as those of the input ``growing``."""
        refs = [value] if isinstance(value, Ref) else value or []
        if len(refs) > MOST:
            raise _refusal(entry, slot, f"has {len(refs)} links, and a canvas shows up to {MOST}")
        if not all(isinstance(ref, Ref) for ref in refs):
            raise _refusal(entry, slot, f"cannot be {_text(value)} on a canvas", "link it to a node")
        links = [link for link in map(self._link, refs) if link]
        return {f"{growing.name}.{growing.member}{number}": link for number, link in enumerate(links)}

    def _gathered(self, entry: GraphNode, slot: Slot, value: Value) -> list[Any]:
        """The link to a new node that gathers a list of pictures."""
        if not isinstance(value, list) or IMAGE not in slot.types:
            raise _refusal(entry, slot, f"cannot be {_text(value)} on a canvas", "link it to a node")
        inputs = self._links(entry, slot, value, _GATHERED)
        name = node_id(f"{entry.name}_{slot.name}")
        while name in self.prompt or name.replace(":", "/") in self.flat.nodes:
            name += "_"
        self._add(name, PICTURES.type, inputs)
        return [name, 0]

    def _widget(self, entry: GraphNode, slot: Slot, value: Value) -> Any:
        if isinstance(value, Given):
            raise _refusal(entry, slot, "is an object given in Python, which no file holds", "set it to a file's path")
        if has_refs(value):
            raise _refusal(entry, slot, f"cannot be {_text(value)} on a canvas", "link it to a single node")
        try:
            shown = slot.to_widget(value)
        except BadLiteral as error:
            raise _refusal(entry, slot, error.message, error.hint) from None
        if slot.minimum is not None and slot.maximum is not None and not slot.minimum <= shown <= slot.maximum:
            bounds = f"{slot.minimum:g} to {slot.maximum:g}"
            raise _refusal(entry, slot, f"is {shown}, and a canvas shows {bounds}", "choose a number between these")
        return shown


def _refusal(entry: GraphNode, slot: Slot, reason: str, hint: str | None = None) -> UserError:
    where = f" ({entry.origin.file})" if entry.origin is not None else ""
    return UserError(f"{entry.name}.{slot.name}{where} {reason}", hint)


def _text(value: Value) -> str:
    text = json.dumps(replace_refs(value, str), ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _without_folder(path: str, folder: Path | None, or_name: bool) -> str:
    """A path that a sub-graph made absolute, relative to the pipeline's folder again: no prompt tells where that is."""
    base = os.path.abspath(folder or "")
    if not path.startswith(base + os.sep):
        return path
    return ("./" if or_name else "") + os.path.relpath(path, base)


def _warn_of_paths(flat: Graph) -> None:
    """Tell of files that lie where ComfyUI opens none."""
    found = list(_files(flat))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        text = (
            f"{found[0]}{more}: ComfyUI opens only what lies in its own input folder, and models in its models folder"
        )
        warnings.warn(Caution(text), stacklevel=3)


def _files(flat: Graph) -> Iterable[str]:
    for entry in flat.nodes.values():
        spec = flat.registry.find(entry.type)
        for name, socket in spec.inputs.items() if spec is not None and entry.enabled else ():
            value = entry.inputs.get(name)
            if isinstance(value, Ref) and value.node == INPUTS:
                value = flat.inputs[value.output or ""].default
            if socket.path is None or not isinstance(value, str):
                continue
            if absolute_path(value, flat.folder, or_name=socket.path.or_name) != value or os.path.isabs(value):
                yield f"{entry.name}.{name} is {value}"
