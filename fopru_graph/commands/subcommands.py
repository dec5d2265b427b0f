"""Commands that have commands of their own: ``new`` and ``cache``. Imports nothing heavy, as `fopru_graph.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fopru_graph.commands.options import JsonOption
from fopru_graph.commands.program import Command

new_app = typer.Typer(no_args_is_help=True, help="Write files to begin with: a node of your own, or a pipeline.")
ToOption = Annotated[Path, typer.Option("--to", metavar="DIR", help="the folder to write into")]


@new_app.command(name="node", cls=Command)
def new_node(
    name: Annotated[str, typer.Argument(help="e.g. key_norm", show_default=False)],
    to: ToOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a scorer with one rule to change, its test, and a pipeline with it."""
    from fopru_graph.commands.new import new_node

    new_node(name, to, as_json)


@new_app.command(name="pipeline", cls=Command)
def new_pipeline(
    name: Annotated[str, typer.Argument(help="e.g. mine", show_default=False)],
    to: ToOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a pipeline to change."""
    from fopru_graph.commands.new import new_pipeline

    new_pipeline(name, to, as_json)


cache_app = typer.Typer(no_args_is_help=True, help="Show or remove what `run --cache DIR` has kept.")
CacheOption = Annotated[Path, typer.Option("--cache", metavar="DIR", help="the folder of `run`", show_default=False)]


@cache_app.command(name="list", cls=Command)
def cache_list(cache: CacheOption, as_json: JsonOption = False) -> None:
    """List the entries of a cache, the one that was used last first."""
    from fopru_graph.commands.cache import list_cache

    list_cache(cache, as_json)


@cache_app.command(name="clear", cls=Command)
def cache_clear(cache: CacheOption, as_json: JsonOption = False) -> None:
    """Remove the entries of a cache; other files of the folder stay."""
    from fopru_graph.commands.cache import clear_cache

    clear_cache(cache, as_json)
