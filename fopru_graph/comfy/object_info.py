"""What ComfyUI's ``GET /object_info`` says of our nodes, without ComfyUI: a server answers the frontend with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from fopru_graph.comfy.plan import ALIASES, MOST, NodePlan, Slot

Choices: TypeAlias = Callable[[Slot], list[str]]

MODULE = "custom_nodes.fopru_graph"  # where the nodes come from; the frontend makes a badge of it
_HIDDEN = ("unique_id", "prompt", "extra_pnginfo")  # what a node is told by the server
_GROWING = "COMFY_AUTOGROW_V3"
_SEEDS = ("seed", "noise_seed")  # the frontend adds a widget that changes these after a run, unless it is told not to
UPLOADS = ("image", "video")  # kinds of files that have a button for a file of the user's


def object_info(plans: Iterable[NodePlan], choices: Choices) -> dict[str, dict[str, Any]]:
    """The nodes by type, as JSON.

    Args:
        plans: of the nodes that are offered.
        choices: the names that a ``file`` slot offers now.
    """
    return {plan.type: node_info(plan, choices) for plan in plans}


def node_info(plan: NodePlan, choices: Choices) -> dict[str, Any]:
    """One node, as JSON. A widget is always ``required``: else the frontend would show it behind the optional links."""
    inputs: dict[str, dict[str, Any]] = {"required": {}}
    for slot in plan.slots:
        inputs.setdefault("optional" if slot.optional else "required", {})[slot.name] = _input(slot, choices)
    inputs["hidden"] = {name: [name.upper()] for name in _HIDDEN}
    return {
        "input": inputs,
        "input_order": {group: list(names) for group, names in inputs.items()},
        "is_input_list": False,
        "output": [out.type for out in plan.outputs],
        "output_is_list": [False for _ in plan.outputs],
        "output_name": [out.name for out in plan.outputs],
        "output_tooltips": [None for _ in plan.outputs],
        "output_matchtypes": None,
        "name": plan.type,
        "display_name": plan.title,
        "description": plan.spec.doc,
        "python_module": MODULE,
        "category": plan.category,
        "output_node": plan.spec.output,
        "deprecated": False,
        "experimental": False,
        "dev_only": False,
        "api_node": False,
        "price_badge": None,
        "search_aliases": list(ALIASES),
        "essentials_category": None,
        "has_intermediate_output": plan.answers,
    }


def _input(slot: Slot, choices: Choices) -> list[Any]:
    shared: dict[str, Any] = {"tooltip": slot.tooltip} if slot.tooltip else {}
    shared |= {"lazy": True} if slot.socket.lazy else {}
    shared |= {"advanced": True} if slot.advanced else {}
    types = ",".join(slot.types)
    if slot.growing:
        # Of a template that is optional ComfyUI ignores the least number.
        member: dict[str, Any] = {"required": {}}
        member["optional" if slot.optional else "required"] = {slot.member: [types, shared]}
        template = {"input": member, "prefix": slot.member, "min": 0 if slot.optional else 1, "max": MOST}
        return [_GROWING, shared | {"template": template}]
    return [types, shared | widget_options(slot, choices)]


def widget_options(slot: Slot, choices: Choices) -> dict[str, Any]:
    """What makes the widget, by the names that the frontend reads; nothing for a link."""
    if slot.kind == "link":
        return {}
    if slot.kind == "file":
        return _file(slot, choices(slot))
    options: dict[str, Any] = {"default": slot.default}
    if slot.kind in ("int", "float"):
        options |= {"min": slot.minimum, "max": slot.maximum}
        options |= {"step": slot.step, "round": False} if slot.kind == "float" else {}
        options |= {"control_after_generate": False} if slot.name in _SEEDS else {}
    elif slot.kind == "choice":
        options |= {"multiselect": False, "options": list(slot.options)}
    elif slot.kind in ("text", "json"):
        options |= {"multiline": slot.multiline}
    return options


def _file(slot: Slot, names: list[str]) -> dict[str, Any]:
    """A choice of files. Without a default that is there the frontend takes the first."""
    options: dict[str, Any] = {"default": slot.default} if slot.default in names else {}
    options |= {"multiselect": False, "options": names}
    kind = slot.socket.path.kind if slot.socket.path is not None else "file"
    return options | ({f"{kind}_upload": True} if kind in UPLOADS else {})
