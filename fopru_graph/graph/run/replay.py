"""What has changed between the run of a record and a run of the pipeline that was read from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fopru_graph.graph.run.record import shown_inputs
from fopru_graph.graph.steps import Step
from fopru_graph.identity import versions

_DIGEST = re.compile("[0-9a-f]{64}")


def differences(steps: Iterable[Step], recorded: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Who follows from something else than in the record (as JSON), and from what.

    A node that only reads what a changed node made is not named, nor one whose inputs the user has set.
    """
    now, before = versions(), recorded["versions"]
    changed = [f"{name} was {before[name]}, is {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
    if changed:
        yield "replay", "; ".join(changed)
    code, unexplained = [], []
    for step in steps:
        entry = recorded["nodes"].get(step.name)
        if entry is None or entry["key"] == step.key or entry.get("inputs", shown_inputs(step)) != shown_inputs(step):
            continue
        made_of = entry.get("made_of")
        if made_of is None:
            unexplained.append(step.name)
        elif made_of["fingerprint"] != step.made_of["fingerprint"]:
            yield step.name, _read_differently(step, made_of["fingerprint"])
        elif made_of["source"] != step.made_of["source"] and not changed:
            code.append(step.spec.type)
    if code:
        yield "replay", f"the code of {', '.join(dict.fromkeys(code))} has changed since the record"
    if unexplained and not changed:
        yield "replay", f"{', '.join(unexplained)} differ from the record, which is too old to say in what"


def _read_differently(step: Step, before: Any) -> str:
    """What the node's ``fingerprint`` says now and did not say then."""
    now = step.made_of["fingerprint"]
    if isinstance(now, dict) and isinstance(before, dict):
        if "unknown" in now or "unknown" in before:
            return "whether what it reads has changed since the record cannot be told"
        parts = [_change(key, before.get(key), now.get(key)) for key in now if before.get(key) != now.get(key)]
        return ", ".join(parts) + " since the record"
    named = {name: value for name, value in step.inputs.items() if name not in step.made_of["inputs"]}
    what = ", ".join(f"{name} {value!r}" for name, value in named.items())
    return f"the content of {what} has changed since the record"


def _change(key: str, before: Any, now: Any) -> str:
    if any(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (before, now)):
        return f"{key} changed"
    return f"{key} changed from {before} to {now}"
