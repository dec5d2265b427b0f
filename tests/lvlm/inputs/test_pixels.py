"""Samples of every depth, sign and colour, in files written by hand: the values are those that the file means."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.images import decode_image, load_frames
from fopru_graph.lvlm.inputs.timing import sample
from tests.lvlm.inputs.test_images import png

Tags = dict[int, Sequence[int]]
SIGNED, FLOAT = {339: [2]}, {339: [3]}
PLANES = {284: [2], 278: [1]}
DEFLATE = 8
_KINDS = {254: "I", 256: "I", 257: "I", 273: "I", 278: "I", 279: "I"}  # of these tags; others are shorts


def tiff(
    width: int, bits: Sequence[int], strips: bytes | Sequence[bytes], order: str = "<", photometric: int = 1,
    compression: int = 1, height: int = 1, **tags: Tags,
) -> bytes:  # fmt: skip
    """A TIFF of one picture."""
    strips = [strips] if isinstance(strips, bytes) else list(strips)
    strips = [zlib.compress(strip) if compression == DEFLATE else strip for strip in strips]
    entries: Tags = {256: [width], 257: [height], 258: bits, 259: [compression], 262: [photometric], 277: [len(bits)]}
    entries |= {278: [height], 279: [len(strip) for strip in strips]}
    for more in tags.values():
        entries |= more
    first = 8 + 2 + 12 * (len(entries) + 1) + 4
    entries[273] = [first + sum(map(len, strips[:i])) for i in range(len(strips))]
    directory, data = b"", b"".join(strips)
    for tag in sorted(entries):
        kind, values = _KINDS.get(tag, "H"), entries[tag]
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, data = struct.pack(f"{order}I", first + len(data)), data + packed
        directory += struct.pack(f"{order}HHI", tag, 3 if kind == "H" else 4, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    return head + directory + bytes(4) + data


def rgb(data: bytes) -> list[Any]:
    return np.asarray(decode_image(data, "a file").picture)[0].tolist()


def grey(data: bytes) -> list[int]:
    values = rgb(data)
    assert all(red == green == blue for red, green, blue in values)
    return [red for red, _, _ in values]


def refusal(data: bytes) -> UserError:
    with pytest.raises(UserError) as caught:
        decode_image(data, "a file")
    return caught.value


@pytest.mark.parametrize("compression", [1, DEFLATE])
class TestGreyTiff:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    @pytest.mark.parametrize("order", "<>")
    def test_up_to_eight_bits(self, compression: int, bits: int, order: str) -> None:
        most = 2**bits - 1
        data = bytes([most << 8 - bits]) + (b"\0" if bits == 8 else b"")
        for photometric, expected in ((1, [255, 0]), (0, [0, 255])):
            assert grey(tiff(2, [bits], data, order, photometric, compression)) == expected

    def test_twelve_bits_are_scaled_by_their_depth(self, compression: int) -> None:
        data = bytes.fromhex("000555aaafff")
        assert grey(tiff(4, [12], data, compression=compression)) == [0x00, 0x55, 0xAA, 0xFF]

    def test_twelve_bits_in_rows_of_an_odd_number(self, compression: int) -> None:
        data = bytes.fromhex("fff555aaa0") + bytes.fromhex("0000000000")  # a row ends at a byte
        assert grey(tiff(3, [12], data, compression=compression, height=2)) == [255, 0x55, 0xAA]

    def test_sixteen_bits_of_which_the_least_is_white(self, compression: int) -> None:
        data = struct.pack("<3H", 0, 0x5555, 65535)
        assert grey(tiff(3, [16], data, "<", 0, compression)) == [255, 0xAA, 0]
        assert grey(tiff(3, [16], data, "<", 1, compression)) == [0, 0x55, 255]

    @pytest.mark.parametrize("order", "<>")
    def test_signed_samples(self, compression: int, order: str) -> None:
        def signed(bits: int, kind: str, *values: int) -> list[int]:
            data = struct.pack(f"{order}{len(values)}{kind}", *values)
            return grey(tiff(len(values), [bits], data, order, compression=compression, tags=SIGNED))

        assert signed(8, "b", -128, 0, 127) == [0, 128, 255]
        assert signed(8, "b", 0, 127) == [0, 255]
        assert signed(16, "h", -100, 0, 300) == [0, 64, 255]
        assert signed(16, "h", 0, 16384, 32767) == [0, 128, 255]
        assert signed(32, "i", 0, 0x5555, 65535) == [0, 0x55, 255]
        assert signed(32, "i", -2, 0, 2) == [0, 128, 255]

    def test_unsigned_samples_of_thirty_two_bits(self, compression: int) -> None:
        data = struct.pack("<3I", 0, 2**31, 2**32 - 1)
        assert grey(tiff(3, [32], data, compression=compression)) == [0, 128, 255]

    @pytest.mark.parametrize("order", "<>")
    def test_floats(self, compression: int, order: str) -> None:
        for photometric, expected in ((1, [0, 51, 255]), (0, [255, 204, 0])):
            data = struct.pack(f"{order}3f", 0, 0.2, 1)
            assert grey(tiff(3, [32], data, order, photometric, compression, tags=FLOAT)) == expected

    @pytest.mark.parametrize("kind", [0, 1, 2])
    def test_a_second_sample_is_nothing_or_alpha_that_was_multiplied_or_not(self, compression: int, kind: int) -> None:
        data = bytes([64, 128, 200, 255])
        expected = {0: [64, 200], 1: [191, 200], 2: [159, 200]}[kind]  # over white
        assert grey(tiff(2, [8, 8], data, compression=compression, tags={338: [kind]})) == expected


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [1, DEFLATE])
class TestColouredTiff:
    @pytest.mark.parametrize("planes", [False, True])
    def test_sixteen_bits(self, order: str, compression: int, planes: bool) -> None:
        red, green, blue = ((0x1234, 0xFFFF), (0, 0x80FF), (0x4000, 0x01FF))
        if planes:
            strips = [struct.pack(f"{order}2H", *plane) for plane in (red, green, blue)]
        else:
            strips = [struct.pack(f"{order}6H", red[0], green[0], blue[0], red[1], green[1], blue[1])]
        data = tiff(2, [16] * 3, strips, order, 2, compression, tags=PLANES if planes else {})
        assert rgb(data) == [[0x12, 0, 0x40], [0xFF, 0x80, 0x01]]

    def test_alpha_that_was_multiplied(self, order: str, compression: int) -> None:
        data = tiff(2, [8] * 4, bytes([64, 0, 0, 128, 9, 8, 7, 255]), order, 2, compression, tags={338: [1]})
        assert rgb(data) == [[191, 127, 127], [9, 8, 7]]

    def test_inks(self, order: str, compression: int) -> None:
        data = bytes([0, 255, 255, 0, 0, 0, 0, 128])
        assert rgb(tiff(2, [8] * 4, data, order, 5, compression)) == [[255, 0, 0], [127, 127, 127]]
        assert "other inks" in refusal(tiff(2, [8] * 4, data, order, 5, compression, tags={332: [2]})).message

    def test_lab(self, order: str, compression: int) -> None:
        data = struct.pack("BbbBbb", 255, 0, 0, 136, 80, 67)
        white, red = rgb(tiff(2, [8] * 3, data, order, 8, compression))
        assert min(white) > 252 and np.abs(np.subtract(red, (255, 0, 0))).max() < 16

    def test_luma_and_chroma(self, order: str, compression: int) -> None:
        red, white = [76, 85, 255], [255, 128, 128]
        whole = tiff(2, [8] * 3, bytes(red + white), order, 6, compression, tags={530: [1, 1]})
        halved = tiff(2, [8] * 3, bytes([76] * 4 + [85, 255]), order, 6, compression, height=2, tags={530: [2, 2]})
        planes = [bytes(pair) for pair in zip(red, white, strict=True)]
        apart = tiff(2, [8] * 3, planes, order, 6, compression, tags={530: [1, 1]} | PLANES)
        assert rgb(whole) == rgb(apart) == [[254, 0, 0], [255, 255, 255]]
        assert rgb(halved) == [[254, 0, 0]] * 2

    @pytest.mark.parametrize("scale", [257, 1])
    def test_a_palette_of_sixteen_or_mistakenly_eight_bits(self, order: str, compression: int, scale: int) -> None:
        palette = [value * scale for value in (0, 1, 2, 255, 0, 3, 4, 255, 0, 5, 6, 255)]
        data = tiff(4, [2], b"\x1b", order, 3, compression, tags={320: palette})
        assert rgb(data) == [[0, 0, 0], [1, 3, 5], [2, 4, 6], [255, 255, 255]]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (tiff(1, [64], bytes(8), tags=FLOAT), "1 × 64-bit float samples, BlackIsZero"),
        (tiff(1, [16], bytes(2), tags=FLOAT), "1 × 16-bit float samples, BlackIsZero"),
        (tiff(1, [32] * 3, bytes(12), photometric=2, tags={339: [3, 3, 3]}), "3 × 32-bit float samples, RGB"),
        (tiff(1, [8] * 3, bytes(3), photometric=2, tags={339: [2, 2, 2]}), "3 × 8-bit signed samples, RGB"),
        (tiff(1, [16], bytes(2), ">", 0), "1 × 16-bit integer samples, WhiteIsZero, Uncompressed, big-endian"),
        (tiff(1, [16], bytes(2), photometric=32803), "CFA"),
        (tiff(1, [16] * 3, bytes(6), photometric=8), "CieLAB"),
        (tiff(1, [8], bytes(1), compression=34712), "Compression 34712"),
    ],
)
def test_a_sound_tiff_of_another_kind_is_called_unsupported(data: bytes, kind: str) -> None:
    error = refusal(data)
    assert "not supported" in error.message and kind in error.message
    assert "convert" in error.hint


def test_a_preview_is_not_taken_for_the_picture() -> None:
    assert "preview" in refusal(tiff(1, [8] * 3, bytes(3), photometric=2, tags={254: [1]})).message


def test_a_compression_that_may_be_missing_is_named() -> None:
    assert "compression (" in refusal(tiff(2, [8], bytes(4), compression=50001)).hint


def test_other_formats_say_what_is_not_supported() -> None:
    jpeg = io.BytesIO()
    Image.new("L", (8, 8)).save(jpeg, "JPEG")
    at = jpeg.getvalue().index(b"\xff\xc0") + 4
    deep = jpeg.getvalue()[:at] + b"\x0c" + jpeg.getvalue()[at + 1 :]
    assert "not supported: JPEG, cannot handle 12-bit" in refusal(deep).message
    bmp = io.BytesIO()
    Image.new("RGB", (1, 1)).save(bmp, "BMP")
    jpeg_in_bmp = bmp.getvalue()[:30] + struct.pack("<I", 4) + bmp.getvalue()[34:]
    assert "not supported" in refusal(jpeg_in_bmp).message
    apple = png(1, 1, 8, 2, bytes(4)).replace(b"IHDR", b"CgBI", 1)
    assert "CgBI" in refusal(apple).message
    for error in (refusal(deep), refusal(jpeg_in_bmp), refusal(apple)):
        assert "corrupt" not in str(error.hint)


@pytest.mark.parametrize(
    ("bits", "row", "level", "expected"),
    [
        (1, b"\xa0", 1, [255, 0, 255, 0]),
        (1, b"\xa0", 0, [255, 255, 255, 255]),
        (2, b"\x1b", 1, [0, 255, 0xAA, 255]),
        (2, b"\x1b", 0, [255, 0x55, 0xAA, 255]),
        (4, b"\x1b\x0f", 0, [0x11, 0xBB, 255, 255]),
        (4, b"\x1b\x0f", 11, [0x11, 255, 0, 255]),
        (8, bytes([0, 5, 9, 255]), 5, [0, 255, 9, 255]),
        (8, bytes([0, 5, 9, 255]), 0x105, [0, 255, 9, 255]),  # what is above the depth does not count
        (16, struct.pack(">4H", 0, 256, 257, 65535), 256, [0, 255, 1, 255]),
    ],
)
def test_the_transparent_level_of_a_grey_png_is_of_its_depth(
    bits: int, row: bytes, level: int, expected: list[int]
) -> None:
    assert grey(png(4, 1, bits, 0, b"\0" + row, (b"tRNS", struct.pack(">H", level)))) == expected


def test_the_transparent_colour_of_a_sixteen_bit_png_is_of_all_its_bits() -> None:
    rows = b"\0" + struct.pack(">9H", 258, 772, 1286, 258, 772, 1287, 514, 772, 1286)
    data = png(3, 1, 16, 2, rows, (b"tRNS", struct.pack(">3H", 258, 772, 1286)))
    assert rgb(data) == [[255, 255, 255], [1, 3, 5], [2, 3, 5]]


def test_transparent_entries_of_small_palettes() -> None:
    palette = (b"PLTE", bytes([0, 0, 0, 80, 80, 80, 160, 160, 160, 9, 8, 7]))
    assert rgb(png(4, 1, 2, 3, b"\0\x1b", palette, (b"tRNS", bytes([255, 0])))) == [
        [0] * 3,
        [255] * 3,
        [160] * 3,
        [9, 8, 7],
    ]


def test_frames_of_a_grey_animation_keep_their_transparent_level(tmp_path: Any) -> None:
    def control(number: int) -> tuple[bytes, bytes]:
        return b"fcTL", struct.pack(">5I2H2B", number, 4, 1, 0, 0, 1, 10, 0, 0)

    second = struct.pack(">I", 2) + zlib.compress(b"\0\xe4")
    data = png(4, 1, 2, 0, b"\0\x1b", (b"tRNS", b"\0\1"), (b"acTL", struct.pack(">2I", 2, 0)), control(0))
    end = data.rindex(b"IEND") - 4
    more = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in (control(1), (b"fdAT", second))
    )
    (tmp_path / "a.png").write_bytes(data[:end] + more + data[end:])
    frames = load_frames(str(tmp_path / "a.png"), lambda shown: sample("a", shown, 99, None), "")[0]
    assert [np.asarray(frame)[0, :, 0].tolist() for frame in frames] == [[0, 255, 170, 255], [255, 170, 255, 0]]


def test_pillows_choice_of_a_decoder_is_as_before() -> None:
    grey(tiff(1, [8], b"\1"))
    refusal(tiff(1, [64], bytes(8), tags=FLOAT))
    assert TiffImagePlugin.READ_LIBTIFF is False
