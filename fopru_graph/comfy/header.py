"""What a prompt cannot hold of a pipeline, put beside it: the pipeline's text and those of its sub-graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fopru_graph.comfy.prompt import Prompt
from fopru_graph.graph import Graph, PipelineError, Registry
from fopru_graph.graph.check.expand import expand
from fopru_graph.graph.errors import errors_of

KEY = "fopru_graph"  # in ``_meta`` of a prompt's first node, in ``extra`` of a workflow
FORMAT = 1


@dataclass(frozen=True)
class Header:
    """The text of a pipeline, and those of its sub-graphs by their paths. It holds no folder."""

    pipeline: str
    blocks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Header:
        """What a prompt of this pipeline leaves out; raises `PipelineError` as `Graph.dumps`."""
        return cls(graph.dumps(), dict(expand(graph)[0].blocks))

    @classmethod
    def from_json(cls, data: Any) -> Header | None:
        """The header that `to_json` wrote; None for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            return None
        pipeline, blocks = data.get("pipeline"), data.get("blocks", {})
        texts = isinstance(blocks, Mapping) and all(isinstance(text, str) for text in (*blocks, *blocks.values()))
        return cls(pipeline, dict(blocks)) if isinstance(pipeline, str) and texts else None

    def to_json(self) -> dict[str, Any]:
        """The header as a JSON object."""
        return {"format": FORMAT, "pipeline": self.pipeline, "blocks": dict(self.blocks)}

    def read(self, registry: Registry | None = None) -> Graph | None:
        """The pipeline, or None if this version cannot read it. It names no lines: those of its text are in no file."""
        try:
            graph = Graph.loads(self.pipeline, registry)
        except PipelineError:
            return None
        graph.blocks = dict(self.blocks)
        if errors_of(graph.document_problems):
            return None
        for entry in graph.nodes.values():
            entry.line, entry.input_lines = None, {}
        for declared in graph.inputs.values():
            declared.line = None
        for output in graph.outputs.values():
            output.line = None
        return graph


def with_header(prompt: Prompt, graph: Graph) -> Prompt:
    """The prompt, with the header of its pipeline in its first node; nothing of it is copied but that node."""
    first = next(iter(prompt))
    meta = prompt[first].get("_meta", {}) | {KEY: Header.of(graph).to_json()}
    return prompt | {first: prompt[first] | {"_meta": meta}}


def header_in(prompt: Mapping[str, Any]) -> Header | None:
    """The header that one of a prompt's nodes holds, if any."""
    metas = (node.get("_meta") for node in prompt.values() if isinstance(node, Mapping))
    return _first(meta.get(KEY) for meta in metas if isinstance(meta, Mapping))


def header_of_workflow(workflow: Mapping[str, Any]) -> Header | None:
    """The header in a workflow's ``extra``, if any."""
    extra = workflow.get("extra")
    return Header.from_json(extra.get(KEY)) if isinstance(extra, Mapping) else None


def _first(found: Iterable[Any]) -> Header | None:
    return next((header for header in map(Header.from_json, found) if header is not None), None)
