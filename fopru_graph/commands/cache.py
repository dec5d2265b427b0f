"""``fopru-graph cache``: what a folder of ``run --cache`` holds, and its removal."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from fopru_graph.commands.arguments import fail
from fopru_graph.graph.cache import DiskCache
from fopru_graph.terminal.console import simple_table, stdout_console
from fopru_graph.terminal.format import size
from fopru_graph.terminal.stdout import stdout


def list_cache(folder: Path, as_json: bool) -> None:
    """Print the entries of a cache, the one that was used last first."""
    entries = _open(folder).entries()
    total = sum(entry.size for entry in entries)
    used = [datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds") for entry in entries]
    if as_json:
        rows = [{"key": e.key, "bytes": e.size, "used": when} for e, when in zip(entries, used, strict=True)]
        stdout.json({"folder": str(folder), "bytes": total, "entries": rows})
        return
    table = simple_table("key", ">size", "used last")
    for entry, when in zip(entries, used, strict=True):
        table.add_row(entry.key[:12], size(entry.size), when)
    table.add_row(f"{len(entries)} entries", size(total), "")
    stdout_console().print(table)


def clear_cache(folder: Path, as_json: bool) -> None:
    """Remove the entries of a cache and say how many; other files of the folder stay."""
    removed = _open(folder).clear()
    total = sum(entry.size for entry in removed)
    if as_json:
        stdout.json({"folder": str(folder), "removed": len(removed), "bytes": total})
    else:
        stdout.line(f"removed {len(removed)} entries, {size(total)}")


def _open(folder: Path) -> DiskCache:
    if not folder.is_dir():
        fail(2, f"there is no folder {folder}", "name the folder that `run --cache` was given")
    return DiskCache(folder)
