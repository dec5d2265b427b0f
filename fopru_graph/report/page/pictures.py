"""Pictures that cells left: kept tokens side by side, and how concentrated the encoder's attention is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fopru_graph.pictures.attention import draw_concentration
from fopru_graph.report.page.style import Drawing, drawn
from fopru_graph.results.methods import Method, ModelResults, Role, one_line
from fopru_graph.results.reading import LeftOut, read_file
from fopru_graph.results.schema import Share
from fopru_graph.terminal.console import percent

_SHOWN = ("fopru_rank", "fopru_row")  # the two strategies of the paper's Figure 4
_MOST = 3  # pictures a method
_WIDTHS = (1200, 900, 640, 420)  # pixels, tried until all pictures fit
_POINTS = 21  # of a curve: 0, 5, …, 100 %


class _Facts(BaseModel):
    source: str = ""
    question: str = ""
    answer: str = ""
    encoded: int
    kept: int
    final: int


class _Concentration(BaseModel):
    """One picture of an ``attention.json``."""

    model_config = ConfigDict(allow_inf_nan=False)

    source: str
    grid: tuple[int, int]
    curves: list[Annotated[list[Share], Field(min_length=_POINTS, max_length=_POINTS)] | None]
    tokens_for_80: list[Share | None]
    maps: dict[Annotated[str, Field(pattern=r"^\d{1,4}$")], list[list[float]]]


class _Attention(BaseModel):
    model: str
    layers: Annotated[int, Field(ge=1)]
    read_layer: int
    pictures: Annotated[list[_Concentration], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> _Attention:
        for picture in self.pictures:
            rows, columns = picture.grid
            shapes = {(len(scores), *{len(row) for row in scores}) for scores in picture.maps.values()}
            numbers = {int(layer) for layer in picture.maps}
            known = {layer for layer, curve in enumerate(picture.curves) if curve is not None}
            if {len(picture.curves), len(picture.tokens_for_80)} != {self.layers} or shapes - {(rows, columns)}:
                raise ValueError("its lists are not of the lengths that it says")
            if not numbers or numbers - known:
                raise ValueError("it has maps of layers that it has no curve of, or none at all")
        return self


@dataclass(frozen=True)
class Kept:
    """A picture of the tokens that a method kept, small enough for the page, with its media type."""

    data: bytes
    media: str
    caption: str
    alt: str


def kept_pictures(study: ModelResults, most: int) -> tuple[list[Kept], list[LeftOut]]:
    """Pictures of rank and row pruning, or of the first methods that have any, at the ratio nearest to a quarter.

    Together they have no more than ``most`` bytes; they are scaled down for that, and left out at last.
    """
    chosen = list(_chosen(study))
    for width in _WIDTHS:
        found, left_out = [], []
        for method, ratio, path in chosen:
            facts = read_file(path.with_suffix(".json"), _Facts)
            try:
                scaled = _scaled(path, width)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                left_out.append(LeftOut(f"{path.parent.parent.name}/pictures/{path.name}", f"cannot be read: {error}"))
                continue
            found.append(Kept(*scaled, *_said(method, ratio, facts)))
        if sum(len(picture.data) for picture in found) <= most:
            break
    while sum(len(picture.data) for picture in found) > most:
        found.pop()
    return found, left_out


def _chosen(study: ModelResults) -> Iterator[tuple[Method, float | None, Path]]:
    """The pictures to show, those of the same sample behind each other."""
    candidates = [method for method in study.methods if method.pipeline in _SHOWN] or [
        method for method in study.methods if method.role is Role.METHOD
    ]
    for task in study.tasks:
        having = [(method, *nearest) for method in candidates if (nearest := _nearest(method, task)) is not None][:2]
        if having:
            names = sorted(
                {path.name for _, _, paths in having for path in paths}, key=lambda name: int(Path(name).stem)
            )
            for name in names[:_MOST]:
                for method, ratio, paths in having:
                    yield from ((method, ratio, path) for path in paths if path.name == name)
            return


def _nearest(method: Method, task: str) -> tuple[float | None, list[Path]] | None:
    """The ratio nearest to a quarter at which a method has pictures on a task, and these."""
    found = []
    for ratio, point in method.points.get(task, {}).items():
        paths = [path for path in (point.cell.folder / "pictures").glob("*.png") if path.stem.isdecimal()]
        if paths:
            found.append((abs((ratio if ratio is not None else 1.0) - 0.25), ratio, paths))
    return min(found, key=lambda item: item[0])[1:] if found else None


def _scaled(path: Path, width: int) -> tuple[bytes, str]:
    """A picture no wider than said, as PNG or as JPEG: whichever is smaller, the latter for photographs."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.width > width:
        size = width, max(1, round(picture.height * width / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    files = []
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 90, "subsampling": 0})):
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        files.append((stream.getvalue(), f"image/{kind}"))
    return min(files, key=lambda file: len(file[0]))


def _said(method: Method, ratio: float | None, facts: _Facts | None) -> tuple[str, str]:
    """Caption and alternative text of a picture."""
    at = f"{method.label} {'as written' if ratio is None else f'at {percent(ratio)}'}"
    if facts is None:
        return at, f"Tokens kept by {at}"
    counts = f"{facts.final} of {facts.encoded} visual tokens left in the last layer"
    question = f"“{one_line(facts.question, 160)}” – “{one_line(facts.answer, 80)}”"
    return f"{at}, {one_line(facts.source)}: {question}; {counts}.", f"Tokens kept by {at}: {counts}"


def concentration_figure(study: ModelResults, name: str) -> tuple[Drawing | None, list[LeftOut]]:
    """The attention of the encoder as the first cell recorded it that did; call within `look.style`."""
    left_out = []
    for cell in study.cells:
        path = cell.folder / "attention.json"
        if not path.is_file():
            continue
        data: Any = read_file(path, _Attention)
        if data is None:
            left_out.append(LeftOut(f"{cell.folder.name}/{path.name}", "torn or of an unknown format"))
            continue
        figure = draw_concentration(data.model_dump() | {"model": study.model})
        count = len(data.pictures)
        caption = (
            f"{study.model}, {count} picture{'s' if count != 1 else ''}. Left: the share of the attention received "
            "that the top tokens of a layer hold, and the share of tokens that holds 80 % of it. Right: where it "
            f"falls, layer by layer; layer {data.read_layer} is the one whose attention FoPru reads."
        )
        title = "Attention of the vision encoder"
        alt = f"{title}: curves of concentration for {data.layers} layers, and maps of some"
        return drawn(figure, name, title, caption, alt), left_out
    return None, left_out
