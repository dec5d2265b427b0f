"""A posted prompt as a pipeline that can be run, or what is wrong with it, told as ComfyUI tells it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fopru_graph.comfy.decode import decode
from fopru_graph.comfy.plan import IMAGE, PREFIX, NodePlan, plan_of, plans
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, GraphNode, PipelineError, Problem, Ref, Registry
from fopru_graph.graph.errors import errors_of
from fopru_graph.graph.model import PipelineOutput
from fopru_graph.graph.values import refs_in, with_ancestors
from fopru_graph.server.canvas.known_files import KnownFiles

_IN_YAML = re.compile(r"(?:use|write) \$([\w:/.-]+)")  # how a hint says it to who writes a file


class BadPrompt(Exception):
    """A prompt that is not run; ``answer`` is what ComfyUI answers to such a one."""

    def __init__(self, kind: str, message: str, node_errors: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        error = {"type": kind, "message": message, "details": "", "extra_info": {}}
        self.answer = {"error": error, "node_errors": dict(node_errors or {})}


@dataclass(frozen=True)
class Runnable:
    """A prompt as a pipeline. Its nodes go by the prompt's ids.

    Attributes:
        graph: its outputs are those of the wanted nodes.
        wanted: ids of the nodes that show something.
        writes: whether a node writes a file of its own, other than a picture that is shown.
    """

    graph: Graph
    wanted: tuple[str, ...]
    writes: bool

    @property
    def types(self) -> dict[str, str]:
        """The types of its nodes on the canvas, by id."""
        return {name: PREFIX + entry.type for name, entry in self.graph.nodes.items()}

    def resting(self, found: Collection[str]) -> list[str]:
        """The nodes that need not run if the outputs of some are ``found`` in a cache."""

        def parents(name: str) -> set[str]:
            return {ref.node for _, ref in refs_in(self.graph.nodes[name].inputs)} - set(found)

        needed = with_ancestors([name for name in self.wanted if name not in found], parents)
        return [name for name in self.graph.nodes if name not in needed]


def read_prompt(prompt: Any, registry: Registry, files: KnownFiles, targets: Iterable[str] | None = None) -> Runnable:
    """The pipeline of a prompt, as far as something in it is shown.

    Args:
        prompt: nodes by id.
        registry: the node types.
        files: which files may be read.
        targets: ids of nodes that are wanted, if not all that show something.

    Raises:
        BadPrompt: it cannot be run.
    """
    if not isinstance(prompt, Mapping) or not prompt:
        raise BadPrompt("no_prompt", "the prompt has no nodes")
    known = plans(registry)
    shown = [name for name, node in prompt.items() if _shows(node, known)]
    wanted = shown if targets is None else [name for name in shown if name in set(targets)]
    if not wanted:
        raise BadPrompt(
            "prompt_no_outputs", "no node of the prompt shows an answer or a picture; add LLMGenerate or ShowKept"
        )
    upstream = _upstream(prompt, wanted)
    needed = {name: node for name, node in prompt.items() if name in upstream}
    try:
        nodes = decode(needed, registry)
    except PipelineError as error:
        raise _refused(error.problems, prompt) from None
    wanted = [name for name in wanted if name in nodes]
    graph = _graph(nodes, wanted, registry)
    problems = [*_place_files(graph, files), *errors_of(graph.problems())]
    if problems:
        raise _refused(problems, prompt)
    specs = [registry.get(entry.type) for entry in nodes.values()]
    writes = any(spec.output and all(out.type != IMAGE for out in plan_of(spec).outputs) for spec in specs)
    return Runnable(graph, tuple(wanted), writes)


def _shows(node: Any, known: Mapping[str, NodePlan]) -> bool:
    kind = node.get("class_type") if isinstance(node, Mapping) else None
    plan = known.get(kind) if isinstance(kind, str) else None
    return plan is not None and (plan.spec.output or plan.answers)


def _upstream(prompt: Mapping[str, Any], wanted: Iterable[str]) -> set[str]:
    """The nodes that the wanted ones hang on; half a pipeline beside them is no mistake."""

    def linked(name: str) -> list[str]:
        node = prompt[name]
        inputs = node.get("inputs") if isinstance(node, Mapping) else None
        values = inputs.values() if isinstance(inputs, Mapping) else ()
        sources = [str(value[0]) for value in values if isinstance(value, list) and value]
        return [source for source in sources if source in prompt]

    return with_ancestors(wanted, linked)


def _graph(nodes: dict[str, GraphNode], wanted: Iterable[str], registry: Registry) -> Graph:
    graph = Graph(registry=registry)
    graph.nodes = nodes
    for name in wanted:
        plan = plan_of(registry.get(nodes[name].type))
        out = next((out for out in plan.outputs if out.type == "STRING"), plan.outputs[0])
        graph.outputs[name] = PipelineOutput(Ref(name, out.output if len(plan.outputs) > 1 else None))
    return graph


def _place_files(graph: Graph, files: KnownFiles) -> list[Problem]:
    """Put paths in the place of names, and tell which names are refused.

    No text that a model wrote may name a file: only what another node has written itself is read through a link.
    """
    problems = []
    for entry in graph.nodes.values():
        for name, socket in graph.registry.get(entry.type).inputs.items():
            if name not in entry.inputs or (socket.path is None and not socket.file):
                continue
            value = entry.inputs[name]
            linked = [graph.nodes[ref.node] for _, ref in refs_in({name: value}) if ref.node in graph.nodes]
            if socket.file or any(not graph.registry.get(source.type).output for source in linked):
                if linked:
                    message = f"{entry.name}.{name} names a file, so that no link may lead here"
                    problems.append(entry.problem("bad-reference", message, name, "choose a file of the list"))
                continue
            try:
                entry.inputs[name] = _placed(value, lambda text, socket=socket: files.path(socket.path, text))
            except UserError as error:
                problems.append(entry.problem("bad-value", f"{entry.name}.{name}: {error.message}", name, error.hint))
    return problems


def _placed(value: Any, place: Any) -> Any:
    if isinstance(value, list):
        return [_placed(item, place) for item in value]
    return place(value) if isinstance(value, str) else value


def _refused(problems: Iterable[Problem], prompt: Mapping[str, Any]) -> BadPrompt:
    """The problems on their nodes and inputs, one on each."""
    found: dict[str, dict[str, Any]] = {}
    others = []
    for problem in problems:
        node = prompt.get(problem.node or "")
        if problem.node is None or not isinstance(node, Mapping):
            others.append(problem.text())
            continue
        told = found.setdefault(
            problem.node, {"errors": [], "dependent_outputs": [], "class_type": str(node.get("class_type", ""))}
        )
        key = _input_of(problem.input, node)
        if all(each["extra_info"].get("input_name") != key for each in told["errors"]):
            hint = _IN_YAML.sub(r"link it to \1", problem.hint or "")
            sentence = problem.message + (f" ({hint})" if hint else "")
            extra = {"input_name": key} if key else {}
            told["errors"].append(
                {"type": "custom_validation_failed", "message": sentence, "details": sentence, "extra_info": extra}
            )
    message = "; ".join(others) or "some inputs are wrong; their nodes say how"
    return BadPrompt("prompt_outputs_failed_validation", message, found)


def _input_of(name: str | None, node: Mapping[str, Any]) -> str | None:
    """The name that the canvas has for an input: one that grows is known by its links."""
    given = node.get("inputs")
    if name is None or not isinstance(given, Mapping) or name in given:
        return name
    return next((key for key in given if key.startswith(f"{name}.")), name)
