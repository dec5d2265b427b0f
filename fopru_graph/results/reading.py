"""Reading a results folder: every finished cell, and why the others cannot be used. Nothing is believed unchecked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from fopru_graph.errors import UserError
from fopru_graph.results.bench import Bench
from fopru_graph.results.schema import BENCH, FORMAT, IDENTITY, RESULTS, SUMMARY, Identity, JsonObject, Row, Summary

_TOLERANCE = 1e-5  # between the summary's rounded accuracy and the mean of the rows

Schema = TypeVar("Schema", bound=BaseModel)


class Sample(NamedTuple):
    """A scored sample: its score, its picture, and the visual tokens that were encoded, are left at the end, and pass
    through a layer on average; the last is None in rows that lack it.
    """

    score: float
    picture: str
    encoded: int
    final: int
    layer_average: float | None


@dataclass(frozen=True, eq=False)
class FinishedCell:
    """A finished cell: ``samples`` are its scored rows by id, ``digest`` is the SHA-256 of ``results.jsonl``."""

    folder: Path
    identity: Identity
    summary: Summary
    samples: Mapping[str, Sample]
    digest: str

    @property
    def failed(self) -> bool:
        """Whether every sample is an error."""
        return self.summary.n == 0

    @property
    def graph_digest(self) -> str:
        """The SHA-256 of the graph's canonical form."""
        text = json.dumps(self.identity.graph, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class LeftOut(NamedTuple):
    """A folder or a file that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Results:
    """The content of a results folder; ``bench`` is None where there is no usable ``bench.json``."""

    folder: Path
    cells: tuple[FinishedCell, ...]
    left_out: tuple[LeftOut, ...]
    bench: Bench | None


class _Format(JsonObject):
    format: Any


class _UnusableError(Exception):
    """Why a file cannot be used."""


def read_results(folder: Path) -> Results:
    """Read every cell in a folder; those that cannot be used are named in ``left_out``.

    Raises:
        UserError: the folder is missing or unreadable, or no cell in it can be used.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "give the folder that eval or sweep wrote, see --out")
    cells, left_out = [], []
    try:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and ((path / IDENTITY).exists() or "--" in path.name):
                try:
                    cells.append(_read_cell(path))
                except _UnusableError as error:
                    left_out.append(LeftOut(path.name, str(error)))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}") from error
    if not cells:
        if left_out:
            first = left_out[0]
            message = f"no cell in {folder} can be used; the first of {len(left_out)}, {first.name}: {first.reason}"
            raise UserError(message, "run the same eval or sweep again: it goes on where it stopped")
        raise UserError(f"{folder} holds no results", "write some: fopru-graph eval FILE… --task scenes --out DIR")
    bench, path = None, folder / BENCH
    try:
        bench = _parsed(Bench, _bytes(path), BENCH) if path.is_file() else None
    except _UnusableError as error:
        left_out.append(LeftOut(BENCH, str(error)))
    return Results(folder, tuple(cells), tuple(left_out), bench)


def read_file(path: Path, schema: type[Schema]) -> Schema | None:
    """A JSON file of the given shape; None where it is missing or is not of that shape."""
    try:
        return _parsed(schema, _bytes(path), path.name)
    except _UnusableError:
        return None


def _read_cell(folder: Path) -> FinishedCell:
    data = _bytes(folder / IDENTITY)
    version = _parsed(_Format, data, IDENTITY).format  # first: the other fields of another format may differ
    if version != FORMAT:
        raise _UnusableError(f"unknown format {str(version)[:40]!r}; this version reads format {FORMAT}")
    identity = _parsed(Identity, data, IDENTITY)
    summary = _parsed(Summary, _bytes(folder / SUMMARY), SUMMARY)
    results = _bytes(folder / RESULTS)
    samples, errors = _parsed_rows(results)
    if (len(samples), errors) != (summary.n, summary.errors):
        raise _UnusableError(
            f"torn: {RESULTS} has {len(samples)} scored rows and {errors} errors, "
            f"{SUMMARY} says {summary.n} and {summary.errors}"
        )
    mean = sum(sample.score for sample in samples.values()) / len(samples) if samples else None
    if (mean is None) != (summary.accuracy is None) or abs((mean or 0) - (summary.accuracy or 0)) > _TOLERANCE:
        raise _UnusableError(f"torn: {RESULTS} gives an accuracy of {mean}, {SUMMARY} says {summary.accuracy}")
    return FinishedCell(folder, identity, summary, samples, hashlib.sha256(results).hexdigest())


def _parsed_rows(results: bytes) -> tuple[dict[str, Sample], int]:
    """The scored rows by id, and the number of rows that are errors."""
    samples: dict[str, Sample] = {}
    errors = 0
    for number, line in enumerate((line for line in results.split(b"\n") if line.strip()), 1):
        row = _parsed(Row, line, f"{RESULTS} row {number}")
        if row.status == "error":
            errors += 1
            continue
        if row.score is None or row.encoded is None or row.final is None:
            raise _UnusableError(f"torn: {RESULTS} row {number} is ok, but lacks its score or its tokens")
        if row.id in samples:
            raise _UnusableError(f"torn: {RESULTS} row {number} has the id {row.id[:60]!r} of another row")
        samples[row.id] = Sample(row.score, row.picture or row.id, row.encoded, row.final, row.layer_average)
    return samples, errors


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _UnusableError(f"unfinished: there is no {path.name}") from None
    except OSError as error:
        raise _UnusableError(f"{path.name} cannot be read: {error.strerror or error}") from None


def _parsed(schema: type[Schema], data: bytes, name: str) -> Schema:
    try:
        return schema.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _UnusableError(f"torn: {name}{f', {where}' if where else ''}: {first['msg']}") from None
