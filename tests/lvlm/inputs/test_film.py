"""Video files through PyAV: the right frames at the right times, upright, or one clear refusal."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fopru_graph.errors import UserError
from fopru_graph.lvlm.inputs.video import load_video

UNIT = Fraction(1, 1000)
TIMES = [0, 100, 200, 1000, 1100, 1200]  # milliseconds


def film(path, times=TIMES, codec="mpeg4", size=(64, 48), keys=12):
    """A video file with a frame of levels 0, 20, 40, … at each time."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": str(keys)})
        stream.width, stream.height = size
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", UNIT, UNIT
        for i, time in enumerate(times):
            array = np.full((size[1], size[0], 3), 20 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = time, UNIT
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def levels(video):
    return [int(np.asarray(frame)[..., 0].mean().round()) for frame in video.frames]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("b.mp4", "libx264"), ("a.webm", "libvpx-vp9")])
def test_frames_and_times_are_those_of_the_file(tmp_path, name, codec):
    path = film(tmp_path / name, codec=codec)
    video = load_video(path, 8)
    assert video.times == pytest.approx([time / 1000 for time in TIMES])
    assert np.abs(np.subtract(levels(video), [0, 20, 40, 60, 80, 100])).max() <= 3
    assert 1.2 < video.duration < 1.45
    few = load_video(path, fps=2)
    assert few.times == pytest.approx((0, 0.5, 1.0)) and np.abs(np.subtract(levels(few), [0, 40, 60])).max() <= 3


def test_decoding_jumps_to_key_frames_and_takes_the_same(tmp_path):
    path = film(tmp_path / "a.mp4", times=range(0, 1200, 100), keys=3)
    assert levels(load_video(path, 4)) == [levels(load_video(path, 20))[i] for i in (0, 3, 7, 11)]


def test_a_video_that_was_filmed_lying_is_set_upright(tmp_path):
    path = tmp_path / "a.mp4"
    film(path)
    data = path.read_bytes()
    at = data.index(b"tkhd") + 44
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    path.write_bytes(data[:at] + b"".join(n.to_bytes(4, "big", signed=True) for n in quarter) + data[at + 36 :])
    assert load_video(str(path), 2).shape == (2, 64, 48)


def test_a_damaged_file_is_refused(tmp_path):
    data = Path(film(tmp_path / "a.mp4", codec="libx264")).read_bytes()
    for share in (0.3, 0.9):
        (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UserError, match="cut.mp4") as caught:
            load_video(str(tmp_path / "cut.mp4"), 2)
        assert caught.value.hint
    cut = Path(film(tmp_path / "b.webm", codec="libvpx-vp9")).read_bytes()[:60]
    (tmp_path / "cut.webm").write_bytes(cut)
    with pytest.raises(UserError, match="cut.webm"):
        load_video(str(tmp_path / "cut.webm"), 2)


def test_a_file_without_frames_is_refused(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(UserError, match="sound.mp4' has no frames"):
        load_video(str(tmp_path / "sound.mp4"), 2)


def test_without_pyav_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "film.mp4"
    path.write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(64))
    with pytest.raises(UserError, match="video file") as caught:
        load_video(str(path), 2)
    assert "pip install av" in caught.value.hint and "ffmpeg" in caught.value.hint
