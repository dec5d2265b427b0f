"""JSON Schema of pipeline files, for completion, hover texts and checks in editors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from fopru_graph.graph.annotations import LinkOnly
from fopru_graph.graph.declare.node import CACHE_POLICIES, NodeSpec
from fopru_graph.graph.declare.registry import Registry
from fopru_graph.graph.model import ENABLED, INPUT_TYPES
from fopru_graph.graph.shipped import shipped_pipelines
from fopru_graph.graph.sockets import Socket, literal_adapter
from fopru_graph.graph.values import INPUTS, NAME, escape_dollars
from fopru_graph.graph.yaml.read import FORMAT

Schema = dict[str, Any]

_NAME = NAME.pattern  # in ASCII: ``\w`` means other letters to JavaScript than to Python
_REFERENCE = rf"^\$(?!{INPUTS}$){_NAME}(\.{_NAME})?$"
_ONE_DOLLAR = r"^\$([^$]|$)"
_BLOCK = r"^(?![/~]|[A-Za-z]:)[^\\]*\.ya?ml$"
_BOUNDS = {
    "exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}",
    "multipleOf": "a multiple of {}", "pattern": "matching {}", "minLength": "{} or more characters",
    "maxLength": "at most {} characters", "minItems": "{} or more items", "maxItems": "at most {} items",
}  # fmt: skip
_LINK = literal_adapter(LinkOnly).json_schema()


def pipeline_schema(registry: Registry) -> Schema:
    """The schema (draft-07, which editors' YAML servers read) of pipelines that use the registry's node types.

    It accepts every valid file and refuses wrong keys, types and literals; it does not follow references.
    """
    types = registry.types()
    definitions: Schema = {
        "reference": {
            "type": "string",
            "pattern": _REFERENCE,
            "description": "an output of another node: $node or $node.output; or a pipeline input: $inputs.name",
        },
        "literal": {"not": {"type": "string", "pattern": _ONE_DOLLAR}},
        "value": {"anyOf": [{"$ref": "#/definitions/literal"}, {"$ref": "#/definitions/reference"}]},
        "input": _pipeline_input(types),
        "node": _node(types),
    }
    for name, spec in types.items():
        definitions[f"inputs of {name}"] = _node_inputs(spec, definitions)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "fopru-graph pipeline",
        **_object(["format", "nodes"], _top_level()),
        "definitions": definitions,
    }


def _object(required: list[str], properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def _top_level() -> Schema:
    names = {"pattern": f"^{_NAME}$"}
    unreserved = {**names, "not": {"const": INPUTS}}
    return {
        "format": {"const": FORMAT, "default": FORMAT, "description": "the version of this file format"},
        "name": {"type": "string", "description": "what the pipeline is called in reports"},
        "description": {"type": "string", "description": "what the pipeline does"},
        "inputs": _section("values that a run may set, read as $inputs.name", "input", unreserved),
        "nodes": _section("the nodes by name; links between them are references such as $name", "node", unreserved),
        "outputs": _section("the results by name, each a reference", "reference", names),
        "ui": {"description": "an editor's layout, ignored by runs"},
    }


def _section(description: str, entry: str, names: Schema) -> Schema:
    return {
        "description": description,
        "type": ["object", "null"],
        "propertyNames": names,
        "additionalProperties": {"$ref": f"#/definitions/{entry}"},
    }


# -- pipeline inputs --------------------------------------------------------------------------------------------------


def _pipeline_input(types: Mapping[str, NodeSpec]) -> Schema:
    sockets = (socket for spec in types.values() for socket in (*spec.inputs.values(), *spec.outputs.values()))
    known = [*INPUT_TYPES, *sorted({socket.type_name for socket in sockets} - set(INPUT_TYPES))]
    properties = {
        "type": {"enum": known, "description": "the type of the values that can be given"},
        "default": {"$ref": "#/definitions/literal"},
    }
    defaults = [
        _when({"type": {"const": name}}, {"properties": {"default": _default(annotation)}})
        for name, annotation in INPUT_TYPES.items()
        if annotation is not Any
    ]
    return {**_object(["type"], properties), "allOf": defaults}


def _default(annotation: Any) -> Schema:
    description = "the value when a run sets none; write $$ for a dollar at its beginning"
    return {"description": description, "anyOf": [literal_adapter(annotation).json_schema(), {"type": "null"}]}


# -- nodes ------------------------------------------------------------------------------------------------------------


def _node(types: Mapping[str, NodeSpec]) -> Schema:
    named = [{"const": name, "description": _node_text(spec)} for name, spec in types.items()]
    block = {"type": "string", "pattern": _BLOCK, "description": "a sub-graph: a pipeline file, relative to this one"}
    ships = {"enum": list(shipped_pipelines()), "description": "a sub-graph: a pipeline that ships"}
    kinds = [*named, ships, block]
    properties = {
        "type": {"description": "the node's type, or a sub-graph such as ./block.yaml or fastv", "anyOf": kinds},
        "inputs": {
            "description": "literals, or references to other nodes' outputs",
            "type": ["object", "null"],
            "additionalProperties": {"$ref": "#/definitions/value"},
        },
        ENABLED: {
            "type": "boolean",
            "default": True,
            "description": "false: the node is led around, its one wired input of its output's type passes on",
        },
        "cache": {"enum": list(CACHE_POLICIES), "description": "where the node's outputs are kept for later runs"},
        "comment": {"type": "string", "description": "a note for readers"},
    }
    rules = [_when({"type": {"const": name}}, _node_of_type(spec)) for name, spec in types.items()]
    return {**_object(["type"], properties), "allOf": rules}


def _when(properties: Schema, then: Schema) -> Schema:
    return {"if": {"properties": properties, "required": list(properties)}, "then": then}


def _node_of_type(spec: NodeSpec) -> Schema:
    needs_inputs = any(socket.required for socket in spec.inputs.values())
    properties = {"inputs": {"$ref": _pointer(f"inputs of {spec.type}")}, "cache": {"default": spec.cache}}
    return {"properties": properties, **({"required": ["inputs"]} if needs_inputs else {})}


def _node_inputs(spec: NodeSpec, definitions: Schema) -> Schema:
    required = [name for name, socket in spec.inputs.items() if socket.required]
    return {
        "description": _node_text(spec),
        "type": "object" if required else ["object", "null"],
        "additionalProperties": False,
        **({"required": required} if required else {}),
        "properties": {
            name: _input(socket, f"{spec.type}.{name}", definitions) for name, socket in spec.inputs.items()
        },
    }


def _node_text(spec: NodeSpec) -> str:
    """The documentation and the outputs; a single output is listed without its name."""
    outputs = [f"{name} ({socket.type_name})" for name, socket in spec.outputs.items() if name != "output"]
    outputs = outputs or [socket.type_name for socket in spec.outputs.values()]
    return "\n\n".join(part for part in (spec.doc, f"Gives {', '.join(outputs)}.") if part)


# -- inputs of nodes: pydantic's schema of the literals, with a reference as an alternative everywhere -----------------


def _input(socket: Socket, owner: str, definitions: Schema) -> Schema:
    schema = socket.json_schema()
    default = schema.pop("default", None)
    schema.pop("description", None)
    description = _input_text(socket, schema, default)
    for name, definition in schema.pop("$defs", {}).items():
        definitions[f"{owner}.{name}"] = _draft_07(definition, owner)
    converted = {"description": description, **_value(schema, owner)}
    return converted if default is None else {**converted, "default": escape_dollars(default)}


def _input_text(socket: Socket, schema: Schema, default: Any) -> str:
    """The text that an editor shows for an input: the documentation, then type, bounds and default."""
    facts = [socket.type_name + (" from another node" if socket.is_link_only else ""), *_bounds(schema)]
    if not socket.required and not socket.is_link_only:
        facts.append(f"default {json.dumps(default, ensure_ascii=False)}")
    facts += ["required"] if socket.required else []
    return "\n\n".join(part for part in (socket.doc, "; ".join(facts)) if part)


def _bounds(schema: Schema) -> Iterable[str]:
    """The bounds, which pydantic writes beside the type or in the alternatives of a union."""
    for part in (schema, *schema.get("anyOf", ())) if schema != _LINK else ():
        yield from (text.format(_shown(part[key])) for key, text in _BOUNDS.items() if key in part)


def _value(schema: Schema, owner: str) -> Schema:
    """Either a literal that ``schema`` describes or a reference."""
    reference = {"$ref": "#/definitions/reference"}
    if schema == _LINK:
        return {"allOf": [reference]}
    alternatives = schema["anyOf"] if set(schema) == {"anyOf"} else [schema]
    return {"anyOf": [*(_literal(part, owner) for part in alternatives), reference]}


def _literal(schema: Schema, owner: str) -> Schema:
    """One alternative of a literal; free text must not look like a reference."""
    converted = _draft_07(schema, owner)
    if schema.get("type", "string") != "string" or schema.keys() & {"enum", "const", "$ref", "anyOf", "oneOf"}:
        return converted
    return {**converted, "allOf": [*converted.get("allOf", ()), {"$ref": "#/definitions/literal"}]}


def _draft_07(schema: Schema, owner: str) -> Schema:
    """Pydantic's schema (draft 2020-12) as draft-07, with references allowed inside lists and mappings."""
    converted: Schema = {}
    for key, content in schema.items():
        if key in ("anyOf", "oneOf", "allOf"):
            converted[key] = [_literal(part, owner) for part in content]
        elif key == "prefixItems":
            converted["items"] = [_value(part, owner) for part in content]
        elif key == "items" and "prefixItems" in schema:
            converted["additionalItems"] = content if isinstance(content, bool) else _value(content, owner)
        elif key in ("items", "additionalProperties") and isinstance(content, dict):
            converted[key] = _value(content, owner)
        elif key in ("enum", "const"):
            converted[key] = escape_dollars(content)
        elif key != "$ref":
            converted[key] = content
    if "$ref" in schema:  # draft-07 ignores the other keys beside a $ref
        name = schema["$ref"].removeprefix("#/$defs/")
        converted["allOf"] = [*converted.get("allOf", ()), {"$ref": _pointer(f"{owner}.{name}")}]
    return converted


def _pointer(name: str) -> str:
    return "#/definitions/" + quote(name.replace("~", "~0").replace("/", "~1"))


def _shown(bound: Any) -> Any:
    """A bound as a person writes it; versions of pydantic differ in writing ``1`` or ``1.0``."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
