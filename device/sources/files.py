"""Frames from pictures and recorded videos."""

from __future__ import annotations

import glob
import math
import os
import re
import select
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from edgekit.device.frame import Frame, RecordedSource
from edgekit.device.imaging import IMAGE_SUFFIXES, as_frame, read_image
from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.preprocess import ImageU8

# A container's frame count is partly an estimate: fewer frames than this share of it mean damage.
_WHOLE_VIDEO = 0.95
_COUNT_SLACK_FRAMES = 2


class PictureSource(RecordedSource):
    """Pictures in a row. One that cannot be read is skipped with a warning, unless it is the only one."""

    fps = None

    def __init__(self, paths: Sequence[Path], name: str, notify: Callable[[str], None]) -> None:
        self.name = name
        self.frame_count = len(paths)
        self.skipped = 0
        self._paths = paths
        self._notify = notify

    def __iter__(self) -> Iterator[Frame]:
        """Yield a frame a readable picture.

        Raises:
            InputError: No picture can be read.
        """
        for sequence, path in enumerate(self._paths):
            if self._stopped:
                return
            try:
                image = read_image(path)
            except InputError as error:
                if len(self._paths) == 1:
                    raise
                self.skipped += 1
                self._notify(f"{error}: skipped")
                continue
            # A name need not be text; what it has else stands there as an escape.
            name = os.fsencode(path).decode(errors="backslashreplace")
            yield Frame(sequence, time.monotonic(), time.time(), as_frame(image), name)
        if self.skipped == len(self._paths):
            raise InputError(f"none of the {self.skipped} pictures of '{self.name}' can be read")


class VideoSource(RecordedSource):
    """A recorded video, every frame of it. One that breaks off early ends there with a warning."""

    def __init__(self, capture: cv2.VideoCapture, name: str, notify: Callable[[str], None]) -> None:
        """Take over an opened `capture`.

        Raises:
            InputError: Not one frame can be read.
        """
        self.name = name
        self.fps = capture_fps(capture)
        self.frame_count = capture_frame_count(capture)
        self._capture = capture
        self._notify = notify
        # Read now: a video without a frame is refused before anything is written for it.
        self._first = self._read()
        if self._first is None:
            capture.release()
            raise InputError(f"video '{name}' cannot be read: it is damaged or no video")

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order; their capture time is when they were decoded."""
        image, self._first = self._first, None
        sequence = 0
        while image is not None:
            yield Frame(sequence, time.monotonic(), time.time(), image)
            if self._stopped:
                return
            sequence += 1
            image = self._read()
        expected = self.frame_count or 0
        if sequence < min(expected * _WHOLE_VIDEO, expected - _COUNT_SLACK_FRAMES):
            self._notify(
                f"video '{self.name}' breaks off after {sequence} of {expected} frames: the rest is damaged or missing"
            )

    def _read(self) -> ImageU8 | None:
        try:
            ok, image = self._capture.read()
        except cv2.error:
            return None
        return as_frame(np.asarray(image, np.uint8)) if ok and image is not None else None


class _PipedSource(VideoSource):
    """A video that is written to a pipe while it is read."""

    def __init__(self, handle: int, name: str, notify: Callable[[str], None]) -> None:
        # Opened anew, it would wait for a writer, who may have come and gone.
        self._handle = handle
        try:
            super().__init__(cv2.VideoCapture(f"pipe:{handle}", cv2.CAP_FFMPEG), name, notify)
        except InputError:
            os.close(handle)
            raise

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        os.close(self._handle)


def open_files(uri: str, notify: Callable[[str], None]) -> PictureSource | VideoSource:
    """Return the source for a picture, a folder of pictures, a glob pattern or a video file.

    Raises:
        InputError: Nothing there, nothing readable there, or a folder or pattern without pictures.
    """
    path = Path(uri)
    if path.is_dir():
        return _pictures(sorted(path.iterdir(), key=_natural), uri, f"folder '{uri}' holds", notify)
    if not path.exists() and glob.has_magic(uri):
        found = [Path(name) for name in glob.glob(uri, recursive=True)]  # noqa: PTH207 - takes absolute patterns too
        return _pictures(sorted(found, key=_natural), uri, f"pattern '{uri}' finds", notify)
    if path.is_fifo():
        notify(f"source '{uri}' is a pipe: waiting for the video that is written to it")
        return _PipedSource(_written_pipe(path), uri, notify)
    require_file(path, "source")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return PictureSource([path], uri, notify)
    # An absolute path cannot be taken for a protocol of FFmpeg's.
    return VideoSource(cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG), uri, notify)


def _written_pipe(path: Path) -> int:
    """Return a named pipe opened to read, as soon as something is in it; FFmpeg's own wait for that hears no signal."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        select.select([handle], [], [])
    except BaseException:
        os.close(handle)
        raise
    os.set_blocking(handle, True)
    return handle


def capture_fps(capture: cv2.VideoCapture) -> float | None:
    """Return the nominal frame rate, None where it is unknown or absurd."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def capture_frame_count(capture: cv2.VideoCapture) -> int | None:
    """Return how many frames the container announces, None for an endless or unknown one."""
    count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return int(count) if math.isfinite(count) and count > 0 else None


def _pictures(found: list[Path], name: str, holder: str, notify: Callable[[str], None]) -> PictureSource:
    paths = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not paths:
        raise InputError(f"{holder} no pictures: expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return PictureSource(paths, name, notify)


def _natural(path: Path) -> list[tuple[int, str]]:
    # frame_9 before frame_10.
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]
