"""Pictures from the folders of cells: kept tokens, and the attention of the vision encoder."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fopru_graph.pictures.attention import draw_concentration
from fopru_graph.report.page.style import Drawing, to_drawing
from fopru_graph.results.methods import Method, ModelResults, Point, Role, one_line
from fopru_graph.results.reading import LeftOut, read_file
from fopru_graph.results.schema import Share
from fopru_graph.terminal.format import counted, ratio_text

_STRATEGIES = ("fopru_rank", "fopru_row")  # those of the paper's Figure 4
_MOST = 3  # pictures per method
_WIDTHS = (1200, 900, 640, 420)  # pixels, tried until all pictures fit
_POINTS = 21  # of a curve: at 0, 5, …, 100 %


class _Facts(BaseModel):
    """The JSON file beside a picture of kept tokens."""

    source: str = ""
    question: str = ""
    answer: str = ""
    encoded: int
    kept: int
    final: int


class _Concentration(BaseModel):
    """A picture in an ``attention.json``."""

    model_config = ConfigDict(allow_inf_nan=False)

    source: str
    grid: tuple[int, int]
    curves: list[Annotated[list[Share], Field(min_length=_POINTS, max_length=_POINTS)] | None]
    tokens_for_80: list[Share | None]
    maps: dict[Annotated[str, Field(pattern=r"^\d{1,4}$")], list[list[float]]]


class _Attention(BaseModel):
    """An ``attention.json``."""

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
    """A picture of the tokens that a method kept, as a file of the type ``media`` (``image/png`` or ``image/jpeg``).

    ``mark`` says in a word how wrong the answer is; empty where it is right, or its score is not known.
    """

    template: ClassVar[str] = "kept"
    data: bytes
    media: str
    caption: str
    alt: str
    mark: str = ""

    @property
    def base64(self) -> str:
        """The file for a data URL."""
        return base64.b64encode(self.data).decode()


def kept_pictures(study: ModelResults, most: int) -> tuple[list[Kept], list[LeftOut]]:
    """Pictures of rank and row pruning, or of the first methods that have any, at the ratio nearest to 25 %.

    Together they take at most ``most`` bytes: all are scaled down, and if that is not enough the last are dropped.
    Pictures that cannot be read are the second result.
    """
    chosen = list(_chosen(study))
    for width in _WIDTHS:
        pictures, left_out = [], []
        for method, ratio, point, path in chosen:
            facts = read_file(path.with_suffix(".json"), _Facts)
            try:
                scaled = _scaled(path, width)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                left_out.append(LeftOut(f"{path.parent.parent.name}/pictures/{path.name}", f"cannot be read: {error}"))
                continue
            unpruned = study.unpruned.get(point.cell.identity.task)
            about = _caption_and_alt(method, ratio, facts, unpruned)
            pictures.append(Kept(*scaled, *about, _mark(point, facts)))
        if sum(len(picture.data) for picture in pictures) <= most:
            break
    while sum(len(picture.data) for picture in pictures) > most:
        pictures.pop()
    return pictures, left_out


def _mark(point: Point, facts: _Facts | None) -> str:
    """``wrong`` for the score 0, ``score 0.30`` for a part of the whole."""
    sample = point.cell.samples.get(facts.source) if facts else None
    if sample is None or sample.score == 1:
        return ""
    return "wrong" if sample.score == 0 else f"score {sample.score:.2f}"


def _chosen(study: ModelResults) -> Iterator[tuple[Method, float | None, Point, Path]]:
    """The pictures to show: of the first task that has any, sample by sample."""
    methods = [method for method in study.methods if method.pipeline in _STRATEGIES]
    methods = methods or [method for method in study.methods if method.role is Role.METHOD]
    for task in study.tasks:
        pictured = [(method, *nearest) for method in methods if (nearest := _nearest(method, task)) is not None][:2]
        if pictured:
            names = {path.name for _, _, paths in pictured for path in paths}
            for name in sorted(names, key=lambda name: int(Path(name).stem))[:_MOST]:
                for method, ratio, paths in pictured:
                    point = method.points[task][ratio]
                    yield from ((method, ratio, point, path) for path in paths if path.name == name)
            return


def _nearest(method: Method, task: str) -> tuple[float | None, list[Path]] | None:
    """The ratio nearest to 25 % at which a method has pictures of a task, and their paths."""
    candidates = []
    for ratio, point in method.points.get(task, {}).items():
        paths = [path for path in (point.cell.folder / "pictures").glob("*.png") if path.stem.isdecimal()]
        if paths:
            candidates.append((abs((ratio if ratio is not None else 1.0) - 0.25), ratio, paths))
    return min(candidates, key=lambda item: item[0])[1:] if candidates else None


def _scaled(path: Path, width: int) -> tuple[bytes, str]:
    """A picture at most ``width`` pixels wide, as PNG or JPEG, whichever is smaller, and its media type."""
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


def _caption_and_alt(
    method: Method, ratio: float | None, facts: _Facts | None, unpruned: Point | None
) -> tuple[str, str]:
    """Tokens are counted against those of the unpruned model, as everywhere on the page, where it has the sample."""
    at = f"{method.label} {'' if ratio is None else 'at '}{ratio_text(ratio)}"
    if facts is None:
        return at, f"Tokens kept by {at}"
    whole = unpruned.cell.samples.get(facts.source) if unpruned else None
    encoded = whole.encoded if whole else facts.encoded
    counts = f"{facts.final} of {encoded} visual tokens left in the last layer"
    question = f"“{one_line(facts.question, 160)}” – “{one_line(facts.answer, 80)}”"
    return f"{at}, {one_line(facts.source)}: {question}; {counts}.", f"Tokens kept by {at}: {counts}"


def concentration_figure(study: ModelResults, name: str) -> tuple[Drawing | None, list[LeftOut]]:
    """The attention of the vision encoder from the first cell that recorded it; call it within `page_settings`.

    Files of attention that cannot be used are the second result.
    """
    left_out = []
    for cell in study.cells:
        path = cell.folder / "attention.json"
        if not path.is_file():
            continue
        attention: _Attention | None = read_file(path, _Attention)
        if attention is None:
            left_out.append(LeftOut(f"{cell.folder.name}/{path.name}", "torn or of an unknown format"))
            continue
        figure = draw_concentration(attention.model_dump() | {"model": study.model})
        caption = (
            f"{study.model}, {counted(len(attention.pictures), 'picture')}. Left: the share of the attention received "
            "that the top tokens of a layer hold, and the share of tokens that holds 80 % of it. Right: where it "
            f"falls, layer by layer; layer {attention.read_layer} is the one whose attention FoPru reads."
        )
        title = "Attention of the vision encoder"
        alt = f"{title}: curves of concentration for {attention.layers} layers, and maps of some"
        return to_drawing(figure, name, title, caption, alt), left_out
    return None, left_out
