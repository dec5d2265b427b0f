"""The picture of the kept tokens as a file: whole or not there, with its metadata."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fopru_graph.demo.scenes import render, sample_scene, scene_rng
from fopru_graph.errors import UserError
from fopru_graph.pictures.kept import save_png, stack


def test_stack() -> None:
    result = np.asarray(stack([Image.new("RGB", (4, 2), "red"), Image.new("RGB", (2, 3), "blue")]))
    assert result.shape == (5, 4, 3)
    assert (result[:2] == [255, 0, 0]).all()
    assert (result[2:, :2] == [0, 0, 255]).all()
    assert (result[2:, 2:] == 255).all()
    with pytest.raises(ValueError, match="no picture"):
        stack([])


def test_saved_file_holds_pixels_and_metadata(tmp_path: Path) -> None:
    scene = render(sample_scene(scene_rng("test", 0)))
    metadata = {"pipeline": "format: 1\nname: ä → 中\n", "software": "fopru-graph"}
    save_png(scene, tmp_path / "new" / "kept.png", metadata)
    with Image.open(tmp_path / "new" / "kept.png") as read:
        read.load()
        assert {key: str(text) for key, text in read.info.items()} == metadata
        assert type(read.info["pipeline"]).__name__ == "iTXt"
        assert (np.asarray(read) == np.asarray(scene)).all()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["kept.png"]


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "kept.png"
    save_png(Image.new("RGB", (3, 3), "red"), target, {})
    before = target.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="No space left"):
        save_png(Image.new("RGB", (3, 3), "blue"), target, {})
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def test_impossible_targets(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file" / "kept.png", tmp_path):
        with pytest.raises(UserError, match="cannot be written"):
            save_png(Image.new("RGB", (1, 1)), target, {})
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_import_loads_neither_torch_nor_matplotlib() -> None:
    code = "import sys, fopru_graph.pictures.kept; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
