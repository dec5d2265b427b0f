"""``fopru-graph nodes``, ``models`` and ``tasks``: what there is to name in a pipeline or on the command line."""

from __future__ import annotations

from pathlib import Path

from fopru_graph.commands.arguments import fail, make_registry, named_tasks
from fopru_graph.errors import UserError
from fopru_graph.terminal.stdout import stdout


def list_nodes(type_name: str | None, as_json: bool, folders: list[Path] | None) -> None:
    """Print all node types, or one in full; an unknown one ends the program with exit code 2."""
    from fopru_graph.graph import PipelineError
    from fopru_graph.terminal.catalogue import describe_node, show_catalogue, show_node

    registry = make_registry(folders)
    try:
        specs = [registry.get(type_name)] if type_name else [registry.get(name) for name in registry.types()]
    except PipelineError as error:
        fail(2, error.problems[0].message, error.problems[0].hint)
    if as_json:
        described = [describe_node(spec) for spec in specs]
        stdout.json(described[0] if type_name else described, indent=2)
    elif type_name:
        show_node(specs[0])
    else:
        show_catalogue(specs)


def list_models(as_json: bool) -> None:
    """Print the model families that are served."""
    from fopru_graph.lvlm.families.registry import served_families
    from fopru_graph.terminal.catalogue import show_models

    families = [card.to_json() for card in served_families()]
    if as_json:
        stdout.json({"models": families}, indent=2)
    else:
        show_models(families)


def list_tasks(files: list[Path] | None, as_json: bool) -> None:
    """Print the benchmarks and the scorers, or check ``files``; problems of one end the program with exit code 2."""
    from fopru_graph.evaluation.scorers import described_scorers
    from fopru_graph.evaluation.tasks import TASKS
    from fopru_graph.terminal.catalogue import show_scorers, show_tasks

    keys = ("name", "title", "scorer", "max_new_tokens")
    try:
        chosen = named_tasks(",".join(map(str, files or TASKS)))
    except UserError as error:
        fail(2, error.message, error.hint)
    described = [{key: getattr(task, key) for key in keys} for task in chosen]
    if as_json:
        stdout.json({"tasks": described, "scorers": described_scorers()}, indent=2)
        return
    show_tasks(described)
    if not files:
        show_scorers(described_scorers())
