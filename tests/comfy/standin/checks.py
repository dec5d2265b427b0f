"""What ComfyUI checks before it runs a prompt: links, types, bounds and choices, and what nodes check themselves."""

from __future__ import annotations

import inspect
from typing import Any

_CONVERT = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


async def check(nodes: dict[str, Any], prompt: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The errors of each node that an output node needs, those with an error only."""
    outputs = [name for name, step in prompt.items() if nodes[step["class_type"]].SCHEMA.is_output_node]
    if not outputs:
        return {"": [{"type": "prompt_no_outputs", "message": "Prompt has no outputs", "extra_info": {}}]}
    found: dict[str, list[dict[str, Any]]] = {}
    stack = outputs
    while stack:
        name = stack.pop()
        if name not in found:
            found[name] = list(_problems(nodes, prompt, name))
            stack += [value[0] for value in prompt[name]["inputs"].values() if isinstance(value, list)]
    return {name: errors for name, errors in found.items() if errors}


def _problems(nodes: dict[str, Any], prompt: dict[str, dict[str, Any]], node: str) -> Any:
    step = prompt[node]
    cls, inputs = nodes[step["class_type"]], step["inputs"]
    named = _named(cls)
    for name, required, (kind, options) in _expanded(cls, inputs):
        if name not in inputs:
            if required:
                yield _error("required_input_missing", name, name)
        elif isinstance(value := inputs[name], list):
            received = nodes[prompt[value[0]]["class_type"]].SCHEMA.outputs[value[1]].io_type
            if not _fits(received, kind):
                yield _error("return_type_mismatch", name, f"{name}, received_type({received}) mismatch ({kind})")
        else:
            try:
                inputs[name] = value = _CONVERT.get(kind, lambda same: same)(value)
            except (ValueError, TypeError) as error:
                yield _error("invalid_input_type", name, f"{name}, {value}, {error}")
                continue
            if name not in named:
                yield from _within(name, value, kind, options)
    yield from _own(cls, inputs, named)


def _expanded(cls: Any, inputs: dict[str, Any]) -> Any:
    """The inputs that a prompt may fill, of growing ones the links that are there or must be."""
    for each in cls.SCHEMA.inputs:
        if hasattr(each, "template"):
            template, member = each.template, each.template.input
            for i in range(template.max):
                name = f"{each.id}.{template.prefix}{i}"
                required = i < template.min and not member.optional
                if required or name in inputs:
                    yield name, required, member.info()
        else:
            yield each.id, not each.optional, each.info()


def _within(name: str, value: Any, kind: str, options: dict[str, Any]) -> Any:
    if "min" in options and value < options["min"]:
        yield _error("value_smaller_than_min", name, f"Value {value} smaller than min of {options['min']}")
    if "max" in options and value > options["max"]:
        yield _error("value_bigger_than_max", name, f"Value {value} bigger than max of {options['max']}")
    if kind == "COMBO" and value not in options["options"]:
        yield _error("value_not_in_list", name, f"{name}: '{value}' not in {options['options']}")


def _named(cls: Any) -> list[str]:
    """The inputs that the node's own check has parameters for; all with ``**``."""
    if not hasattr(cls, "validate_inputs"):
        return []
    given = inspect.getfullargspec(cls.validate_inputs)
    return [each.id for each in cls.SCHEMA.inputs] if given.varkw else given.args


def _own(cls: Any, inputs: dict[str, Any], named: list[str]) -> Any:
    """The node's own check; its answer is told of every input that it names."""
    given = {name: None if isinstance(inputs[name], list) else inputs[name] for name in named if name in inputs}
    if given and (answer := cls.validate_inputs(**given)) is not True:
        yield from (_error("custom_validation_failed", name, f"{name} - {answer}") for name in given)


def _fits(received: str, wanted: str) -> bool:
    return "*" in (received, wanted) or bool(set(received.split(",")) & set(wanted.split(",")))


def _error(kind: str, name: str, details: str) -> dict[str, Any]:
    return {"type": kind, "details": details, "extra_info": {"input_name": name}}
