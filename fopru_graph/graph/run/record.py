"""The result of a run, and its record: everything that is needed to understand the run and to repeat it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fopru_graph.graph.events import RunWarning
from fopru_graph.graph.files import write_atomically
from fopru_graph.graph.memory import Values
from fopru_graph.graph.plan import Plan
from fopru_graph.graph.steps import Step
from fopru_graph.graph.values import describe, replace_refs
from fopru_graph.identity.content import PACKAGES

FORMAT = 1
RECORDED_PACKAGES = (*PACKAGES, "pydantic", "networkx", "PyYAML")


@dataclass(frozen=True)
class Fact:
    """What is recorded of a finished node: its values may be released before the run ends."""

    ms: float
    cached: bool
    outputs: Mapping[str, str]
    report: Mapping[str, Any] | None

    @classmethod
    def of(cls, values: Values, ms: float, *, cached: bool) -> Fact:
        """Describe the outputs and collect the figures of those that have a ``report()`` method."""
        reports = [value.report() for value in values.values() if callable(getattr(value, "report", None))]
        figures = {key: figure for report in reports for key, figure in report.items()} if reports else None
        return cls(ms, cached, {name: describe(value) for name, value in values.items()}, figures)

    def to_json(self, step: Step) -> dict[str, Any]:
        """The entry of a run record for this node."""
        return {
            "type": step.spec.type,
            "version": step.spec.version,
            "key": step.key,
            "made_of": dict(step.made_of),
            "inputs": shown_inputs(step),
            "ms": round(self.ms, 3),
            "cached": self.cached,
            "outputs": dict(self.outputs),
            "report": to_json(self.report),
        }


@dataclass(frozen=True)
class RunRecord:
    """A run as JSON.

    ``pipeline`` is the YAML text with the set values applied, ``blocks`` the texts of its sub-graph files; relative
    paths in them are relative to ``folder``, those in ``inputs`` and ``nodes`` are absolute. ``nodes`` holds type,
    version, key and what it is made of, inputs, ms, cached, described outputs and report of every finished node,
    ``packs`` the paths and digests of folders of nodes. ``warnings`` says what the run went on without. Of the
    environment, only the versions of Python and a few packages are recorded.
    """

    status: str
    pipeline: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    nodes: dict[str, dict[str, Any]]
    versions: dict[str, str]
    started: str
    total_ms: float
    error: str | None = None
    blocks: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    packs: dict[str, str] = field(default_factory=dict)
    folder: str | None = None
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the record as a JSON file, replacing it at once or not at all."""
        write_atomically(Path(path), json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> RunRecord:
        """Read a record; raises ValueError for a file that is not a record of this format."""
        try:
            return cls.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path} is no run record of format {FORMAT}: {error}") from error

    @classmethod
    def from_json(cls, data: Any) -> RunRecord:
        """The record that `to_json` wrote; raises ValueError for anything else."""
        try:
            if data["format"] != FORMAT:
                raise ValueError(f"it has format {data['format']!r}")
            record = cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from error
        texts = (record.pipeline, *record.blocks, *record.blocks.values(), record.folder or "")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("its pipeline, blocks and folder must be texts")
        return record


@dataclass(frozen=True, eq=False, repr=False)
class RunResult(Mapping[str, Any]):
    """A mapping of the wanted outputs by name.

    ``timings`` holds the milliseconds of every node, ``cached`` the nodes that were found in a cache, and ``by_node``
    all outputs of the wanted nodes; the outputs of other nodes were released. ``plan`` is the plan that was run,
    ``warnings`` what the run went on without; an output that is lost is None.
    """

    outputs: Mapping[str, Any]
    timings: Mapping[str, float]
    cached: frozenset[str]
    record: RunRecord
    by_node: Mapping[str, Mapping[str, Any]]
    plan: Plan
    warnings: tuple[RunWarning, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        return f"<RunResult {', '.join(f'{name}={describe(value)}' for name, value in self.items())}>"


def timestamp() -> str:
    """The current time in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def shown_inputs(step: Step) -> dict[str, Any]:
    """The inputs of a step as JSON, links as ``$node.output``."""
    return {name: to_json(replace_refs(value, str)) for name, value in step.inputs.items()}


def to_json(value: Any) -> Any:
    """The value with a description in place of everything that is not JSON."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return describe(value)
