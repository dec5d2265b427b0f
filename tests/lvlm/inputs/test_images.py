"""Image files, good and bad: the right pixels or one UserError, never a hang, a traceback or a wrong picture."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs import images
from fopru_graph.lvlm.inputs.images import fingerprint, load_image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


def pixels(path: Path) -> np.ndarray:
    loaded = load_image(str(path))
    assert loaded.picture.mode == "RGB"
    assert loaded.source == str(path)
    return np.asarray(loaded.picture)


def pixels_of(data: bytes, folder: Path) -> np.ndarray:
    (folder / "of.bin").write_bytes(data)
    return pixels(folder / "of.bin")


def refusal(path: Path | str) -> UserError:
    with pytest.raises(UserError) as caught:
        load_image(str(path))
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


def photo(width: int = 60, height: int = 40) -> Image.Image:
    """A picture without any symmetry, smooth enough for JPEG."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([4 * x, 6 * y, 2 * x + y], -1).astype(np.uint8))


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    extra = b"".join(chunk(*item) for item in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# Good pictures


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, kind: str) -> None:
    noise().save(tmp_path / "a.bin", kind)
    assert (pixels(tmp_path / "a.bin") == np.asarray(noise())).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_give_nearly_the_same_pixels(tmp_path: Path, kind: str) -> None:
    photo().save(tmp_path / "a", kind, quality=95)
    assert np.abs(pixels(tmp_path / "a").astype(int) - np.asarray(photo())).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int, kind: str) -> None:
    # How a camera stores an upright picture: the inverse of what the tag asks a viewer to do.
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = photo().transpose(inverse[orientation]) if orientation > 1 else photo()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a", kind, exif=exif, **({"quality": 95} if kind in {"JPEG", "WEBP"} else {}))
    got = pixels(tmp_path / "a").astype(int)
    assert got.shape == (40, 60, 3)
    assert np.abs(got - np.asarray(photo())).mean() < 4
    again = ImageOps.exif_transpose(load_image(str(tmp_path / "a")).picture)
    assert (np.asarray(again) == got).all()


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01"]
)
def test_broken_exif_does_not_matter(tmp_path: Path, exif: bytes) -> None:
    photo().save(tmp_path / "a.jpg", exif=exif)
    assert pixels(tmp_path / "a.jpg").shape == (40, 60, 3)


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    for name, colour in {"red": (255, 0, 0), "white": (255, 255, 255), "navy": (0, 0, 128)}.items():
        Image.new("RGB", (16, 16), colour).convert("CMYK").save(tmp_path / name, "JPEG", quality=95)
        assert np.abs(pixels(tmp_path / name).astype(int) - colour).max() < 8


def test_ycck_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    # Red as YCCK: luma and chroma of the inks' complement (0, 255, 255), and K; Pillow stores every component inverted.
    Image.new("CMYK", (16, 16), (255 - 179, 255 - 171, 255 - 0, 0)).save(buffer, "JPEG", quality=95)
    data = buffer.getvalue()
    transform = data.index(b"Adobe") + 11
    got = pixels_of(data[:transform] + b"\x02" + data[transform + 1 :], tmp_path)
    assert np.abs(got.astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "a", kind)
    assert (pixels(tmp_path / "a") == np.arange(256)[None, :, None]).all()


def test_dark_sixteen_bit_picture_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") == 1).all()


def test_sixteen_bit_grey_with_transparent_level(tmp_path: Path) -> None:
    data = png(3, 1, 16, 0, b"\0" + struct.pack(">3H", 0, 256, 65535), (b"tRNS", struct.pack(">H", 256)))
    assert pixels_of(data, tmp_path)[0, :, 0].tolist() == [0, 255, 255]


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    data = png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 0, 65535))
    assert pixels_of(data, tmp_path).tolist() == [[[255, 128, 0], [0, 0, 255]]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 51.0, 204.0], [0, 51, 204]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 1e6, 2e6], [0, 128, 255]),
        ([np.nan, 0.5, np.inf], [0, 128, 255]),
        ([np.nan, np.nan, np.nan], [0, 0, 0]),
    ],
)
def test_float_tiff(tmp_path: Path, content: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([content], np.float32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, :, 1].tolist() == expected


def test_thirty_two_bit_integers(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32768, 65535]], np.int32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, :, 2].tolist() == [0, 128, 255]


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False, True]])).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, :, 0].tolist() == [255, 0, 255]


def test_alpha_is_composed_over_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[255, 0, 0, 255], [0, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 255], [0, 0]]], np.uint8), "LA").save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, :, 0].tolist() == [0, 255]


def test_palette_with_transparency(tmp_path: Path) -> None:
    palette, clear = (b"PLTE", bytes([0, 0, 0, 200, 10, 20, 5, 6, 7])), (b"tRNS", bytes([0, 255, 128]))
    got = pixels_of(png(3, 1, 8, 3, b"\0\0\1\2", palette, clear), tmp_path)
    assert got.tolist() == [[[255, 255, 255], [200, 10, 20], [130, 130, 131]]]


def test_transparent_colour_of_an_rgb_png(tmp_path: Path) -> None:
    data = png(2, 1, 8, 2, bytes([0, 1, 2, 3, 9, 9, 9]), (b"tRNS", struct.pack(">3H", 1, 2, 3)))
    assert pixels_of(data, tmp_path).tolist() == [[[255, 255, 255], [9, 9, 9]]]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:], **options)
    assert (pixels(tmp_path / "a") == [255, 0, 0]).all()


def test_smallest_and_longest_pictures(tmp_path: Path) -> None:
    for size in ((1, 1), (200, 1), (1, 200)):
        Image.new("RGB", size, (1, 2, 3)).save(tmp_path / "a.png")
        assert pixels(tmp_path / "a.png").shape == (size[1], size[0], 3)


def test_the_picture_does_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    loaded = load_image(str(tmp_path / "a.png"))
    (tmp_path / "a.png").unlink()
    assert (np.asarray(loaded.picture) == np.asarray(noise())).all()
    assert loaded.shape == (64, 64)
    assert loaded.picture.info == {}


# Too large, too narrow


def test_huge_header_is_refused_without_decoding(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(50_000, 50_000, 8, 2, b"\0"))
    assert "too large" in refusal(tmp_path / "a.png").message


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(40_001, 1000, False), (10_000, 10_000, False), (40_000, 1000, True), (5000, 8000, True)],
)
def test_forty_megapixels_is_the_limit(tmp_path: Path, width: int, height: int, fits: bool) -> None:
    # One-bit rows of zeros: a whole picture of this size in some 5 kB.
    data = png(width, height, 1, 0, bytes((1 + -(-width // 8)) * height))
    (tmp_path / "a.png").write_bytes(data)
    if fits:
        assert load_image(str(tmp_path / "a.png")).shape == (height, width)
    else:
        assert "too large" in refusal(tmp_path / "a.png").message


def test_sixty_thousand_by_one_is_refused(tmp_path: Path) -> None:
    for size in ((60_000, 1), (1, 60_000), (201, 1)):
        Image.new("L", size).save(tmp_path / "a.png")
        assert f"{size[0]} × {size[1]}" in refusal(tmp_path / "a.png").message


def test_header_without_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0, 5, 8, 2, b"\0"))
    refusal(tmp_path / "a.png")


def test_text_bomb_in_a_png(tmp_path: Path) -> None:
    bomb = b"note\0\0" + zlib.compress(bytes(80 * 2**20))
    (tmp_path / "a.png").write_bytes(png(1, 1, 8, 0, b"\0\0", (b"zTXt", bomb)))
    refusal(tmp_path / "a.png")


# Damaged files


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_anywhere_is_refused_or_whole(tmp_path: Path, kind: str) -> None:
    noise().save(tmp_path / "whole", kind)
    data, whole = (tmp_path / "whole").read_bytes(), pixels(tmp_path / "whole")
    refused = 0
    for share in (0.002, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95):
        (tmp_path / "cut").write_bytes(data[: max(1, int(share * len(data)))])
        refusal(tmp_path / "cut")
        refused += 1
    for missing in range(1, 40, 3):
        (tmp_path / "cut").write_bytes(data[:-missing])
        try:
            assert (pixels(tmp_path / "cut") == whole).all()  # only the end marker was cut off
        except UserError:
            refused += 1
    assert refused > 9


@pytest.mark.parametrize("kind", FORMATS)
def test_random_damage_gives_a_picture_or_one_error(tmp_path: Path, kind: str) -> None:
    noise(24).save(tmp_path / "whole", kind)
    data, rng = (tmp_path / "whole").read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            damaged[at] = rng.integers(256)
        (tmp_path / "bad").write_bytes(damaged)
        with contextlib.suppress(UserError):
            load_image(str(tmp_path / "bad"))


def test_wrong_checksum_in_a_png_is_refused(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    assert "cannot be decoded" in refusal(tmp_path / "a.png").message


def test_damaged_header_names_the_format(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    assert "starts like a PNG" in refusal(tmp_path / "a.png").message


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert "is empty" in refusal(tmp_path / "a.png").message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello, this is a note\n", "text"),
        ("grüße\n".encode() * 2000, "text"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"RIFF\x24\0\0\0AVI LIST", "a video file"),
        (b"PK\x03\x04" + bytes(40), "ZIP"),
        (b"\x00\x01\x02\x03", "unknown format"),
        (b"\xff\xfe\xfd", "unknown format"),
    ],
)
def test_other_content_named_png(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert said in refusal(tmp_path / "a.png").message


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"SIMPLE  =                    T" + b" " * 2850, "FITS"),
        (b"P5\n1 1\n255\n\0", "Netpbm"),
    ],
)
def test_pictures_of_other_formats_are_called_unsupported(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    error = refusal(tmp_path / "a.png")
    assert f"of a kind that is not supported: {name}" in error.message
    assert "convert it to PNG" in error.hint


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX"])
def test_other_formats_are_not_opened(tmp_path: Path, kind: str) -> None:
    photo().save(tmp_path / "a.png", kind)
    refusal(tmp_path / "a.png")


# Not a file


def test_missing_file_suggests_a_near_name(tmp_path: Path) -> None:
    photo().save(tmp_path / "street.png")
    error = refusal(tmp_path / "stret.png")
    assert "no file" in error.message
    assert "street.png" in error.hint
    assert "does not exist" in refusal(tmp_path / "none" / "a.png").hint


def test_folder(tmp_path: Path) -> None:
    assert "a folder" in refusal(tmp_path).message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    errors: list[UserError] = []
    worker = threading.Thread(target=lambda: errors.append(refusal(tmp_path / "pipe.png")), daemon=True)
    worker.start()
    worker.join(5)
    assert len(errors) == 1
    assert fingerprint(str(tmp_path / "pipe.png")) == "missing"
    assert "not a regular file" in refusal("/dev/zero").message


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000, "https://example.org/cat.png", "file.png/inside.png"])
def test_impossible_names(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo().save("file.png")
    refusal(path)


def test_empty_name_is_the_current_folder() -> None:
    with pytest.raises(UserError, match="folder"):
        load_image("")


# Samples


def test_samples_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_SAMPLES", tmp_path)
    photo().save(tmp_path / "street-sign.png")
    photo().save(tmp_path / "shapes.png")
    loaded = load_image("demo:street-sign")
    assert loaded.source == "demo:street-sign"
    assert (np.asarray(loaded.picture) == np.asarray(photo())).all()
    assert fingerprint("demo:shapes") == fingerprint(str(tmp_path / "shapes.png"))
    error = refusal("demo:street-sing")
    assert "did you mean 'demo:street-sign'" in error.hint
    assert "shapes, street-sign" in error.hint
    assert "shapes" in refusal("demo:../../secret").hint
    assert "demo:shapes" in refusal("shapes").hint


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    first = fingerprint(str(tmp_path / "a.png"))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert len(first) == 64
    assert fingerprint(str(tmp_path / "b.png")) == first
    noise().save(tmp_path / "a.png")
    assert fingerprint(str(tmp_path / "a.png")) != first
    for missing in (tmp_path / "none", tmp_path, "demo:no-such-sample", "a\0b"):
        assert fingerprint(str(missing)) == "missing"


# Side effects


def test_global_settings_stay_as_they_were(tmp_path: Path) -> None:
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    (tmp_path / "a.png").write_bytes(png(12_000, 9_000, 8, 2, b"\0"))  # within the range where Pillow only warns
    assert "12000 × 9000" in refusal(tmp_path / "a.png").message
    assert (warnings.filters, Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == (before, limit, False)


def test_import_loads_no_torch() -> None:
    code = "import sys, fopru_graph.lvlm.inputs.images; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
