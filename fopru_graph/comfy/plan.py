"""The widget plan: how a node looks on ComfyUI's canvas, derived from its declaration.

The node pack, the API JSON, workflows and a server all read this plan, so that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from fopru_graph.comfy.nodes import Pictures
from fopru_graph.comfy.slots import ANY, IMAGE, LARGEST, NONE, PLAIN, Kind, Slot, link_type, slot_of
from fopru_graph.errors import UserError
from fopru_graph.graph import NodeSpec, Registry
from fopru_graph.graph.annotations import members
from fopru_graph.graph.declare.node import snake_case

__all__ = [
    "ALIASES", "ANY", "IMAGE", "LARGEST", "MOST", "NONE", "PICTURES", "PREFIX",
    "Kind", "NodePlan", "Out", "Slot", "link_type", "plan_of", "plans",
]  # fmt: skip

PREFIX = "Fopru"  # of the types of nodes
MOST = 8  # sockets of an input that grows
ALIASES = ("visual token pruning", "vision-language model", "VLM")  # what a search finds our nodes by


@dataclass(frozen=True)
class Out:
    """An output on the canvas: its name there, its link type, and the name of the node's output."""

    name: str
    type: str
    output: str


@dataclass(frozen=True, eq=False)
class NodePlan:
    """A node type on the canvas."""

    spec: NodeSpec
    slots: tuple[Slot, ...]
    outputs: tuple[Out, ...]

    @property
    def type(self) -> str:
        """The node's type in ComfyUI."""
        return PREFIX + self.spec.type

    @property
    def title(self) -> str:
        """The name that is shown."""
        return f"{self.spec.type} (FoPru)"

    @property
    def category(self) -> str:
        """The menu that it stands in."""
        return f"fopru/{self.spec.category}"

    @property
    def answers(self) -> bool:
        """Whether it makes a text that is shown on the node, also when its outputs come from a cache."""
        return not self.spec.output and any(out.type == "STRING" for out in self.outputs)

    @property
    def widgets(self) -> tuple[Slot, ...]:
        """The inputs that are widgets, in the order of a workflow's ``widgets_values``."""
        return tuple(slot for slot in self.slots if slot.kind != "link")

    def slot(self, name: str) -> Slot:
        """The input of this name; raises KeyError."""
        return {slot.name: slot for slot in self.slots}[name]

    def index(self, output: str | None) -> int:
        """The position of one of the node's outputs, as links count them; None is the only one."""
        return 0 if output is None else [out.output for out in self.outputs].index(output)


def plans(registry: Registry) -> Mapping[str, NodePlan]:
    """The plans of all node types and of `Pictures`, by their type in ComfyUI.

    Raises:
        UserError: the registry has a node type of that name, too.
    """
    types = registry.types()
    if PICTURES.spec.type in types:
        raise UserError(
            f"{types[PICTURES.spec.type].source}: ComfyUI's canvas has a node Pictures already", "rename it"
        )
    return {plan.type: plan for plan in (*map(plan_of, types.values()), PICTURES)}


@lru_cache(maxsize=512)  # several milliseconds each, and files of pipelines are read one after the other
def plan_of(spec: NodeSpec) -> NodePlan:
    """How a node type looks on the canvas."""
    return NodePlan(spec, tuple(map(slot_of, spec.inputs.values())), tuple(_outputs(spec)))


def _outputs(spec: NodeSpec) -> list[Out]:
    found = []
    for name, socket in spec.outputs.items():
        types = [link_type(part) for part in members(socket.annotation) if part is not type(None)]
        kind = IMAGE if IMAGE in types else types[0]  # a picture's path is of no use on a canvas
        found.append(Out(name if name != "output" else _single(spec, kind), kind, name))
    return found


def _single(spec: NodeSpec, kind: str) -> str:
    """The name of a node's only output: what it is, or for plain values, whose type says little, what makes them."""
    if kind == ANY:
        return "output"
    if kind not in PLAIN.values():
        return kind.removeprefix("FOPRU_").lower()
    return "path" if spec.output and kind == "STRING" else snake_case(spec.type)


PICTURES = plan_of(Pictures.spec)  # no node type of pipelines, so no registry has it
