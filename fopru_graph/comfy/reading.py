"""Reading ``.json`` files as pipelines: a run's record, ComfyUI's API prompt, or its workflow, told by the content."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fopru_graph.comfy.blocks import flat_names, renamed_nodes
from fopru_graph.comfy.carry import carried
from fopru_graph.comfy.decode import decode
from fopru_graph.comfy.header import Header, header_in, header_of_workflow
from fopru_graph.comfy.names import Names
from fopru_graph.comfy.plan import IMAGE, NodePlan, Out, plan_of, plans
from fopru_graph.comfy.unflow import prompt_of_workflow
from fopru_graph.comfy.workflow import keep_places
from fopru_graph.errors import Caution
from fopru_graph.graph import Graph, GraphNode, PipelineError, Problem, Ref, Registry, RunRecord
from fopru_graph.graph.model import PipelineOutput
from fopru_graph.graph.values import INPUTS, refs_in
from fopru_graph.graph.yaml.read import TOP_KEYS

LARGEST = 64 * 2**20  # bytes of a file, which a record of a run may have
MAX_BYTES = 8 * 2**20  # of a prompt or a workflow: the text of a pipeline, and all its nodes
_KINDS = "the run.json of an earlier run, a prompt that ComfyUI saved with Save (API), or a workflow of its canvas"


def read_json(data: bytes, file: str | None = None, registry: Registry | None = None) -> Graph:
    """The pipeline in the bytes of a JSON file; ``file`` names it in messages.

    Raises:
        PipelineError: it is no pipeline; all that is wrong in it, by node and input.
    """
    registry = registry or Registry.default()
    if len(data) > LARGEST:
        _refuse("too-large", f"the file has more than {LARGEST} bytes", file)
    root = _parsed(data, file)
    if not isinstance(root, dict):
        _refuse("bad-structure", f"this JSON is no pipeline: it can be {_KINDS}", file)
    if isinstance(root.get("pipeline"), str):
        return _of_record(root, file, registry)
    if set(root) <= set(TOP_KEYS) and not isinstance(root.get("format", {}), dict):  # JSON is YAML
        return Graph.loads(data, registry, file)
    if len(data) > MAX_BYTES:
        _refuse("too-large", f"the file has more than {MAX_BYTES} bytes", file)
    if isinstance(root.get("nodes"), list):
        return _of_workflow(root, file, registry)
    header = None
    if isinstance(posted := root.get("prompt"), dict) and "class_type" not in posted:
        root, header = posted, _posted_header(root)
    if not any(isinstance(node, dict) and "class_type" in node for node in root.values()):
        _refuse("bad-structure", f"this JSON is no pipeline: it can be {_KINDS}", file)
    return graph_of(root, registry, file, header)


def graph_of(
    prompt: Mapping[str, Any], registry: Registry, file: str | None = None, header: Header | None = None
) -> Graph:
    """The pipeline of an API prompt: exactly the one it was made of, if its header is there and nothing was changed.

    Without a header the nodes alone are read: values that are defaults are left out, nodes that a canvas numbers are
    called after their types, and what they answer and draw becomes the pipeline's outputs.

    Args:
        prompt: nodes by id.
        registry: the node types.
        file: names the prompt in messages.
        header: replaces the header in the prompt.

    Raises:
        PipelineError: all that is wrong in the prompt, by node id and input.
    """
    nodes = decode(prompt, registry, file)
    header = header or header_in(prompt)
    original = header.read(registry) if header is not None else None
    folder = Path(file).resolve().parent if file else None
    graph = None
    if original is not None and len(wanted := flat_names(nodes)) == len(nodes):
        original.folder = folder
        graph = carried(original, wanted)
    if graph is None:
        if header is not None:
            warnings.warn(Caution(f"{file or 'the prompt'}: {_LOST}"), stacklevel=2)
        graph = _plain(nodes, registry)
    graph.file, graph.folder = file, folder
    return graph


_LOST = "the pipeline that it was made of cannot be read or cannot hold what was changed, so its nodes are read alone"


def _plain(nodes: Mapping[str, GraphNode], registry: Registry) -> Graph:
    """A pipeline of these nodes alone."""
    names = Names([INPUTS])
    types = {name: entry.type for name, entry in nodes.items()}
    graph = Graph(registry=registry)
    graph.nodes = renamed_nodes(nodes, lambda name: names.of(name, types[name]))
    looks = {entry.name: plan_of(registry.get(entry.type)) for entry in graph.nodes.values()}
    for name, plan in looks.items():
        wanted = "STRING" if plan.answers else IMAGE
        for out in [out for out in plan.outputs if out.type == wanted][:1]:
            known = "text" if plan.answers else "picture"
            key = known if known not in graph.outputs else f"{known}_{name}"
            graph.outputs[key] = PipelineOutput(_ref(name, plan, out))
    read = {ref.node for entry in graph.nodes.values() for _, ref in refs_in(entry.inputs)}
    for name in looks if not graph.outputs else ():
        if name not in read:
            graph.outputs[name] = PipelineOutput(_ref(name, looks[name], looks[name].outputs[0]))
    return graph


def _ref(name: str, plan: NodePlan, out: Out) -> Ref:
    return Ref(name, out.output if len(plan.outputs) > 1 else None)


def _of_workflow(workflow: dict[str, Any], file: str | None, registry: Registry) -> Graph:
    try:
        prompt, positions = prompt_of_workflow(workflow, plans(registry))
    except PipelineError as error:
        raise PipelineError(error.problems, file) from None
    graph = graph_of(prompt, registry, file, header_of_workflow(workflow))
    keep_places(graph, positions)
    return graph


def _of_record(root: dict[str, Any], file: str | None, registry: Registry) -> Graph:
    try:
        record = RunRecord.from_json(root)
    except ValueError as error:
        _refuse("bad-structure", f"this is no run's record: {error}", file, f"a .json file can be {_KINDS}")
    return Graph.from_record(record, registry)


def _posted_header(body: Mapping[str, Any]) -> Header | None:
    """The header in the workflow that is posted beside a prompt."""
    found: Any = body
    for key in ("extra_data", "extra_pnginfo", "workflow"):
        found = found.get(key) if isinstance(found, dict) else None
    return header_of_workflow(found) if isinstance(found, dict) else None


def _parsed(data: bytes, file: str | None) -> Any:
    try:
        return json.loads(data.decode(), parse_constant=_no_number, object_pairs_hook=_once)
    except UnicodeDecodeError:
        _refuse("encoding", "the file is not UTF-8", file, "save it as UTF-8")
    except json.JSONDecodeError as error:
        message = f"line {error.lineno} is no JSON: {error.msg}"
        _refuse("syntax", message, file, f"a .json file can be {_KINDS}", error.lineno)
    except RecursionError:
        _refuse("too-deep", "its values are nested too deep", file)
    except ValueError as error:
        _refuse("syntax", str(error).partition(";")[0], file)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping; a key that comes twice would hide a node."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return found


def _refuse(code: str, message: str, file: str | None, hint: str | None = None, line: int | None = None) -> NoReturn:
    raise PipelineError([Problem(code, message, line=line, hint=hint)], file)
