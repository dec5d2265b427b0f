"""Reading a results folder: every finished cell, and why the others cannot be used. Nothing is believed unchecked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fopru_graph.errors import UserError

FORMAT = 1
_IDENTITY, _RESULTS, _SUMMARY = "cell.json", "results.jsonl", "summary.json"
_TOLERANCE = 1e-5  # between the summary's rounded accuracy and the mean of the rows

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[float, Field(ge=0)]
Pair = tuple[float | None, float | None]


class _Read(BaseModel):
    """A part of a file: unknown keys are left out, numbers that are none refused."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Data(_Read):
    """Where a cell's records are from."""

    source: str = ""
    fingerprint: str = ""


class Identity(_Read):
    """What a cell's rows are of, from ``cell.json``; ``ratio`` is None where the pipeline ran as it is written."""

    pipeline: str
    graph: Any = None
    settings: dict[str, Any] = {}
    task: str
    scorer: str = ""
    ratio: Annotated[float, Field(gt=0, le=1)] | None
    data: Data = Data()
    model: str
    prunes: bool
    versions: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    command: list[str] = []
    started: str = ""


class ByType(_Read):
    """Accuracy on one type of question, over ``n`` samples."""

    accuracy: Share | None
    n: int


class Tokens(_Read):
    """Mean numbers of tokens a sample; None where no sample was answered."""

    encoded: Count | None = None
    kept: Count | None = None
    final: Count | None = None
    layer_average: Count | None = None
    text: Count | None = None
    new: Count | None = None


class Ttft(_Read):
    """Time to first token in ms over the ``n`` samples whose picture was encoded anew."""

    median: Count
    p90: Count
    n: int


class Summary(_Read):
    """A cell's figures, from ``summary.json``; ``accuracy`` is None where every sample is an error."""

    accuracy: Share | None
    n: int
    ci: Pair | None = None
    errors: int = 0
    first_error: str | None = None
    per_type: dict[str, ByType] = {}
    metrics: dict[str, float | None] = {}
    tokens: Tokens = Tokens()
    kv_bytes: Count | None = None
    ttft_ms: Ttft | None = None


class Sample(NamedTuple):
    """One scored sample: its score, its picture, and the visual tokens that were encoded and are left at the end."""

    score: float
    picture: str
    encoded: float
    final: float


class _Row(_Read):
    id: str
    status: Literal["ok", "error"]
    picture: str | None = None
    score: Share | None
    encoded: Count | None
    final: Count | None


@dataclass(frozen=True, eq=False)
class Cell:
    """One finished cell: ``samples`` are its scored rows by id, ``digest`` the SHA-256 of its results."""

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
    """A folder, or a file, that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Results:
    """All that lies in a results folder; ``bench`` is the content of its ``bench.json``, if there is a usable one."""

    folder: Path
    cells: tuple[Cell, ...]
    left_out: tuple[LeftOut, ...]
    bench: Bench | None


class BenchTtft(_Read):
    """Median time to first token of a bench, in ms."""

    median: Count


class BenchVariant(_Read):
    """What the report reads of a bench's variant."""

    pipeline: str
    ratio: float | None
    ttft_ms: BenchTtft


class Bench(_Read):
    """What the report reads of ``bench.json``."""

    model: str
    rounds: int = 0
    machine: dict[str, Any] = {}
    variants: list[BenchVariant]


class _Unusable(Exception):
    """Why a cell cannot be used."""


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
            if path.is_dir() and ((path / _IDENTITY).exists() or "--" in path.name):
                try:
                    cells.append(_cell(path))
                except _Unusable as error:
                    left_out.append(LeftOut(path.name, str(error)))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}") from error
    if not cells:
        if left_out:
            first = left_out[0]
            message = f"no cell in {folder} can be used; the first of {len(left_out)}, {first.name}: {first.reason}"
            raise UserError(message, "run the same eval or sweep again: it goes on where it stopped")
        raise UserError(f"{folder} holds no results", "write some: fopru-graph eval FILE… --task scenes --out DIR")
    bench = None
    try:
        bench = _bench(folder / "bench.json")
    except _Unusable as error:
        left_out.append(LeftOut("bench.json", str(error)))
    return Results(folder, tuple(cells), tuple(left_out), bench)


def _cell(folder: Path) -> Cell:
    identity = _identity(_bytes(folder / _IDENTITY))
    summary = _parsed(TypeAdapter(Summary), _bytes(folder / _SUMMARY), _SUMMARY)
    results = _bytes(folder / _RESULTS)
    samples, errors = _samples(results)
    if (len(samples), errors) != (summary.n, summary.errors):
        raise _Unusable(
            f"torn: {_RESULTS} has {len(samples)} scored rows and {errors} errors, "
            f"{_SUMMARY} says {summary.n} and {summary.errors}"
        )
    mean = sum(sample.score for sample in samples.values()) / len(samples) if samples else None
    if (mean is None) != (summary.accuracy is None) or abs((mean or 0) - (summary.accuracy or 0)) > _TOLERANCE:
        raise _Unusable(f"torn: {_RESULTS} gives an accuracy of {mean}, {_SUMMARY} says {summary.accuracy}")
    return Cell(folder, identity, summary, samples, hashlib.sha256(results).hexdigest())


def _identity(data: bytes) -> Identity:
    try:
        found = json.loads(data)
        known = found["format"] == FORMAT
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Unusable(f"torn: {_IDENTITY} is no JSON object with a format") from None
    if not known:
        raise _Unusable(f"unknown format {str(found['format'])[:40]!r}; this version reads format {FORMAT}")
    identity: Identity = _parsed(TypeAdapter(Identity), data, _IDENTITY)
    return identity


def _samples(results: bytes) -> tuple[dict[str, Sample], int]:
    """The scored rows by id, and the number of rows that are errors."""
    samples: dict[str, Sample] = {}
    adapter, errors = TypeAdapter(_Row), 0
    for number, line in enumerate(_lines(results), 1):
        row = _parsed(adapter, line, f"{_RESULTS} row {number}")
        if row.status == "error":
            errors += 1
            continue
        if row.score is None or row.encoded is None or row.final is None:
            raise _Unusable(f"torn: {_RESULTS} row {number} is ok, but lacks its score or its tokens")
        if row.id in samples:
            raise _Unusable(f"torn: {_RESULTS} row {number} has the id {row.id[:60]!r} of another row")
        samples[row.id] = Sample(row.score, row.picture or row.id, row.encoded, row.final)
    return samples, errors


def _lines(results: bytes) -> Iterator[bytes]:
    return (line for line in results.split(b"\n") if line.strip())


def _bench(path: Path) -> Bench | None:
    return _parsed(TypeAdapter(Bench), _bytes(path), path.name) if path.is_file() else None


def read_file(path: Path, schema: type[Any]) -> Any:
    """A JSON file of the given shape; None where it is missing or is not of that shape."""
    try:
        return _parsed(TypeAdapter(schema), _bytes(path), path.name)
    except _Unusable:
        return None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _Unusable(f"unfinished: there is no {path.name}") from None
    except OSError as error:
        raise _Unusable(f"{path.name} cannot be read: {error.strerror or error}") from None


def _parsed(adapter: TypeAdapter[Any], data: bytes, name: str) -> Any:
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise _Unusable(f"torn: {name}{f', {place}' if place else ''}: {first['msg']}") from None
