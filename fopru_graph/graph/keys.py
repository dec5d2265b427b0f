"""Cache keys: what a node is, what it is given, and the keys of everything before it, in one hash."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from fopru_graph.graph.declare.hooks import accepts, settle
from fopru_graph.graph.declare.node import NodeSpec
from fopru_graph.graph.values import Ref, has_refs, tagged


def fingerprint(spec: NodeSpec, inputs: Mapping[str, Any]) -> Any:
    """What the node's ``fingerprint`` adds to its key, as JSON.

    A fingerprint that cannot be had (it needs a linked input, or fails, e.g. because a file is missing) is a value that
    never comes again: a cached result must not stand for a state that nobody has seen.
    """
    hook = getattr(spec.cls(), "fingerprint", None)
    if hook is None:
        return None
    given = accepts(hook, {name: value for name, value in inputs.items() if not has_refs(value)})
    if given is None:
        return {"unknown": uuid.uuid4().hex}
    try:
        return json.loads(json.dumps(settle(hook(**given)), sort_keys=True))
    except Exception:
        return {"unknown": uuid.uuid4().hex}


def ingredients(spec: NodeSpec, inputs: Mapping[str, Any], keys: Mapping[str, str]) -> dict[str, Any]:
    """What a node's key is made of; ``keys`` holds those of the nodes it refers to. Names of nodes do not take part."""

    def parent(ref: Ref) -> list[str]:
        return [keys[ref.node], ref.output or "output"]

    return {
        "type": spec.type,
        "version": spec.version,
        "source": spec.source_hash,
        "inputs": {name: tagged(value, parent) for name, value in inputs.items()},
        "fingerprint": fingerprint(spec, inputs),
    }


def digest(parts: Mapping[str, Any]) -> str:
    """SHA-256 of canonical JSON, the same in every process."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
