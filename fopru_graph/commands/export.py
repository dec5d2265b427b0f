"""``fopru-graph export``: what a pipeline keeps, written for a serving engine; nothing is generated."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fopru_graph.commands.arguments import fail, make_registry, open_graph, parse_ratios
from fopru_graph.commands.evaluate import failures_end_program
from fopru_graph.commands.options import ExportOptions, ModelOptions
from fopru_graph.commands.run import quieten
from fopru_graph.errors import UserError
from fopru_graph.graph import Executor, Graph, GraphNode, Node, PipelineError, Plan, Ref, Registry, node
from fopru_graph.graph.files import write_atomically
from fopru_graph.measure.pipelines import generating_node, name_of, settings_of
from fopru_graph.serving.engines import ENGINES, POSITIONS, TARGETS
from fopru_graph.terminal.console import say, show_warning
from fopru_graph.terminal.stdout import stdout

if TYPE_CHECKING:
    from fopru_graph.serving.handover import Handover

_NODE = "export"
_TAKEN = ("model", "tokens", "prompt", "system", "messages", "template", "positions")  # of the generating node


def export(options: ExportOptions, model: ModelOptions) -> int:
    """Run a pipeline up to the language model and write what would enter it; returns the exit code."""
    if options.to not in TARGETS:
        fail(2, f"--to {options.to} is unknown", f"choose {', '.join(TARGETS)}")
    if options.positions not in (None, *POSITIONS):
        fail(2, f"--positions {options.positions} is unknown", f"choose {', '.join(POSITIONS)}")
    quieten()
    graph = open_graph(options.file, make_registry(options.nodes), options.sets, model).flat()
    output = options.output or Path(TARGETS[options.to])
    try:
        _check_writable(output)
        plan = Executor(graph.registry).plan(graph)
        _set_ratio(graph, plan, options.ratio)
        ending = _with_export_node(graph, plan, options)
        Executor(ending.registry).plan(ending, to=_NODE)
    except UserError as error:
        fail(2, error.message, error.hint)
    except PipelineError as error:
        fail(2, str(error))
    with failures_end_program() as token:
        from fopru_graph.serving.export import exported

        handover = Executor(ending.registry).run(ending, to=_NODE, cancel=token).by_node[_NODE]["output"]
        try:
            content = exported(handover, options.to)
        except UserError as error:
            fail(2, error.message, error.hint)
        try:
            write_atomically(output, content)
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror or error}", "make room") from error
    _show(handover, output, len(content), options)
    return 0


def _check_writable(output: Path) -> None:
    """Refuse a place that nothing can be written to, before the work."""
    folder = output.parent
    reason = errno.ENOENT if not folder.is_dir() else 0 if os.access(folder, os.W_OK | os.X_OK) else errno.EACCES
    reason = errno.EISDIR if output.is_dir() else reason
    if reason:
        raise UserError(f"{output} cannot be written: {os.strerror(reason)}", "name another file with -o")


def _set_ratio(graph: Graph, plan: Plan, text: str | None) -> None:
    """Apply ``--ratio``: to the pipeline's input of that name, else to its pruning stages."""
    ratios = parse_ratios(text) or ()
    if len(ratios) > 1:
        raise UserError(f"--ratio {text}: a file holds the tokens of one ratio", "give one")
    for ratio in ratios:
        if "ratio" in graph.inputs:
            graph.set("ratio", ratio)
            continue
        (setting,) = settings_of(graph, plan, [ratio])
        if setting.ratio != ratio:
            raise UserError(f"{name_of(graph)} has no ratio to set", "leave --ratio out")
        for target, value in setting.inputs.items():
            graph.set(target, value)


def _with_export_node(graph: Graph, plan: Plan, options: ExportOptions) -> Graph:
    """A copy of the graph with a node that takes what the generating node takes, and hands it over.

    Raises:
        UserError: the generating node takes no tokens, or prunes inside the language model, which engines do not.
    """
    target = generating_node(graph, plan)
    given, known = graph.node(target).inputs, plan.steps[target].spec.inputs
    if not isinstance(given.get("tokens"), Ref):
        why = "takes none" if "tokens" in known else f"({plan.steps[target].spec.type}) takes pictures, not tokens"
        raise UserError(f"{name_of(graph)}: there are no visual tokens to export: {target} {why}", None)
    if isinstance(plan.steps[target].inputs.get("prompt"), list):
        raise UserError(f"{name_of(graph)}: {target} asks a batch of prompts", "export one question at a time")
    if pruners := plan.steps[target].inputs.get("pruners"):
        names = ", ".join(ref.node for ref in pruners if isinstance(ref, Ref)) or "a pruner"
        if options.to in ENGINES:
            raise UserError(
                f"{name_of(graph)} also prunes inside the language model ({names}), which {ENGINES[options.to].name} "
                "cannot be told",
                f"choose a pipeline that prunes before it, or add --set {target}.pruners=null",
            )
        show_warning(f"the file holds what enters the language model; {names} would prune there")

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
    inputs = {name: given[name] for name in _TAKEN if name in given}
    if options.positions is not None:
        inputs["positions"] = options.positions
    copy.put(GraphNode(_NODE, Export.__name__, inputs, line=graph.node(target).line))
    return copy


def _show(handover: Handover, output: Path, size: int, options: ExportOptions) -> None:
    tokens = handover.tokens
    if options.as_json:
        facts = {"model": handover.model, "family": handover.family, "positions": handover.numbering}
        counts = {"encoded": sum(tokens.encoded), "kept": sum(tokens.counts), "images": len(tokens.encoded)}
        stdout.json({"file": str(output), "to": options.to, "bytes": size} | facts | {"visual_tokens": counts})
        return
    say(
        ("kept", "dim"),
        f" {sum(tokens.counts)} of {sum(tokens.encoded)} visual tokens, positions {handover.numbering}",
    )
    stdout.line(str(output))
