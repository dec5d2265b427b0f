"""A safetensors file of visual tokens with a JSON header: what every engine can be fed from, and what is read again.

The file holds ``input_ids`` (L,) and ``position_ids`` (P, L) of the whole prompt, int64, and for each picture i, from
0: ``image.i.embeddings`` (K, E), ``image.i.origin`` (K, 2) int64, and where the family has them
``image.i.keep_positions`` (K,), ``image.i.newlines`` (M,), both int64, and ``image.i.deepstack.j`` (K, E). They mean
what they mean in `VisualTokens`. The metadata's ``fopru_graph`` is a `Header` as JSON.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fopru_graph.errors import Caution, UserError, first_line
from fopru_graph.serving.engines import Positions
from fopru_graph.values import ModelHandle, VisualTokens

if TYPE_CHECKING:
    import torch

    from fopru_graph.serving.handover import Handover

KEY = "fopru_graph"  # of the metadata
_HINT = "give a file that SaveTokens or `fopru-graph export --to safetensors` has written"
Count = Annotated[int, Field(ge=0)]
_Fact = TypeVar("_Fact")


class _Object(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class ImageHeader(_Object):
    """A picture: ``kept`` of its ``encoded`` visual tokens are left; newlines count as neither.

    ``grid`` (frames, h, w) in visual tokens, ``placeholders``, ``tile_counts``, ``markup`` and ``frame_rate`` are there
    where the family's prompt needs them, see `VisualTokens`.
    """

    encoded: Count
    kept: Count
    ratio: Annotated[float, Field(ge=0)]
    grid: tuple[Count, Count, Count] | None = None
    placeholders: Count | None = None
    tile_counts: tuple[Count, ...] | None = None
    markup: str | None = None
    frame_rate: float | None = None


class Header(_Object):
    """What a file says of its tokens. ``positions`` is how the prompt's tokens are numbered, see LLMGenerate."""

    format: Literal[1]
    model: str
    family: str
    prompt: str
    positions: Positions
    video: bool
    deepstack: Count
    images: Annotated[tuple[ImageHeader, ...], Field(min_length=1)]


@dataclass(frozen=True, eq=False)
class SavedTokens:
    """Visual tokens that were read from a file, their header, and the prompt's ids (L,) and positions (P, L)."""

    tokens: VisualTokens
    header: Header
    input_ids: torch.Tensor
    position_ids: torch.Tensor

    def tokens_for(self, model: ModelHandle) -> VisualTokens:
        """The tokens, if they can enter this model; a warning if it is loaded under another name than theirs.

        Raises:
            UserError: it is of another family or width.
        """
        family, width = model.family, self.tokens.embeddings[0].shape[1]
        if (self.header.family, width) != (family.model_type, family.language_model.config.hidden_size):
            raise UserError(
                f"the tokens are {width} wide and of {self.header.family} ({self.header.model}), and {model.name} is "
                f"{family.model_type} and {family.language_model.config.hidden_size} wide",
                "load the model that made them",
            )
        if self.header.model != model.name:
            warnings.warn(f"the tokens were made by {self.header.model}, not {model.name}", Caution, stacklevel=2)
        return self.tokens


def saved(handover: Handover) -> bytes:
    """The file's content."""
    tokens = handover.tokens
    tensors = {"input_ids": handover.input_ids, "position_ids": handover.positions}
    for image in range(len(tokens.embeddings)):
        for name in ("embeddings", "origin", "keep_positions", "newlines"):
            if parts := getattr(tokens, name):
                tensors[f"image.{image}.{name}"] = parts[image]
        for layer, part in enumerate(tokens.deepstack[image] if tokens.deepstack else ()):
            tensors[f"image.{image}.deepstack.{layer}"] = part
    return packed(tensors, {KEY: _header_of(handover).model_dump_json(exclude_none=True)})


def load_tokens(path: str | Path) -> SavedTokens:
    """Read a file that `saved` has written; nothing in it is run.

    Raises:
        UserError: it cannot be read, it is no such file, or its tensors do not fit its header.
    """
    metadata, tensors = _unpacked(Path(path))
    if KEY not in metadata:
        what = f"made for {metadata['engine']}" if "engine" in metadata else "without a header of ours"
        raise UserError(f"{path} is a safetensors file {what}, so no tokens can be read from it", _HINT)
    try:
        header = Header.model_validate_json(metadata[KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "header"
        raise UserError(f"{path}: {where} of the header: {first['msg']}", _HINT) from error
    for name, shape, whole_numbers in _expected(header, tensors):
        _check_tensor(path, tensors, name, shape, whole_numbers)
    return SavedTokens(_tokens(header, tensors), header, tensors["input_ids"], tensors["position_ids"])


def packed(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file's content."""
    from safetensors.torch import save

    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)


def _unpacked(path: Path) -> tuple[Mapping[str, str], dict[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or first_line(error)}", "check the path") from error
    except SafetensorError as error:
        raise UserError(f"{path} is no whole safetensors file: {first_line(error)}", _HINT) from error


def _header_of(handover: Handover) -> Header:
    tokens = handover.tokens

    def of(facts: Sequence[_Fact], image: int) -> _Fact | None:
        return facts[image] if facts else None

    images = [
        ImageHeader(
            encoded=encoded,
            kept=kept,
            ratio=round(kept / encoded, 6),
            grid=of(tokens.grids, image),
            placeholders=of(tokens.placeholders, image),
            tile_counts=of(tokens.tile_counts, image),
            markup=of(tokens.markup, image),
            frame_rate=of(tokens.frame_rates, image),
        )
        for image, (encoded, kept) in enumerate(zip(tokens.encoded, tokens.counts, strict=True))
    ]
    return Header(
        format=1,
        model=handover.model,
        family=handover.family,
        prompt=handover.question.last,
        positions=handover.numbering,
        video=tokens.video,
        deepstack=len(tokens.deepstack[0]) if tokens.deepstack else 0,
        images=tuple(images),
    )


def _expected(header: Header, tensors: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int | None, ...], bool]]:
    """Name, shape (None: any) and whether it is int64, of every tensor that the header speaks of."""
    yield "input_ids", (None,), True
    length = len(tensors["input_ids"])
    yield "position_ids", (None, length), True
    for i, image in enumerate(header.images):
        newlines = tensors.get(f"image.{i}.newlines")
        if newlines is not None:
            yield f"image.{i}.newlines", (None,), True
        rows = image.kept + (0 if newlines is None else len(newlines))
        yield f"image.{i}.embeddings", (rows, None), False
        yield f"image.{i}.origin", (rows, 2), True
        if f"image.{i}.keep_positions" in tensors:
            yield f"image.{i}.keep_positions", (rows,), True
        width = tensors[f"image.{i}.embeddings"].shape[1]
        for layer in range(header.deepstack):
            yield f"image.{i}.deepstack.{layer}", (rows, width), False


def _check_tensor(
    path: str | Path, tensors: Mapping[str, Any], name: str, shape: tuple[int | None, ...], whole_numbers: bool
) -> None:
    import torch

    tensor = tensors.get(name)
    if tensor is None:
        raise UserError(f"{path}: there is no tensor {name}, which the header speaks of", _HINT)
    fits = tensor.dim() == len(shape) and all(
        want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits or (tensor.dtype != torch.int64 if whole_numbers else not tensor.is_floating_point()):
        wanted = f"{tuple('any' if side is None else side for side in shape)}".replace("'", "")
        raise UserError(
            f"{path}: {name} is {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}, and the header asks "
            f"for {wanted} {'int64' if whole_numbers else 'of a floating type'}",
            _HINT,
        )


def _tokens(header: Header, tensors: Mapping[str, torch.Tensor]) -> VisualTokens:
    images, numbers = header.images, range(len(header.images))

    def each(name: str) -> tuple[torch.Tensor, ...]:
        found = [tensors[key] for image in numbers if (key := f"image.{image}.{name}") in tensors]
        return tuple(found) if len(found) == len(images) else ()

    def facts(name: str) -> tuple[Any, ...]:
        values = tuple(getattr(image, name) for image in images)
        return () if None in values else values

    layers = range(header.deepstack)
    deepstack = [tuple(tensors[f"image.{image}.deepstack.{layer}"] for layer in layers) for image in numbers]
    return VisualTokens(
        each("embeddings"),
        each("origin"),
        facts("encoded"),
        each("keep_positions"),
        tuple(deepstack) if layers else (),
        facts("grid"),
        facts("markup"),
        header.video,
        newlines=each("newlines"),
        placeholders=facts("placeholders"),
        tile_counts=facts("tile_counts"),
        frame_rates=facts("frame_rate"),
    )
