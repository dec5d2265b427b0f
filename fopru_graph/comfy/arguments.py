"""What a node gets of what ComfyUI passes: literals of widgets, lists of growing links, pictures of IMAGEs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fopru_graph import values
from fopru_graph.comfy import files, pictures
from fopru_graph.comfy.plan import NodePlan, Slot
from fopru_graph.errors import UserError
from fopru_graph.graph import MISSING
from fopru_graph.graph.sockets import BadLiteral


def arguments(plan: NodePlan, given: Mapping[str, Any]) -> dict[str, Any]:
    """All inputs of the node.

    Args:
        plan: of the node.
        given: by ComfyUI. A growing link is a dict of links; a link that is not evaluated, or not there, is None.

    Raises:
        UserError: a value does not fit its input, or names a file that may not be opened.
    """
    return {slot.name: argument(slot, given.get(slot.name, MISSING)) for slot in plan.slots}


def literals(plan: NodePlan, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that are known before the run, those of widgets without a link. Raises `UserError` as above."""
    known = [slot for slot in plan.widgets if given.get(slot.name, MISSING) is not None]
    return {slot.name: argument(slot, given.get(slot.name, MISSING)) for slot in known}


def argument(slot: Slot, value: Any) -> Any:
    """One input; `MISSING` is its default. Raises `UserError` for a value that does not fit."""
    if slot.growing:
        value = _together(value)
    elif pictures.is_batch(value):
        batch = pictures.of_batch(value)
        value = batch[0] if len(batch) == 1 else batch
    if value is MISSING or (value is None and slot.kind == "link"):
        if slot.socket.required and not slot.optional and not slot.socket.lazy:
            raise UserError(f"{slot.name} is missing", "link a node to it" if slot.kind == "link" else None)
        return None if slot.socket.required else slot.socket.default_value()
    if slot.kind == "link":
        return _few(slot, value)
    try:
        literal = slot.from_widget(value)
    except BadLiteral as error:
        raise UserError(f"{slot.name} {error.message}", error.hint) from None
    return literal if slot.socket.path is None else _placed(slot, literal)


def _together(value: Any) -> Any:
    """The links of a growing input in their order, the pictures of a batch one by one; None if there is no link."""
    links = list(value.values()) if isinstance(value, dict) else [value]
    links = [link for link in links if link is not None and link is not MISSING]
    found: list[Any] = []
    for link in links:
        found += pictures.of_batch(link) if pictures.is_batch(link) else [link]
    return found or None


def _few(slot: Slot, value: Any) -> Any:
    """The value, unless it is a batch for an input of one picture."""
    many = isinstance(value, list) and len(value) > 1 and all(isinstance(item, values.Image) for item in value)
    if many and not slot.growing and "list" not in slot.socket.type_name:
        raise UserError(f"{slot.name} takes one picture, but the batch holds {len(value)}", "choose one of them")
    return value


def _placed(slot: Slot, literal: Any) -> Any:
    """Paths of files that may be opened, in place of their names."""
    path = slot.socket.path
    if path is None or literal is None:
        return literal
    if isinstance(literal, list):
        return [files.confined(path, name) for name in literal]
    return files.confined(path, literal)
