"""``fopru-graph export``: what a pipeline keeps, written for a serving engine; nothing is generated.

`export_comfy` writes the pipeline itself, for ComfyUI.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph.commands.arguments import fail, make_registry, open_graph
from fopru_graph.commands.exporting import at_one_ratio, check_writable
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import ExportOptions
from fopru_graph.commands.run import interrupt_cancels, quieten
from fopru_graph.errors import UserError
from fopru_graph.graph import (
    Cancelled,
    CancelToken,
    Executor,
    Graph,
    GraphNode,
    Node,
    NodeError,
    PipelineError,
    Plan,
    Ref,
    Registry,
    node,
)
from fopru_graph.graph.files import write_atomically
from fopru_graph.measure.pipelines import generating_node, name_of
from fopru_graph.serving.engines import ENGINES, POSITIONS, TARGETS, Target
from fopru_graph.terminal.console import say, show_warning
from fopru_graph.terminal.progress import RunDisplay
from fopru_graph.terminal.stdout import stdout

if TYPE_CHECKING:
    from fopru_graph.serving.handover import Handover

_UNASKED: Target = "safetensors"
_TAKEN = ("model", "tokens", "prompt", "system", "messages", "template", "positions")  # of the generating node


def export(options: ExportOptions, model: ModelOptions) -> int:
    """Write what a pipeline keeps, or the pipeline itself for ComfyUI; returns the exit code."""
    asked = {
        "--to": options.to,
        "--comfy-api": options.comfy_api,
        "--comfy-workflow": options.comfy_workflow,
        "--comfy-pack": options.comfy_pack,
    }
    given = [name for name, value in asked.items() if value]
    if len(given) > 1:
        fail(2, f"{' and '.join(given)} are different files", "ask for one at a time")
    if options.file is None and not options.comfy_pack:
        fail(2, "no pipeline is given", "give its file, or the name of one that ships")
    if given and given != ["--to"]:
        from fopru_graph.commands.export_comfy import export_comfy

        return export_comfy(options, model)
    return _export_tokens(options, options.file or Path(), options.to or _UNASKED, model)


def _export_tokens(options: ExportOptions, file: Path, to: str, model: ModelOptions) -> int:
    """Run a pipeline up to the language model and write what would enter it; returns the exit code."""
    if to not in TARGETS:
        fail(2, f"--to {to} is unknown", f"choose {', '.join(TARGETS)}")
    if options.positions not in (None, *POSITIONS):
        fail(2, f"--positions {options.positions} is unknown", f"choose {', '.join(POSITIONS)}")
    quieten()
    graph = open_graph(file, make_registry(options.nodes), options.changes, model).flat()
    output = options.output or Path(TARGETS[to])
    try:
        check_writable(output)
        ending, name = _with_export_node(graph, options, to)
        Executor(ending.registry).plan(ending, to=name)
    except UserError as error:
        fail(2, error.message, error.hint)
    except PipelineError as error:
        fail(2, str(error))
    handover = _run(ending, name)
    size = _write(handover, to, output)
    _show(handover, output, size, to, options)
    return 0


def _run(ending: Graph, name: str) -> Handover:
    """What the node ``name`` hands over; a failure ends the program."""
    token = CancelToken()
    try:
        with interrupt_cancels(token):
            result = Executor(ending.registry).run(ending, to=name, cancel=token, on_event=RunDisplay({}))
    except Cancelled:
        fail(130, "cancelled", "nothing was written")
    except NodeError as error:
        fail(1, str(error), error.hint, error)
    handover: Handover = result.by_node[name]["output"]
    return handover


def _write(handover: Handover, to: Target, output: Path) -> int:
    """Write the file and return its bytes; ends the program if the engine cannot take it or the disk cannot."""
    from fopru_graph.serving.export import exported

    try:
        content = exported(handover, to)
    except UserError as error:
        fail(2, error.message, error.hint)
    try:
        write_atomically(output, content)
    except OSError as error:
        fail(1, f"{output} cannot be written: {error.strerror or error}", "make room, or name another file with -o")
    return len(content)


def _check_exportable(graph: Graph, plan: Plan, target: str, to: str) -> None:
    """Refuse what no file can say; what is only left out of the file is a warning.

    Raises:
        UserError: see `_with_export_node`.
    """
    given, known = graph.node(target).inputs, plan.steps[target].spec.inputs
    if not isinstance(given.get("tokens"), Ref):
        why = "takes none" if "tokens" in known else f"({plan.steps[target].spec.type}) takes pictures, not tokens"
        raise UserError(f"{name_of(graph)}: there are no visual tokens to export: {target} {why}", None)
    if isinstance(plan.steps[target].inputs.get("prompt"), list):
        raise UserError(f"{name_of(graph)}: {target} asks a batch of prompts", "export one question at a time")
    if pruners := plan.steps[target].inputs.get("pruners"):
        names = ", ".join(ref.node for ref in pruners if isinstance(ref, Ref)) or "a pruner"
        if to in ENGINES:
            raise UserError(
                f"{name_of(graph)} also prunes inside the language model ({names}), which {ENGINES[to].name} "
                "cannot be told",
                f"choose a pipeline that prunes before it, or add --set {target}.pruners=null",
            )
        show_warning(f"the file holds what enters the language model; {names} would prune there")


def _with_export_node(graph: Graph, options: ExportOptions, to: str) -> tuple[Graph, str]:
    """A copy of the graph with a node that takes what the generating node takes, and hands it over; and its name.

    Raises:
        UserError: the generating node takes no tokens, or prunes inside the language model, which engines do not.
    """
    graph = at_one_ratio(graph, options.ratio)
    plan = Executor(graph.registry).plan(graph)
    target = generating_node(graph, plan)
    _check_exportable(graph, plan, target, to)

    @node(category="show", cache="never")
    class Export(Node):
        """The question and the tokens, as an engine is handed them."""

        def run(self, model: Any, tokens: Any, prompt: str, system: str = "", messages: Any = None,
                template: Any = "chat", positions: Any = None) -> Any:  # fmt: skip
            from fopru_graph.lvlm.inputs.chat import Question
            from fopru_graph.serving.handover import hand_over

            return hand_over(model, tokens, Question(prompt, system, messages or (), template), positions)

    registry = Registry()
    registry.add(*(spec.cls for spec in graph.registry.types().values()), Export)
    copy = graph.copy(registry)
    given = graph.node(target).inputs
    inputs = {name: given[name] for name in _TAKEN if name in given}
    if options.positions is not None:
        inputs["positions"] = options.positions
    name = "export"
    while name in graph.nodes:
        name += "_"
    copy.put(GraphNode(name, Export.__name__, inputs, line=graph.node(target).line))
    return copy, name


def _show(handover: Handover, output: Path, size: int, to: str, options: ExportOptions) -> None:
    tokens = handover.tokens
    if options.as_json:
        facts = {"model": handover.model, "family": handover.family, "positions": handover.numbering}
        counts = {"encoded": sum(tokens.encoded), "kept": sum(tokens.counts), "images": len(tokens.encoded)}
        stdout.json({"file": str(output), "to": to, "bytes": size} | facts | {"visual_tokens": counts})
        return
    say(
        ("kept", "dim"),
        f" {sum(tokens.counts)} of {sum(tokens.encoded)} visual tokens, positions {handover.numbering}",
    )
    stdout.line(str(output))
