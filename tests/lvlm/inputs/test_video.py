"""Frames from folders and animated pictures: the right ones, in order, or one clear refusal."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fopru_graph.errors import UserError
from fopru_graph.graph import Graph
from fopru_graph.graph.plan import plan
from fopru_graph.lvlm.inputs.video import evenly, fingerprint, load_video
from fopru_graph.nodes.load_video import LoadVideo
from fopru_graph.values import Video


def frame(level: int, size: tuple[int, int] = (12, 8)) -> Image.Image:
    return Image.new("RGB", size, (level, 255 - level, 7))


def levels(video) -> list[int]:
    return [int(np.asarray(one)[..., 0].mean().round()) for one in video.frames]


def folder(path, names, size=(12, 8)):
    path.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        frame(10 * i, size).save(path / name)
    return str(path)


def refusal(path, frames=8) -> UserError:
    with pytest.raises(UserError) as caught:
        load_video(str(path), frames)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("count", range(1, 30))
@pytest.mark.parametrize("frames", [1, 2, 3, 8, 29])
def test_frames_are_evenly_spaced(count, frames):
    taken = evenly(count, frames)
    assert taken == sorted(set(taken)) and len(taken) == min(count, frames)
    if len(taken) > 1:
        assert (taken[0], taken[-1]) == (0, count - 1)
        exact = [i * (count - 1) / (len(taken) - 1) for i in range(len(taken))]
        assert max(abs(a - b) for a, b in zip(taken, exact, strict=True)) <= 0.5


def test_one_frame_is_the_middle_one():
    assert evenly(9, 1) == [4] and evenly(1, 1) == [0]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    names = ["f1.png", "f2.png", "f3.png", "f10.png", "f20.png"]
    path = folder(tmp_path / "v", names)
    (tmp_path / "v" / "notes.txt").write_text("no frame")
    (tmp_path / "v" / ".hidden.png").write_bytes(b"no frame")
    video = load_video(path, 8)
    assert levels(video) == [0, 10, 20, 30, 40]
    assert video.source == path and video.shape == (5, 8, 12)
    assert levels(load_video(path, 3)) == [0, 20, 40]
    assert levels(LoadVideo()(path=path, frames=2)) == [0, 40]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
@pytest.mark.parametrize("frames", [1, 4, 8])
def test_an_animation_gives_its_own_frames(tmp_path, suffix, frames):
    made = [frame(level) for level in (0, 40, 80, 120, 160, 200)]
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    made[0].save(path, save_all=True, append_images=made[1:], duration=100, **options)
    video = load_video(str(path), frames)
    assert all(one.mode == "RGB" and one.size == (12, 8) for one in video.frames)
    expected = [40 * i for i in {1: [2], 4: [0, 1, 3, 5], 8: range(6)}[frames]]  # shown at that time
    assert np.abs(np.subtract(levels(video), expected)).max() <= (4 if suffix == "gif" else 0)  # GIF has a palette


def test_what_a_png_shows_where_nothing_moves_is_no_frame(tmp_path):
    path = tmp_path / "a.png"
    frame(250).save(path, save_all=True, append_images=[frame(10), frame(20)], default_image=True)
    assert levels(load_video(str(path), 8)) == [10, 20]


def test_what_is_no_video_is_refused(tmp_path):
    still, text = tmp_path / "still.png", tmp_path / "text.gif"
    frame(1).save(still)
    text.write_text("hello")
    pages = tmp_path / "pages.tiff"
    frame(1).save(pages, save_all=True, append_images=[frame(2)])
    (tmp_path / "empty").mkdir()
    assert "still picture" in refusal(still).message
    assert "still picture" in refusal(pages).message
    assert "text" in refusal(text).message
    assert "no pictures" in refusal(tmp_path / "empty").message
    assert "there is no file" in refusal(tmp_path / "absent").message
    assert "cannot be read" in refusal("a\0b").message
    assert "at least 1" in refusal(still, 0).message


def test_bad_frames_are_refused(tmp_path):
    path = folder(tmp_path / "v", ["1.png", "2.png"])
    frame(3, (20, 8)).save(tmp_path / "v" / "3.png")
    message = refusal(path).message
    assert "differ in size" in message and "12 × 8" in message and "20 × 8" in message
    data = (tmp_path / "v" / "1.png").read_bytes()
    (tmp_path / "v" / "3.png").write_bytes(data[: len(data) // 2])
    assert "3.png" in refusal(path).message
    made = [frame(level, (64, 64)) for level in (0, 100, 200)]
    made[0].save(tmp_path / "a.webp", save_all=True, append_images=made[1:])
    cut = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "a.webp").write_bytes(cut[: len(cut) - len(cut) // 3])
    assert "a.webp" in refusal(tmp_path / "a.webp").message


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    path = folder(tmp_path / "v", ["1.png", "2.png"])
    seen = {fingerprint(path)}
    assert fingerprint(folder(tmp_path / "w", ["1.png", "2.png"])) in seen
    (tmp_path / "v" / "notes.txt").write_text("no frame")
    assert LoadVideo().fingerprint(path) in seen
    frame(99).save(tmp_path / "v" / "2.png")
    seen.add(fingerprint(path))
    (tmp_path / "v" / "2.png").rename(tmp_path / "v" / "3.png")
    seen.add(fingerprint(path))
    assert len(seen) == 3
    (tmp_path / "empty").mkdir()
    assert fingerprint(str(tmp_path / "empty")) == fingerprint(str(tmp_path / "absent")) == "missing"
    assert fingerprint("a\0b") == "missing"


def test_vision_encode_takes_a_video_a_picture_or_lists():
    graph = Graph("x")
    model, video, image = graph.LoadModel(), graph.LoadVideo(path="x"), graph.LoadImage(path="x")
    for i, one in enumerate((video, image, [video, video], [image])):
        graph.output(f"o{i}", graph.VisionEncode(model=model, image=one))
    assert graph.problems() == []
    graph.output("bad", graph.VisionEncode(model=model, image=model))
    assert any("Video" in str(problem) for problem in graph.problems())


def animation(path, milliseconds):
    """Frames of levels 0, 20, 40, … that are shown so long each."""
    made = [frame(20 * i) for i in range(len(milliseconds))]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    made[0].save(path, save_all=True, append_images=made[1:], duration=milliseconds, loop=0, **options)
    return str(path)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animations_durations_are_its_times(tmp_path, suffix):
    path = animation(tmp_path / f"a.{suffix}", [100, 100, 800, 100, 300])
    video = load_video(path, 8)
    assert video.times == pytest.approx((0, 0.1, 0.2, 1.0, 1.1)) and video.duration == pytest.approx(1.4)
    few = load_video(path, 3)
    assert few.times == pytest.approx((0, 0.55, 1.1)) and few.duration == pytest.approx(1.4)
    assert np.abs(np.subtract(levels(few), [0, 40, 80])).max() <= 4  # the frame that is shown then, not the middle one
    often = load_video(path, fps=2.5)
    assert often.times == pytest.approx((0, 0.4, 0.8, 1.2))
    assert np.abs(np.subtract(levels(often), [0, 40, 40, 80])).max() <= 4
    assert load_video(path, fps=100).times == video.times  # no frame is made up


def test_a_gif_that_does_not_say_its_durations_is_shown_as_browsers_show_it(tmp_path):
    video = load_video(animation(tmp_path / "a.gif", [0, 0, 0]), 3)
    assert video.times == pytest.approx((0, 0.1, 0.2)) and video.duration == pytest.approx(0.3)


def test_a_folder_has_the_times_that_it_is_given(tmp_path):
    path = folder(tmp_path / "v", [f"{i}.png" for i in range(10)])
    untimed = load_video(path, 4)
    assert untimed.times == () and untimed.duration is None
    assert untimed.frame_times == tuple(i / 24 for i in range(4)) and untimed.frame_rate == 24
    timed = load_video(path, fps=1, folder_fps=2)
    assert levels(timed) == [0, 20, 40, 60, 80] and timed.times == (0, 1, 2, 3, 4)
    assert timed.duration == 5 and timed.frame_rate == 1
    assert load_video(path, 2, folder_fps=2).times == (0, 4.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "neither frames nor fps"),
        ({"frames": 2, "fps": 1.0}, "both frames and fps"),
        ({"frames": 0}, "frames of the video .* at least 1"),
        ({"fps": 0.0}, "fps of the video .* above 0"),
        ({"fps": float("nan")}, "fps of the video .* above 0"),
        ({"frames": 2, "folder_fps": 0.0}, "folder_fps of the video .* above 0"),
        ({"fps": 1.0}, "have no times"),
        ({"fps": 9e6, "folder_fps": 0.001}, None),
    ],
)
def test_a_sampling_has_one_meaning(tmp_path, given, said):
    path = folder(tmp_path / "v", ["1.png", "2.png"])
    if said is None:
        assert len(load_video(path, **given).frames) == 2
        return
    with pytest.raises(UserError, match=said):
        load_video(path, **given)


def test_a_file_has_its_own_times(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        load_video(animation(tmp_path / "a.gif", [100, 100]), 2, folder_fps=3)


def test_a_video_needs_frames_and_all_times_or_none():
    with pytest.raises(UserError, match="has no frames"):
        Video((), "x")
    for times, duration in (((0.0,), None), ((), 1.0), ((0.0, 1.0), 2.0)):
        with pytest.raises(UserError, match="times"):
            Video((frame(1),), "x", times, duration)


def test_another_sampling_is_another_key(tmp_path):
    path = folder(tmp_path / "v", ["1.png", "2.png"])

    def key(**sampling):
        graph = Graph("x")
        graph.output("o", graph.LoadVideo(path=path, **sampling))
        return [step.key for step in plan(graph).steps.values()][0]

    ways = ({"frames": 2}, {"frames": 1}, {"fps": 1.0, "folder_fps": 2.0}, {"fps": 1.0, "folder_fps": 1.0})
    assert len({key(**way) for way in ways}) == len(ways) and key(frames=2) == key(frames=2)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match="holds no pictures") as refused:
        load_video(str(tmp_path), frames=2)
    assert "folder of pictures" in refused.value.hint
