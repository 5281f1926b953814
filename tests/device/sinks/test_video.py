"""The recorded video: complete and playable, also after a kill or a full disk."""

from __future__ import annotations

import functools
import http.server
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.device.detections import Face, FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sinks import mp4
from edgekit.device.sinks.rotation import Rotation
from edgekit.device.sinks.video import RotatingVideo, VideoOptions
from edgekit.errors import InputError, SourceError, StorageError
from tests.browser import PROGRAMS

pytest.importorskip("av", reason="no PyAV here: pip install av")

FACE = Face((20, 30, 60, 70), 0.9, "happy", 0.8, {"happy": 0.8, "sad": 0.2})
both_encoders = pytest.mark.parametrize("h264", [True, False], ids=["h264", "mpeg4"])


def video(path: Path, fps: float = 25.0, live: bool = False, h264: bool = True) -> RotatingVideo:
    clock: Callable[[Frame], float] = lambda frame: frame.monotonic_s if live else frame.sequence / fps  # noqa: E731
    return RotatingVideo(VideoOptions(path, fps, live, clock, h264=h264), Rotation(), None)


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


def times_s(path: Path) -> list[float]:
    capture = cv2.VideoCapture(str(path))
    times = []
    while capture.read()[0]:
        times.append(round(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 3))
    return times


@both_encoders
def test_every_frame_is_in_the_video_with_its_faces_at_the_sources_rate(tmp_path, h264):
    path = tmp_path / "new" / "out.mp4"
    with video(path, h264=h264) as sink:
        for sequence in range(10):
            sink.write(frame(sequence), result(FACE))
        assert h264 or not path.exists(), "it gets its name when it is whole"
    fps, frames = play(path)
    assert (fps, len(frames), frames[0].shape) == (25.0, 10, (96, 128, 3))
    difference = cv2.absdiff(frames[5], np.full((96, 128, 3), 100, np.uint8)).max(axis=2) > 40
    rows, columns = np.nonzero(difference)
    assert columns.min() >= 17
    assert rows.max() <= 73
    assert difference[40:60, 19:22].any(), "the left edge of the box"
    assert [entry.name for entry in path.parent.iterdir()] == ["out.mp4"]
    assert sink.account.as_document() == {"produced": 10, "written": 10, "dropped": {}, "waiting": 0}


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
        video(tmp_path / "out.mp4", h264=False) as first,
        video(tmp_path / "out.mp4", h264=False) as same,
    ):
        first.write(frame(), result())
        assert not left.exists()
        same.write(frame(), result())
    more = {entry.name for entry in tmp_path.iterdir()} - others
    assert [name for name in more if name.startswith(".")] == []
    assert len(more) == 2, "the two videos"


_RECORD_FOR_EVER = """
import itertools, sys
from pathlib import Path
import numpy as np
from edgekit.device.sinks.mp4 import H264File
file = H264File(Path(sys.argv[1]), (128, 96), 25.0)
for number in itertools.count():
    file.write(np.full((96, 128, 3), number % 200, np.uint8), number / 25)
    print(file.stored, flush=True)
"""


def test_a_killed_run_leaves_a_video_with_every_complete_fragment(tmp_path):
    path = tmp_path / "out.mp4"
    with subprocess.Popen(
        [sys.executable, "-c", _RECORD_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        stored = next(int(line) for line in process.stdout if int(line) >= 75)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    times = times_s(path)
    assert len(times) >= stored
    assert times == [round(number / 25, 3) for number in range(len(times))]


@both_encoders
@pytest.mark.parametrize("fps", [24.701716702186573, 240.1234567, 999.87, 0.2])
def test_any_rate_can_be_recorded(tmp_path, fps, h264):
    path = tmp_path / "out.mp4"
    with video(path, fps, h264=h264) as sink:
        for sequence in range(3):
            sink.write(frame(sequence), result())
    written_fps, frames = play(path)
    assert (written_fps, len(frames)) == (pytest.approx(fps, rel=2e-3), 3)


@both_encoders
@pytest.mark.parametrize("size_wh", [(1, 1), (33, 17), (176, 144), (1001, 3)])
def test_any_frame_size_can_be_recorded(tmp_path, size_wh, h264):
    path = tmp_path / "out.mp4"
    with video(path, h264=h264) as sink:
        sink.write(frame(size_wh=size_wh), result(FACE))
    (image,) = play(path)[1]
    assert image.shape[:2] == (size_wh[1] + size_wh[1] % 2, size_wh[0] + size_wh[0] % 2)


@both_encoders
def test_frames_of_other_sizes_are_fitted_into_the_first(tmp_path, h264):
    path = tmp_path / "out.mp4"
    with video(path, h264=h264) as sink:
        sink.write(frame(level=200), result())
        sink.write(frame(1, level=200, size_wh=(480, 960)), result())
    _, (_, tall) = play(path)
    assert tall.shape == (96, 128, 3)
    assert tall[48, 64].min() > 180
    assert tall[48, [10, 117]].max() < 30, "black beside a tall picture"


def test_a_live_video_plays_in_real_time(tmp_path):
    path = tmp_path / "out.mp4"
    with video(path, 20.0, live=True, h264=False) as sink:
        for sequence in range(11):  # 10 frames per second into 20, then an early frame, then a long pause
            sink.write(frame(sequence, seconds=sequence / 10), result())
        sink.write(frame(11, seconds=1.01), result())
        sink.write(frame(12, seconds=500.0), result())
    assert len(play(path)[1]) == 1 + 20 + 0 + 20


def test_each_frame_of_a_live_video_keeps_its_time(tmp_path):
    path = tmp_path / "out.mp4"
    times = [0.0, 0.033, 0.066, 0.4, 0.401, 2.5, 2.533, 9.0]
    with video(path, 30.0, live=True) as sink:
        for sequence, time_s in enumerate(times):
            sink.write(frame(sequence, seconds=1000 + time_s), result())
    assert times_s(path) == times


@both_encoders
@pytest.mark.parametrize("loss", [SourceError("camera lost"), KeyboardInterrupt()])
def test_what_was_recorded_before_the_run_broke_off_is_kept(tmp_path, loss, h264):
    path = tmp_path / "out.mp4"

    def record() -> None:
        with video(path, h264=h264) as sink:
            sink.write(frame(), result())
            raise loss

    with pytest.raises(type(loss)):
        record()
    assert len(play(path)[1]) == 1


@both_encoders
def test_without_a_frame_nothing_is_written(tmp_path, h264):
    with video(tmp_path / "out.mp4", h264=h264):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.txt", "out", "folder.mp4"])
def test_a_name_that_is_no_mp4_is_refused(tmp_path, name):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match=r"ends in \.mp4"):
        video(tmp_path / name)


@pytest.mark.parametrize(("h264", "width"), [(True, 20_000), (False, 9000)])
def test_a_size_that_no_encoder_takes_is_refused_and_leaves_nothing(tmp_path, h264, width):
    with video(tmp_path / "out.mp4", h264=h264) as sink, pytest.raises(InputError, match="cannot encode"):
        sink.write(frame(size_wh=(width, 4)), result())
    assert sink.account.as_document()["dropped"] == {"disk not writable": 1}
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_ends_the_video_whole(small_disk):
    path = small_disk / "out.mp4"
    rng = np.random.default_rng(0)
    written = 0

    def record() -> None:
        nonlocal written
        with video(path, h264=False) as sink:
            for sequence in range(1000):
                sink.write(noise(sequence, rng), result())
                written += 1

    with pytest.raises(StorageError, match=r"ended after \d+ frames because the disk is full"):
        record()
    assert 1 < written < 900
    assert len(play(path)[1]) == written
    assert [entry.name for entry in small_disk.iterdir()] == ["out.mp4"]


def test_a_disk_that_fills_up_leaves_the_complete_fragments(small_disk):
    path = small_disk / "out.mp4"
    rng = np.random.default_rng(0)
    sink = video(path, fps=5.0)

    def record() -> None:
        with sink:
            for sequence in range(1000):
                sink.write(noise(sequence, rng), result())

    with pytest.raises(StorageError, match="No space left on device"):
        record()
    counts = sink.account.as_document()
    assert 0 < counts["written"] < counts["produced"]
    assert len(play(path)[1]) == counts["written"]


def test_a_disk_that_is_full_from_the_start_leaves_no_empty_file(small_disk, fill):
    fill(small_disk)
    with pytest.raises(StorageError, match="No space left on device"), video(small_disk / "o.mp4") as sink:
        sink.write(frame(), result())
    assert [entry.name for entry in small_disk.iterdir()] == ["ballast"]


def test_a_disk_that_is_full_at_the_end_leaves_no_video(small_disk, monkeypatch):
    # Without the check of free space, the encoder loses frames without an error, and only the file shows the loss.
    monkeypatch.setattr("edgekit.device.sinks.opencv_video.OpenCvFile._require_space", lambda _: None)
    path = small_disk / "out.mp4"
    rng = np.random.default_rng(0)

    def record() -> None:
        with video(path, h264=False) as sink:
            for sequence in range(100):
                sink.write(noise(sequence, rng), result())

    with pytest.raises(StorageError, match="is incomplete"):
        record()
    assert list(small_disk.iterdir()) == []


def test_without_the_boards_encoder_x264_encodes(tmp_path, monkeypatch):
    # A node that is no encoder, as on a board whose driver is missing.
    monkeypatch.setattr(mp4, "_V4L2_NODE", Path("/dev/null"))
    with video(tmp_path / "out.mp4") as sink:
        sink.write(frame(), result())
    assert len(play(tmp_path / "out.mp4")[1]) == 1


_PLAY = """
const [done] = arguments, video = document.createElement("video");
video.muted = true;
video.playbackRate = 4;
video.onerror = () => done({error: video.error.message});
video.onended = () => {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(video, 0, 0);
  done({time: video.currentTime, duration: video.duration, rgb: [...pen.getImageData(9, 9, 1, 1).data].slice(0, 3)});
};
video.src = "/out.mp4";
video.play().catch((error) => done({error: String(error)}));
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        del args


@pytest.mark.skipif(None in PROGRAMS.values(), reason="no chromium and chromedriver here: install chromium-driver")
@pytest.mark.parametrize("size_wh", [(321, 239), (1280, 720)])
def test_a_browser_plays_the_video_to_its_end_in_its_colours(tmp_path, browser, size_wh):
    image_bgr = np.full((*size_wh[::-1], 3), (40, 180, 60), np.uint8)
    with video(tmp_path / "out.mp4", 25.0, live=True) as sink:
        for sequence, time_s in enumerate([0.0, 0.04, 0.08, 1.3, 1.34, 2.96]):
            sink.write(Frame(sequence, time_s, 0.0, image_bgr), result())
    (tmp_path / "index.html").write_text("<title>video</title>")
    handler = functools.partial(_Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            browser.get(f"http://127.0.0.1:{server.server_port}/index.html")
            played = browser.execute_async_script(_PLAY)
        finally:
            server.shutdown()
            thread.join()
    assert played.get("error") is None
    assert played["duration"] == pytest.approx(3.0, abs=0.05)
    assert played["time"] == pytest.approx(played["duration"], abs=0.05)
    assert played["rgb"] == pytest.approx([60, 180, 40], abs=6)
