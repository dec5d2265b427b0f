"""Pictures of every kind become the same pixels, and what is no picture becomes one sentence."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
import torch

from fopru_graph import values
from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.images import load_image
from fopru_graph.lvlm.inputs.pictures import digest, is_picture, to_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
PICTURE = PIL.Image.fromarray(PIXELS)


def pixels_of(value) -> np.ndarray:
    return np.asarray(to_picture(value).picture)


def file_of(picture: PIL.Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        PICTURE,
        PICTURE.convert("RGBA"),
        file_of(PICTURE),
        bytearray(file_of(PICTURE)),
        memoryview(file_of(PICTURE)),
        PIXELS,
        PIXELS[::-1][::-1],
        PIXELS.transpose(2, 0, 1),
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        (torch.from_numpy(PIXELS).permute(2, 0, 1) / 255).requires_grad_(),
        values.Image(PICTURE, "x"),
    ],
)
def test_all_kinds_give_the_same_pixels(value):
    assert (pixels_of(value) == PIXELS).all()
    assert digest(to_picture(value)) == digest(values.Image(PICTURE, "y"))
    assert is_picture(value)


def test_paths_are_read_as_files(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        assert (pixels_of(path) == PIXELS).all() and not is_picture(path)
    assert (pixels_of("demo:taxi-rank") == np.asarray(load_image("demo:taxi-rank").picture)).all()


def test_half_precision_is_read_to_its_precision():
    halves = (torch.from_numpy(PIXELS) / 255).bfloat16()
    assert abs(pixels_of(halves).astype(int) - PIXELS).max() <= 1


def test_grey_and_transparent_arrays():
    grey = PIXELS[:, :, 0]
    for given in (grey, grey[:, :, None], grey[None]):
        assert (pixels_of(given) == grey[:, :, None]).all()
    clear = np.concatenate([PIXELS, np.zeros((6, 9, 1), np.uint8)], 2)
    assert (pixels_of(clear) == 255).all(), "what is transparent is white"


def test_where_both_ends_could_be_channels_the_library_decides():
    both = np.random.default_rng(1).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    assert pixels_of(both).shape == (3, 5, 3)
    assert pixels_of(torch.from_numpy(both)).shape == (5, 3, 3)


def test_a_picture_of_pillow_is_read_like_its_file(tmp_path):
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    deep = PIL.Image.fromarray(np.arange(54, dtype=np.uint16).reshape(6, 9) * 1200)
    clear = PICTURE.convert("RGBA")
    clear.putalpha(PIL.Image.fromarray(PIXELS[:, :, 1]))
    files = {
        "turned.png": file_of(PICTURE, exif=turned),
        "deep.png": file_of(deep),
        "clear.png": file_of(clear),
        "palette.gif": file_of(PICTURE.quantize(8), "GIF"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with PIL.Image.open(tmp_path / name) as opened:
            assert (pixels_of(opened) == np.asarray(load_image(str(tmp_path / name)).picture)).all(), name


def test_the_given_picture_stays_as_it_is():
    clear = PICTURE.convert("RGBA")
    clear.putalpha(7)
    before = clear.tobytes()
    to_picture(clear)
    assert clear.mode == "RGBA" and clear.tobytes() == before
    writable = PIXELS.copy()
    picture = to_picture(writable).picture
    writable[:] = 0
    assert (np.asarray(picture) == PIXELS).all(), "a later change of the array is not seen"


@pytest.mark.parametrize(
    ("value", "says", "hint"),
    [
        (3, "cannot be made of int", "give a path"),
        (None, "cannot be made of NoneType", "give a path"),
        ([], "cannot be made of list", "give a path"),
        (b"", "is empty", None),
        (b"no picture", "the picture", None),
        ("given:Image:0123abcd", "was given in Python, and is kept nowhere", "--set image="),
        (np.zeros((1, 6, 9, 3), np.uint8), r"shape \(1, 6, 9, 3\)", "one picture"),
        (np.zeros((6, 9, 2), np.uint8), r"shape \(6, 9, 2\)", "1, 3 or 4"),
        (np.zeros((0, 9, 3), np.uint8), "no pixels", None),
        (np.zeros((6, 9, 3), np.int64), "array of int64", "uint8"),
        (PIXELS.astype(np.float32), "floats from ", "pixel_values"),
        (PIXELS / 255 - 0.5, "floats from -0.5 to 0.4", "0 to 1"),
        (np.full((2, 2, 3), np.nan), "floats from nan", "0 to 1"),
        (np.zeros((1, 900, 3), np.uint8), "too narrow", None),
        (PIL.Image.new("L", (7000, 7000)), "too large", "megapixels"),
    ],
)
def test_what_is_no_picture_is_one_sentence(value, says, hint):
    with pytest.raises(UserError, match=says) as raised:
        to_picture(value)
    assert hint is None or hint in raised.value.hint


def test_a_damaged_file_that_pillow_has_opened_is_one_sentence(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(file_of(PIL.Image.effect_noise((300, 300), 90).convert("RGB"), "JPEG")[:9000])
    with PIL.Image.open(tmp_path / "cut.jpg") as opened, pytest.raises(UserError, match="cannot be decoded"):
        to_picture(opened)
    with PIL.Image.open(io.BytesIO(file_of(PICTURE))) as opened:
        pass
    with pytest.raises(UserError, match="cannot be decoded"):
        to_picture(opened)
