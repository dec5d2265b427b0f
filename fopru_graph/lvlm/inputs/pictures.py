"""Pictures of any kind that people hold in Python: files, their bytes, Pillow's pictures, arrays and tensors."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import PIL.Image

from fopru_graph import values
from fopru_graph.errors import UserError, first_line
from fopru_graph.lvlm.inputs import formats, images, pixels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Array(Protocol):
    """An array or tensor: numpy's, torch's, or another that numpy can read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""


Picture: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | PIL.Image.Image | Array | values.Image

_GIVEN = "the picture"  # how messages call what has no name of its own
_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_HINT = "give a path, demo:NAME, the bytes of a file, a PIL picture, or an array (H, W, 3) of uint8"
_LAYOUTS = "(H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels"


def to_picture(value: Picture) -> values.Image:
    """The picture that ``value`` holds, as RGB, upright, over white where it is transparent; ``value`` is not changed.

    Args:
        value: a path or ``demo:NAME`` (see `images.load_image`), the bytes of a picture file, a PIL picture, or an
            array or tensor of the shape (H, W), (H, W, C) or (C, H, W) with C of 1, 3 or 4, either uint8 or floats from
            0 to 1. An array that could be both has its channels last, a tensor of torch first.

    Raises:
        UserError: it is nothing of these, cannot be decoded, or is too large or too narrow, as for a file.
    """
    if isinstance(value, values.Image):
        return value
    if isinstance(value, str | os.PathLike):
        return images.load_image(os.fspath(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return images.decode_image(bytes(value), _GIVEN)
    if isinstance(value, PIL.Image.Image):
        picture = value
    elif is_array(value):
        picture = _of_array(value)
    else:
        raise UserError(f"a picture cannot be made of {type(value).__name__}", _HINT)
    images.check_size(_GIVEN, *picture.size)
    try:
        return values.Image(pixels.of_memory(picture), _GIVEN)
    except Exception as error:  # Pillow reads a file that it opened only now, and raises whatever that leads to
        raise UserError(f"{_GIVEN} cannot be decoded: {first_line(error)}", formats.DAMAGED) from error


def fingerprint(value: Picture) -> str:
    """What tells its content in cache keys: of a path as `images.fingerprint`, of anything else its `digest`."""
    if isinstance(value, str | os.PathLike):
        return images.fingerprint(os.fspath(value))
    return digest(to_picture(value))


def is_picture(value: object) -> bool:
    """Whether ``value`` is an object that `to_picture` makes a picture of: everything that it takes but a path."""
    kinds = (values.Image, PIL.Image.Image, bytes, bytearray, memoryview)
    return isinstance(value, kinds) or is_array(value)


def is_array(value: object) -> bool:
    """Whether ``value`` is an array or a tensor: it has a shape, and numpy can read it."""
    return not isinstance(value, type) and hasattr(value, "shape") and hasattr(value, "__array__")


def digest(image: values.Image) -> str:
    """SHA-256 of the size and the pixels in hex: the identity of a picture's content, wherever it came from."""
    width, height = image.picture.size
    return hashlib.sha256(f"{width}x{height}:".encode() + image.picture.tobytes()).hexdigest()


def _of_array(value: Any) -> PIL.Image.Image:
    """An array of any layout as one of Pillow's pictures."""
    import numpy as np

    is_tensor = hasattr(value, "detach")
    if is_tensor:
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    array = np.asarray(value)
    array = _channels_last(array, first_counts=is_tensor)
    if array.size == 0:
        raise UserError(f"{_GIVEN} has no pixels: its shape is {tuple(array.shape)}", _HINT)
    channels = array.shape[2]
    array = np.ascontiguousarray(_eight_bit(array))
    mode = _CHANNELS[channels]
    height, width = array.shape[:2]
    return PIL.Image.frombytes(mode, (width, height), array.tobytes())


def _channels_last(array: npt.NDArray[Any], first_counts: bool) -> npt.NDArray[Any]:
    """The array as (H, W, C); ``first_counts``: where both ends could be channels, the first is."""
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim != 3:
        hint = f"give one picture: {_LAYOUTS}"
        raise UserError(f"{_GIVEN} is an array of the shape {tuple(array.shape)}", hint)
    first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
    if not first and not last:
        raise UserError(f"{_GIVEN} is an array of the shape {tuple(array.shape)}", f"what is read is {_LAYOUTS}")
    return array.transpose(1, 2, 0) if first and (first_counts or not last) else array


def _eight_bit(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The samples from 0 to 255, floats from 0 to 1 being scaled; another scale would be a guess."""
    import numpy as np

    if array.dtype == np.uint8:
        return array
    hint = "give uint8 from 0 to 255, or floats from 0 to 1 (not the normalised pixel_values of a processor)"
    if array.dtype.kind != "f":
        raise UserError(f"{_GIVEN} is an array of {array.dtype}", hint)
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # false for nan too
        raise UserError(f"{_GIVEN} is an array of floats from {low:.4g} to {high:.4g}", hint)
    scaled: npt.NDArray[np.uint8] = np.rint(array * 255).astype(np.uint8)
    return scaled
