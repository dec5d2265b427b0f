"""What the files of a results folder hold: the one description that writers and readers share.

==================  ======================================================================================
``cell.json``       `Identity`: what a cell's rows are of; a cell is a pipeline at a ratio on a task
``results.jsonl``   one `Row` a sample, in the order of the samples; ``shards/`` holds them as they come
``summary.json``    `Summary`: the cell's figures; where it is, the cell is finished
``bench.json``      beside the cells: what a bench measured, see `fopru_graph.results.bench`
==================  ======================================================================================

Fields stand in the order of the files. A field has a default only where a file may lack it, or an error row has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1
IDENTITY, SHARDS, RESULTS, SUMMARY, BENCH = "cell.json", "shards", "results.jsonl", "summary.json", "bench.json"

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


def encodable(value: Any) -> Any:
    """A JSON value whose texts UTF-8 can hold: half of a surrogate pair, which JSON can, becomes its ``\\u`` escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {encodable(key): encodable(item) for key, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, list | tuple) else value


class JsonObject(BaseModel):
    """An object in a file: unknown keys are ignored, NaN and infinite numbers refused."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Heading(JsonObject):
    """Which cell it is; ``ratio`` is None where the pipeline ran as its file says."""

    pipeline: str
    task: str
    ratio: Annotated[float, Field(gt=0, le=1)] | None
    model: str
    scorer: str = ""
    prunes: bool


class Data(JsonObject):
    """Where a cell's records are from, and a digest of their content."""

    source: str = ""
    fingerprint: str = ""


class Identity(Heading):
    """What a cell's rows are of, and how they were made.

    ``identity`` is what they follow from (`fopru_graph.results.identity`); it must not change between two runs into
    one folder. Folders of earlier versions lack it. ``command`` was given in the folder ``cwd``.
    """

    format: int
    identity: dict[str, Any] = {}
    file: str | None = None
    graph: Any = None
    settings: dict[str, Any] = {}
    data: Data = Data()
    dtype: str = ""
    versions: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    command: list[str] = []
    cwd: str = ""
    started: str = ""


class Row(JsonObject):
    """One sample; of an error row all but ``index``, ``id``, ``status`` and ``error`` is empty.

    ``type`` is the type of question, ``picture`` a digest of the first picture, ``picture_files`` those of the files
    that the data names instead of holding the pictures. ``encoded``, ``kept`` (those that enter the language model),
    ``final`` (in its last layer) and ``layer_average`` count visual tokens, and ``positions`` says how the kept ones
    were numbered. ``timing`` holds ``ttft_ms`` (None where a part came from a cache), ``prefill_ms``, ``total_ms`` and
    the ``rank`` of the process. A sample that was answered together with others also has the size of its ``batch``
    there; its ``total_ms`` is its share of the batch's time, and ``ttft_ms`` and ``prefill_ms`` are None.
    """

    index: Count
    id: str
    type: str | None = None
    picture: str | None = None
    picture_files: list[str] = []
    status: Literal["ok", "error"]
    answer: str | None = None
    score: Share | None = None
    facts: dict[str, Any] = {}
    error: str | None = None
    encoded: Count | None = None
    kept: Count | None = None
    final: Count | None = None
    layer_average: NonNegative | None = None
    text_tokens: Count | None = None
    new_tokens: Count | None = None
    kv_bytes: Count | None = None
    positions: str | None = None
    timing: dict[str, int | float | None] = {}


@dataclass(frozen=True)
class Timing:
    """Median and 90th percentile of ``n`` times in milliseconds."""

    median: NonNegative
    p90: NonNegative
    n: int


class TypeAccuracy(JsonObject):
    """Accuracy on one type of question, over ``n`` samples."""

    accuracy: Share | None
    n: int


class Tokens(JsonObject):
    """Mean numbers of tokens a sample; None where no sample was answered."""

    encoded: NonNegative | None = None
    kept: NonNegative | None = None
    final: NonNegative | None = None
    layer_average: NonNegative | None = None
    text: NonNegative | None = None
    new: NonNegative | None = None


class CommonError(JsonObject):
    """The error that most samples failed with, the first of them where several are as common."""

    message: str
    count: Count


class Summary(Heading):
    """A cell's figures; ``accuracy`` is None where every sample is an error.

    ``limit`` is the number of samples that was asked for, None for all; ``ci`` the accuracy's 95 % interval.
    ``retention`` holds mean shares of the encoded visual tokens: ``kept``, ``final``, ``layer_average``, and the
    percentiles ``p10`` and ``p90`` of the final share. ``ttft_ms`` is over the samples that were answered alone and
    whose picture was encoded anew; at most ``batch_size`` samples were answered together.
    ``not_drawn`` says why pictures of the kept tokens are missing. ``identity`` is a digest of what the figures are of;
    summaries of earlier versions lack it, and have ``first_error`` instead of ``common_error``.
    """

    limit: int | None = None
    accuracy: Share | None
    n: int
    ci: tuple[float | None, float | None] | None = None
    errors: int = 0
    first_error: str | None = None
    common_error: CommonError | None = None
    per_type: dict[str, TypeAccuracy] = {}
    metrics: dict[str, float | None] = {}
    retention: dict[str, NonNegative | None] = {}
    tokens: Tokens = Tokens()
    kv_bytes: NonNegative | None = None
    ttft_ms: Timing | None = None
    samples_per_s: NonNegative | None = None
    batch_size: int = 1
    not_drawn: str | None = None
    identity: str | None = None


def failures(summary: Mapping[str, Any]) -> str | None:
    """How many samples of a cell failed and why, in a sentence, from the JSON of its `Summary`; None if none did."""
    if not (errors := summary.get("errors")):
        return None
    answered = summary.get("n") or 0
    how_many = f"{errors} of {errors + answered} samples failed" if answered else f"all {errors} samples failed"
    if common := summary.get("common_error"):
        with_it = "" if common["count"] == errors else f", {common['count']} of them"
        return f"{how_many}{with_it} with: {common['message']}"
    return f"{how_many}, the first with: {summary.get('first_error') or 'no reason is recorded'}"
