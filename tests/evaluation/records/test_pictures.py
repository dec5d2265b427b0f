"""Pictures of records: every way to give one, nothing outside of the data's folder, bad ones refused with their row."""

from __future__ import annotations

import base64
import os

import pytest

from fopru_graph.evaluation.records.pictures import read_picture
from fopru_graph.evaluation.task import RecordError
from fopru_graph.lvlm.inputs import images
from fopru_graph.lvlm.inputs.images import decode_image, load_image
from tests.evaluation.datafiles import png

RED = png("red")
TEXT = base64.b64encode(RED).decode()
LARGE = png((1, 2, 3), 400)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("red.png", "deep/red.png", "demo:red"):
        (tmp_path / "data" / name).write_bytes(RED)
    (tmp_path / "outside.png").write_bytes(RED)
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "data" / "near.png").symlink_to(tmp_path / "data" / "red.png")
    return tmp_path / "data"


@pytest.mark.parametrize(
    "cell",
    [
        *("red.png", "./deep/../red.png", "deep/red.png", "near.png", "demo:red", {"path": "red.png"}, RED),
        *({"path": "red.png", "bytes": None}, {"bytes": RED}, {"bytes": TEXT}, {"bytes": TEXT, "path": "gone.png"}),
        *({"bytes": f"{TEXT[:20]}\n{TEXT[20:]}"}, f"data:image/png;base64,{TEXT}", {"bytes": f"data:;base64,{TEXT}"}),
    ],
)
def test_a_picture_may_be_given_in_many_ways(folder, cell):
    identity, picture = read_picture(cell, "image", folder, "x.jsonl row 1")
    assert picture.mode == "RGB" and picture.getpixel((0, 0)) == (255, 0, 0)
    assert identity == read_picture(RED, "image", None, "")[0], "the identity is that of the content"


def test_an_absolute_path_within_the_folder_and_long_base64_text(folder):
    assert read_picture(str(folder / "red.png"), "image", folder, "")[1].size == (4, 4)
    noise = os.urandom(3 * 40 * 40)
    import PIL.Image

    PIL.Image.frombytes("RGB", (40, 40), noise).save(folder / "noise.png")
    text = base64.b64encode((folder / "noise.png").read_bytes()).decode()
    assert len(text) > 1024
    assert read_picture(text, "image", folder, "")[1].tobytes() == noise


@pytest.mark.parametrize(
    "cell", ["../outside.png", "deep/../../outside.png", "link.png", "/etc/hostname", {"path": ".."}]
)
def test_nothing_outside_of_the_folder_is_opened(folder, cell):
    with pytest.raises(
        RecordError, match=r"^x.jsonl row 7: picture 'image' is '.*', outside of the folder of the data$"
    ):
        read_picture(cell, "image", folder, "x.jsonl row 7")


def test_a_folder_whose_name_only_begins_alike_is_outside(folder):
    twin = folder.parent / "database"
    twin.mkdir()
    (twin / "a.png").write_bytes(RED)
    with pytest.raises(RecordError, match="outside"):
        read_picture("../database/a.png", "image", folder, "x")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        *((None, "is missing"), ("", "is missing"), ({}, "is missing"), (3, "is a int"), ([], "is a list")),
        *(({"bytes": 3}, "bytes that are a int"), ({"bytes": "%%%"}, "is no base64 text"), ("é" * 2000, "no base64")),
        *(("data:image/png,abc", "without base64"), ("data:", "without base64"), ("a\0b", "has no usable path")),
        *(("gone.png", "there is no file"), ("deep", "is a folder"), ("https://x.y/z.png", "nothing is fetched")),
        *(
            (b"", "is empty"),
            ({"bytes": b""}, "is empty"),
            ({"bytes": ""}, "is empty"),
            (b"<svg/>", "not supported: SVG"),
        ),
        *((RED[:40], "cannot be"), (LARGE[:-60], "cannot be decoded"), (b"%PDF-1.4", "a PDF document")),
    ],
)
def test_a_bad_picture_is_refused_with_its_row(folder, cell, reason):
    with pytest.raises(RecordError, match=f"^x.jsonl row 7: picture .*{reason}"):
        read_picture(cell, "image", folder, "x.jsonl row 7")


def test_bytes_in_the_data_but_for_a_name_only(folder):
    with pytest.raises(RecordError, match="its bytes are not in the data"):
        read_picture({"bytes": None, "path": str(folder / "red.png")}, "image", None, "x")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(folder, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)
    with pytest.raises(RecordError, match="row 7: picture 'image' is too large: 400 × 400"):
        read_picture(LARGE, "image", folder, "row 7")


def test_bytes_are_decoded_as_files_are(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(LARGE)
    assert decode_image(LARGE, "cell").picture.tobytes() == load_image(str(tmp_path / "a.png")).picture.tobytes()
    assert decode_image(LARGE, "cell").source == "cell"
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(RecordError, match="too large: more than"):
        read_picture(LARGE, "image", None, "x")
