"""The two budget inputs that every pruning node has."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Ratio = Annotated[float, Field(gt=0, le=1, description="share of the visual tokens to keep, in (0, 1]")]
Tokens = Annotated[int | None, Field(ge=1, description="number of visual tokens to keep; wins over ratio")]
