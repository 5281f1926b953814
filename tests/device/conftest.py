"""Fixtures for the device tests: test videos, images, frames with results, and a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.contract import UNCERTAIN
from edgekit.device.detections import Detections, FrameResult, Track
from edgekit.device.frame import Frame
from edgekit.preprocess import ImageU8
from tests.browser import open_browser
from tests.device import videos
from tests.device.videos import plain_frames

WriteClip = Callable[..., Path]


@pytest.fixture
def write_clip(tmp_path: Path) -> WriteClip:
    """Write an .mp4 of plain gray frames with the given levels: the mean of a frame identifies it."""

    def write(name: str = "clip.mp4", levels: Sequence[int] = range(0, 250, 10), size_wh: tuple[int, int] = (64, 48)):
        return videos.write_video(tmp_path / name, plain_frames(*((level,) * 3 for level in levels), size_wh=size_wh))

    return write


@pytest.fixture
def write_video(tmp_path: Path) -> WriteClip:
    """Write a video with PyAV; its frames have the given times in milliseconds and changing brightness."""
    av = pytest.importorskip("av", reason="no PyAV here: pip install av")

    def write(name: str, times_ms: Sequence[int], codec: str = "libx264", noise: int = 0, **container: str) -> Path:
        path = tmp_path / name
        rng = np.random.default_rng(0)
        with av.open(str(path), "w", **container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.gop_size = 10
            stream.codec_context.max_b_frames = 0
            for number, time_ms in enumerate(times_ms):
                gray = 20 + 6 * number % 180 + rng.integers(0, noise + 1, (96, 160))
                image = av.VideoFrame.from_ndarray(gray.astype(np.uint8), format="gray").reformat(format="yuv420p")
                image.pts, image.time_base = time_ms, Fraction(1, 1000)
                for packet in stream.encode(image):
                    file.mux(packet)
            for packet in stream.encode(None):
                file.mux(packet)
        return path

    return write


@pytest.fixture
def picture() -> ImageU8:
    """An image of noise: it does not compress, so that a truncated file lacks pixels."""
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture
def notices() -> list[str]:
    """The notified lines; pass `notices.append` as `notify`."""
    return []


class Feed:
    """Makes frames and results like those of a pipeline; the gray level differs from frame to frame."""

    CLASSES = ("calm", "happy", "sad")

    def __init__(self) -> None:
        self.sequence = 0
        self._tracks: dict[int, Track] = {}

    def next(
        self, *labels: str, at_s: float | None = None, ids: Sequence[int] | None = (), uncertain: bool = False
    ) -> tuple[Frame, FrameResult]:
        """Return the next frame with one face per label, captured now or at `at_s`.

        The faces have the tracks `ids`, by default 1, 2 and so on; None: they have none. A face with the label
        "uncertain" has nearly equal class probabilities; with `uncertain`, all faces are uncertain.
        """
        self.sequence += 1
        now_s = time.monotonic() if at_s is None else at_s
        image = np.full((240, 320, 3), 40 + 7 * self.sequence % 150, np.uint8)
        stages = {"capture": 1.0, "detect": 20.0, "crop": 0.5, "classify": 3.0 + self.sequence % 5}
        frame = Frame(self.sequence, now_s, time.time(), image)
        classes = tuple(dict.fromkeys((*self.CLASSES, *(label for label in labels if label != UNCERTAIN))))
        shown = {label: [0.8 if name == label else 0.1 for name in classes] for label in classes}
        shown[UNCERTAIN] = [0.4 if name == "happy" else 0.3 for name in classes]
        rows = [shown[label] for label in labels]
        faces = Detections(
            np.array([(20 + 90 * place, 60, 90 + 90 * place, 150) for place in range(len(rows))], float).reshape(-1, 4),
            np.full(len(rows), 0.9),
            tracks=None if ids is None else self._of(ids or range(1, 1 + len(rows))),
            probabilities=np.array(rows).reshape(-1, len(classes)),
            classes=classes,
            label_indices=np.array([int(np.argmax(row)) for row in rows], np.int64),
            uncertain=np.array([uncertain or label == UNCERTAIN for label in labels], np.bool_),
        )
        return frame, FrameResult(frame.sequence, now_s, frame.wall_s, (320, 240), faces, stages, 25.0)

    def _of(self, ids: Iterable[int]) -> NDArray[np.object_]:
        return np.array([self._tracks.setdefault(track_id, Track(track_id)) for track_id in ids], np.object_)


class Clock:
    """A clock that the test sets."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def repeated(step: Callable[[], None]) -> Iterator[None]:
    """Call a function in a thread, fifty times per second, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.02):
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def feed() -> Feed:
    """A new `Feed`."""
    return Feed()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A browser for the tests of a module."""
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver
