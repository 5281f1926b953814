"""The recorded video: playable, complete, and kept or gone but never half there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.detections import Face, FrameResult
from edgekit.device.sinks.video import VideoSink
from edgekit.device.sources import Frame
from edgekit.errors import InputError, SourceError, StorageError

FACE = Face((20, 30, 60, 70), 0.9, "happy", 0.8, {"happy": 0.8, "sad": 0.2})


def frame(sequence: int = 0, size_wh: tuple[int, int] = (128, 96), level: int = 100, seconds: float = 0.0) -> Frame:
    return Frame(sequence, seconds, 0.0, np.full((size_wh[1], size_wh[0], 3), level, np.uint8))


def noise(sequence: int, rng: np.random.Generator) -> Frame:
    return Frame(sequence, 0.0, 0.0, rng.integers(0, 256, (240, 320, 3), np.uint8))


def result(*faces: Face) -> FrameResult:
    return FrameResult(0, 0.0, 0.0, (128, 96), faces, {}, 0.0)


def play(path: Path) -> tuple[float, list[np.ndarray]]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        ok, image = capture.read()
        if not ok:
            return capture.get(cv2.CAP_PROP_FPS), frames
        frames.append(image)


def test_every_frame_is_in_the_video_with_its_faces_at_the_sources_rate(tmp_path):
    path = tmp_path / "new" / "out.mp4"
    with VideoSink(path, 25.0, live=False) as sink:
        for sequence in range(10):
            sink.write(frame(sequence), result(FACE))
        assert not path.exists(), "it gets its name when it is whole"
    fps, frames = play(path)
    assert (fps, len(frames), frames[0].shape) == (25.0, 10, (96, 128, 3))
    difference = cv2.absdiff(frames[5], np.full((96, 128, 3), 100, np.uint8)).max(axis=2) > 40
    rows, columns = np.nonzero(difference)
    assert columns.min() >= 17
    assert rows.max() <= 73
    assert difference[40:60, 19:22].any(), "the left edge of the box"
    assert [entry.name for entry in path.parent.iterdir()] == ["out.mp4"]


def test_what_a_killed_run_left_of_this_video_is_removed_and_nothing_else(tmp_path):
    killed = f"""
from pathlib import Path
import os, signal
from edgekit.files import atomic_path
with atomic_path(Path({str(tmp_path / "out.mp4")!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    others = {".out.mp4.keep", ".out.mp4.longer-than-that.mp4", ".other.mp4.abcdefgh.mp4"}
    for name in others:
        (tmp_path / name).touch()
    with (
        VideoSink(tmp_path / "out.mp4", 25.0, live=False) as first,
        VideoSink(tmp_path / "out.mp4", 25.0, False) as same,
    ):
        first.write(frame(), result())
        assert not left.exists()
        same.write(frame(), result())
    assert {entry.name for entry in tmp_path.iterdir()} == {"out.mp4", *others}


@pytest.mark.parametrize("fps", [24.701716702186573, 240.1234567, 999.87, 0.2, None])
def test_any_rate_can_be_recorded(tmp_path, fps):
    path = tmp_path / "out.mp4"
    with VideoSink(path, fps, live=False) as sink:
        for sequence in range(3):
            sink.write(frame(sequence), result())
    written_fps, frames = play(path)
    assert (written_fps, len(frames)) == (pytest.approx(fps or 5.0, rel=1e-3), 3)


@pytest.mark.parametrize("size_wh", [(1, 1), (33, 17), (176, 144), (1001, 3)])
def test_any_frame_size_can_be_recorded(tmp_path, size_wh):
    path = tmp_path / "out.mp4"
    with VideoSink(path, 25.0, live=False) as sink:
        sink.write(frame(size_wh=size_wh), result(FACE))
    (image,) = play(path)[1]
    assert image.shape[:2] == (size_wh[1] + size_wh[1] % 2, size_wh[0] + size_wh[0] % 2)


def test_frames_of_other_sizes_are_fitted_into_the_first(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoSink(path, 25.0, live=False) as sink:
        sink.write(frame(level=200), result())
        sink.write(frame(level=200, size_wh=(480, 960)), result())
    _, (_, tall) = play(path)
    assert tall.shape == (96, 128, 3)
    assert tall[48, 64].min() > 180
    assert tall[48, [10, 117]].max() < 30, "black beside a tall picture"


def test_a_live_video_plays_in_real_time(tmp_path):
    path = tmp_path / "out.mp4"
    with VideoSink(path, 20.0, live=True) as sink:
        for sequence in range(11):  # 10 frames a second into 20, then a frame that comes early, then a long pause
            sink.write(frame(sequence, seconds=sequence / 10), result())
        sink.write(frame(11, seconds=1.01), result())
        sink.write(frame(12, seconds=500.0), result())
    assert len(play(path)[1]) == 1 + 20 + 0 + 20


@pytest.mark.parametrize("loss", [SourceError("camera lost"), KeyboardInterrupt()])
def test_what_was_recorded_before_the_run_broke_off_is_kept(tmp_path, loss):
    path = tmp_path / "out.mp4"

    def record() -> None:
        with VideoSink(path, 25.0, live=False) as sink:
            sink.write(frame(), result())
            raise loss

    with pytest.raises(type(loss)):
        record()
    assert len(play(path)[1]) == 1


def test_without_a_frame_nothing_is_written(tmp_path):
    with VideoSink(tmp_path / "out.mp4", 25.0, live=False):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.txt", "out", "folder.mp4"])
def test_a_name_that_is_no_mp4_is_refused(tmp_path, name):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match=r"ends in \.mp4"):
        VideoSink(tmp_path / name, 25.0, live=False)


def test_a_size_that_no_encoder_takes_is_refused_and_leaves_nothing(tmp_path):
    with VideoSink(tmp_path / "out.mp4", 25.0, live=False) as sink, pytest.raises(InputError, match="cannot encode"):
        sink.write(frame(size_wh=(9000, 4)), result())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_ends_the_video_whole(small_disk):
    path = small_disk / "out.mp4"
    rng = np.random.default_rng(0)
    written = 0

    def record() -> None:
        nonlocal written
        with VideoSink(path, 25.0, live=False) as sink:
            for sequence in range(1000):
                sink.write(noise(sequence, rng), result())
                written += 1

    with pytest.raises(StorageError, match=r"ended after \d+ frames because the disk is full"):
        record()
    assert 1 < written < 900
    assert len(play(path)[1]) == written
    assert [entry.name for entry in small_disk.iterdir()] == ["out.mp4"]


def test_a_disk_that_is_full_at_the_end_leaves_no_video(small_disk, monkeypatch):
    # Without the look ahead the encoder writes into the void: nothing but playing the file can tell.
    monkeypatch.setattr(VideoSink, "_require_space", lambda _: None)
    path = small_disk / "out.mp4"
    rng = np.random.default_rng(0)

    def record() -> None:
        with VideoSink(path, 25.0, live=False) as sink:
            for sequence in range(100):
                sink.write(noise(sequence, rng), result())

    with pytest.raises(StorageError, match="is incomplete"):
        record()
    assert list(small_disk.iterdir()) == []
