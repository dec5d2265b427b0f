"""Inputs that several pruning nodes share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fopru_graph import values
from fopru_graph.graph import Advanced

Ratio = Annotated[float, Field(gt=0, le=1, description="share of the visual tokens to keep, in (0, 1]")]
Tokens = Annotated[int | None, Field(ge=1, description="number of visual tokens to keep; wins over ratio")]
Layer = Annotated[
    Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)],
    Field(
        description="first layer of the language model that sees fewer tokens; scores come from the layer below; "
        "a number, or a share of the depth"
    ),
]
EncoderLayer = Annotated[
    int | Annotated[float, Field(gt=0, lt=1)] | None,
    Advanced(),
    Field(description="encoder layer, as VisionEncode was asked for it in layers; empty: the one the projector reads"),
]
Over = Annotated[
    Literal["tile", "image"],
    Advanced(),
    Field(description="spend the budget in each tile, or over all tiles (or frames) of an image at once"),
]
BudgetInput = Annotated[
    values.Budget | None, Field(description="tokens to keep of each tile, as Budget counts them; wins over ratio")
]
Start = Annotated[
    values.Selection | None, Field(description="tokens that are kept already and count; the rest is filled up")
]
