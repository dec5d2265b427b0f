"""What a task's file may say, as pydantic models; `read` finds the lines of what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

COLUMN_TYPES = ("text", "texts", "option", "word", "whole", "box")


def _under(key: str) -> BeforeValidator:
    """A value that is no mapping stands for a mapping with one key."""
    return BeforeValidator(lambda value: value if isinstance(value, dict) else {key: value})


_Listed = BeforeValidator(lambda value: value if isinstance(value, list) else [value])
Names = Annotated[list[str], _Listed, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PictureTable(_Part):
    """A second table with the pictures, see `fopru_graph.evaluation.records.Join`."""

    key: str
    config: str
    split: str


class Data(_Part):
    """Where the records are: a ``file`` beside the task's, or a split of a data set on the hub, under its names.

    ``where`` keeps the rows with these values; ``each`` makes a record of every item of a column's list.
    """

    file: str | None = None
    hub: Annotated[list[str], _Listed] = []
    config: str | None = None
    split: str = "test"
    pictures: PictureTable | None = None
    names: list[str] = []
    where: dict[str, str | int | float | bool] = {}
    each: str | None = None


class Column(_Part):
    """One value of a record and what it must be.

    ``column`` is its name in the data, with dots for what lies in objects; several make one list of texts, of which
    those at the end that are missing, empty or ``nan`` are left out. With ``default`` it may be missing, with ``empty``
    a list may be empty. ``of`` is the column of an option's texts, or a list of the words that are possible. A box is
    left, top, right, bottom, or with ``form: size`` left, top, width, height.
    """

    type: Literal["text", "texts", "option", "word", "whole", "box"] = "text"
    column: Annotated[list[str], _Listed] = []
    of: str | list[str] | None = None
    default: str | None = None
    empty: bool = False
    form: Literal["corners", "size"] = "corners"


class Named(BaseModel):
    """A scorer: its name, and its options, which its function knows."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str

    @property
    def options(self) -> Mapping[str, Any]:
        """What stands beside the name."""
        return self.__pydantic_extra__ or {}


ScorerName = Annotated[Named, _under("name")]


class Variant(_Part):
    """What differs for models of a type."""

    prompt: str | None = None
    scorer: ScorerName | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None


class TaskFile(_Part):
    """A task's file; ``prompt`` is a Jinja template of the columns."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
    title: str = ""
    data: Data = Data()
    columns: Annotated[dict[str, Annotated[Column, _under("type")]], Field(min_length=1)]
    pictures: Names = ["image"]
    prompt: str
    scorer: ScorerName
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    models: dict[str, Variant] = {}
