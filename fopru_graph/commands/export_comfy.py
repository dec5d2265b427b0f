"""``fopru-graph export --comfy-api`` and its sisters: pipelines and the node pack as files of ComfyUI; nothing runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from fopru_graph.commands.arguments import fail, make_registry, open_graph, write_bytes
from fopru_graph.commands.exporting import at_one_ratio, check_writable
from fopru_graph.commands.model_options import ModelOptions
from fopru_graph.commands.option_groups import ExportOptions
from fopru_graph.errors import UserError
from fopru_graph.graph import Graph, PipelineError
from fopru_graph.terminal.stdout import stdout


def export_comfy(options: ExportOptions, model: ModelOptions) -> int:
    """Write what the options ask for; returns the exit code."""
    if options.positions is not None:
        fail(2, "--positions is for engines", "set it on the node that generates: --set generate.positions=…")
    try:
        if options.comfy_pack is not None:
            return _export_pack(options, options.comfy_pack)
        return _export_pipeline(options, options.file or Path(), model)
    except UserError as error:
        fail(2, error.message, error.hint)
    except PipelineError as error:
        fail(2, str(error))


def _export_pipeline(options: ExportOptions, file: Path, model: ModelOptions) -> int:
    kind = "workflow" if options.comfy_workflow else "api"
    output = options.output or Path(f"{file.stem}.{kind}.json")
    check_writable(output)
    graph = open_graph(file, make_registry(options.nodes), options.changes, model)
    graph = at_one_ratio(graph, options.ratio)
    text = _workflow(graph) if options.comfy_workflow else _prompt(graph)
    data = (text + "\n").encode()
    write_bytes(data, output)
    _tell(output, f"comfy-{kind}", options, bytes=len(data), nodes=len(graph.flat().nodes))
    return 0


def _prompt(graph: Graph) -> str:
    """A prompt as text, a node a line."""
    from fopru_graph.comfy.header import with_header
    from fopru_graph.comfy.prompt import prompt_of

    prompt = with_header(prompt_of(graph), graph)
    lines = [f"{json.dumps(name)}: {json.dumps(node, ensure_ascii=False)}" for name, node in prompt.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _workflow(graph: Graph) -> str:
    from fopru_graph.comfy.workflow import workflow_of

    return json.dumps(workflow_of(graph), ensure_ascii=False)


def _export_pack(options: ExportOptions, folder: Path) -> int:
    if options.file is not None:
        fail(2, f"--comfy-pack holds all pipelines that ship, not {options.file}", "leave the pipeline out")
    if options.output is not None:
        fail(2, "--comfy-pack is given the folder itself", "leave out -o")
    from fopru_graph.comfy.pack import write_pack

    written = write_pack(folder, make_registry(options.nodes))
    _tell(Path(os.path.commonpath(written)), "comfy-pack", options)
    return 0


def _tell(output: Path, kind: str, options: ExportOptions, **facts: int) -> None:
    if options.as_json:
        stdout.json({"file": str(output), "to": kind} | facts)
    else:
        stdout.line(str(output))
