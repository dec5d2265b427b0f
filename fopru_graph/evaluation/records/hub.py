"""Data sets of the Hugging Face hub, through the package ``datasets``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fopru_graph.errors import UserError, first_line
from fopru_graph.evaluation.records.layout import Hub, Row
from fopru_graph.evaluation.task import RecordError


class HubRows:
    """The rows of a data set's split, read from a memory map: only ``wanted`` columns, pictures as bytes.

    Raises:
        UserError: the package is missing, or the data set is available under none of its names.
    """

    folder = None  # rows may name no files as pictures

    def __init__(self, task: str, hub: Hub, wanted: Sequence[str]) -> None:
        identifier, table = _load(task, hub)
        columns = [name for name in table.column_names if name in set(wanted)]
        self._columns = set(table.column_names)
        self._table = _undecoded(table.select_columns(columns))
        self.name = f"{identifier} ({hub.split})"
        self.fingerprint = f"hub:{identifier}@{_revision(table)}:{hub.config or 'default'}:{hub.split}"

    def __len__(self) -> int:
        return len(self._table)

    def columns(self, _wanted: Sequence[Sequence[str]]) -> set[str]:
        """Columns of the data set."""
        return set(self._columns)

    def holds(self, _pictures: Sequence[str]) -> bool:
        """Yes: no picture of a data set is named by path."""
        return True

    def row(self, index: int) -> Row:
        """One row; raises `RecordError` if the copy in the cache is damaged."""
        try:
            row: dict[str, Any] = self._table[index]
        except (OSError, ValueError) as error:
            raise RecordError(f"{self.where(index)}: cannot be read: {first_line(error)}") from error
        return row

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return list(self._table.select_columns([name])[name])

    def where(self, index: int) -> str:
        """Data set and row, counted from 1, for messages."""
        return f"{self.name} row {index + 1}"


def _load(task: str, hub: Hub) -> tuple[str, Any]:
    """Name and table of the data set, under the first of its names that works."""
    local = f"or give a local copy: --data {task}=PATH"
    try:
        import datasets
    except ImportError as error:
        hint = f"pip install datasets, {local}"
        raise UserError(
            f"the data of '{task}' is on the Hugging Face hub, which needs the package datasets", hint
        ) from error
    reasons = []
    for name in hub.ids:
        try:
            return name, datasets.load_dataset(name, hub.config, split=hub.split)
        except Exception as error:  # network, cache and builders raise all kinds; try the next name
            reasons.append(f"{name}: {first_line(error)}")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    hint = f"HF_HUB_OFFLINE is set: unset it, {local}" if offline else f"check the network, {local}"
    raise UserError(f"the data of '{task}' cannot be had from the Hugging Face hub ({'; '.join(reasons)})", hint)


def _undecoded(table: Any) -> Any:
    """The table with pictures and lists of them as bytes: `read_picture` decodes them, which limits their size."""
    import datasets

    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            table = table.cast_column(name, type(feature)(datasets.Image(decode=False)))
    return table


def _revision(table: Any) -> str:
    """The commit of the data set; ``datasets`` names the cache folder of its rows after it."""
    files = table.cache_files
    return Path(files[0]["filename"]).parent.name if files else "unknown"
