"""Frames from image files and recorded videos."""

from __future__ import annotations

import glob
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from edgekit.device.frame import Frame, RecordedSource
from edgekit.device.imaging import IMAGE_SUFFIXES, UNREAD_SUFFIXES, as_frame, opencv_text, read_image, report_unread
from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.preprocess import ImageU8
from edgekit.text import natural_key, printable

# The frame count and duration of a container are partly estimates: a video that ends before this share is damaged.
_MIN_SHARE = 0.95
_COUNT_TOLERANCE_FRAMES = 2
# OpenCV reports a frame that cannot be decoded in the same way as the end: reading goes on for as many frames as are
# missing, within these limits.
_MIN_ATTEMPTS = 100
_MAX_ATTEMPTS = 10_000
# A lost connection can take seconds to report each failure.
_MAX_ATTEMPTS_S = 10.0
# A read that takes longer is left behind when the source is closed.
_CLOSE_S = 0.2
# The period between frames of a video without a frame rate.
_ASSUMED_PERIOD_S = 0.04


class ImageSource(RecordedSource):
    """One frame per image file. An unreadable image is skipped with a warning, unless it is the only one.

    Attributes:
        paths: The image files.
    """

    fps = None

    def __init__(self, paths: Sequence[Path], name: str, notify: Callable[[str], None]) -> None:
        self.name = name
        self.frame_count = len(paths)
        self.skipped = 0
        self.paths = paths
        self._notify = notify

    def __iter__(self) -> Iterator[Frame]:
        """Yield one frame for each readable image.

        Raises:
            InputError: No image can be read.
        """
        for sequence, path in enumerate(self.paths):
            if self._stopped:
                return
            try:
                image = read_image(path)
            except InputError as error:
                if len(self.paths) == 1:
                    raise
                self.skipped += 1
                self._notify(f"{error}: skipped")
                continue
            # File names are bytes: those that are not UTF-8 are shown as escapes.
            name = os.fsencode(path).decode(errors="backslashreplace")
            yield Frame(sequence, time.monotonic(), time.time(), as_frame(image), name)
        if self.skipped == len(self.paths):
            raise InputError(f"source '{self.name}': none of the {self.skipped} images can be read")


class VideoSource(RecordedSource):
    """Every frame of a recorded video that can be decoded, at its time in the video.

    A frame that cannot be decoded is skipped and counted; its number is left out. Damaged frames that the decoder
    conceals are counted at the end of a file. A video that ends early gives a warning.
    """

    def __init__(
        self, capture: cv2.VideoCapture, name: str, notify: Callable[[str], None], path: Path | None = None
    ) -> None:
        """Take ownership of an opened `capture`; `path` is its file, which can be read again.

        Raises:
            InputError: No frame can be read.
        """
        self.name = name
        self.fps = capture_fps(capture)
        self.frame_count = capture_frame_count(capture)
        self.skipped = 0
        self._path = path
        self._capture = capture
        self._reading = threading.Lock()  # held during a read, see `__exit__`
        self._notify = notify
        self._sequence = 0  # number of the next frame
        self._period_s = _ASSUMED_PERIOD_S if self.fps is None else 1 / self.fps
        self._position_s = 0.0
        self._shift_s = 0.0  # added to time stamps that have started again
        # The first frame is read here, so that an unreadable video fails before any output file is created.
        self._first = self._read()
        if self._first is None:
            capture.release()
            raise InputError(f"video '{name}' cannot be read: it is damaged or not a video")

    def __exit__(self, *exception: object) -> None:
        self.stop()
        # A network can block the read of another thread for ever. To release the capture during the read would crash.
        if self._reading.acquire(timeout=_CLOSE_S):
            self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order; the capture time is the time of decoding."""
        frame, self._first = self._first, None
        try:
            while frame is not None:
                yield frame
                if self._stopped:
                    return
                frame = self._read()
            self._warn_of_early_end()
            if self._path is not None:  # a stream cannot be decoded again
                self.damaged = count_damaged_frames(self._path, lambda: self._stopped)
        finally:
            self._report_damage()

    def _read(self) -> Frame | None:
        """Return the next frame that can be decoded, None at the end.

        OpenCV reports a frame that cannot be decoded in the same way as the end. So reading goes on for as many frames
        as are missing, within limits.
        """
        frames_left = (self.frame_count or 0) - self._sequence
        attempts = min(max(frames_left, _MIN_ATTEMPTS), _MAX_ATTEMPTS)
        end_s = time.monotonic() + _MAX_ATTEMPTS_S
        for failed in range(attempts):
            image = self._decode()
            if image is not None:
                self.skipped += failed
                sequence = self._sequence + failed
                self._sequence = sequence + 1
                self._advance()
                return Frame(sequence, time.monotonic(), time.time(), image, position_s=self._position_s)
            if self._stopped or time.monotonic() > end_s:
                break
        return None

    def _decode(self) -> ImageU8 | None:
        """Return the next image; None at the end, or if it cannot be decoded."""
        with self._reading:
            try:
                ok, image = self._capture.read()
            except cv2.error:
                return None
        return as_frame(np.asarray(image, np.uint8)) if ok and image is not None else None

    def _advance(self) -> None:
        """Set the position to that of the frame just read; positions never decrease."""
        before_s = self._position_s
        stamp_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        has_stamp = stamp_s > 0  # not the first frame, and no frame of a video without time stamps
        if not has_stamp:
            self._position_s = max((self._sequence - 1) * self._period_s, before_s)  # `_sequence` is of the next frame
            return
        if stamp_s + self._shift_s < before_s:
            # The time stamps start again, as in joined MPEG streams.
            self._shift_s = before_s + self._period_s - stamp_s
        self._position_s = stamp_s + self._shift_s

    def _report_damage(self) -> None:
        """Warn of frames that could not be decoded, and of damaged ones."""
        if self.skipped:
            self._notify(f"video '{self.name}': {self.skipped} frames cannot be decoded and were skipped")
        if self.damaged:
            damaged = f"{self.damaged} of {self._sequence} frames are damaged, with unreliable results"
            self._notify(f"video '{self.name}': {damaged}")

    def _warn_of_early_end(self) -> None:
        """Warn if the video ends early according to both its number of frames and its time stamps.

        Either alone may be wrong: OpenCV estimates the number for some formats.
        """
        expected = self.frame_count or 0  # 0, if it is unknown, gives no warning
        duration_s = expected * self._period_s
        end_s = self._position_s + self._period_s
        lacks_frames = self._sequence < min(expected * _MIN_SHARE, expected - _COUNT_TOLERANCE_FRAMES)
        lacks_time = end_s < duration_s * _MIN_SHARE
        if lacks_frames and lacks_time:
            self._notify(
                f"video '{self.name}' ends after {end_s:.1f} of {duration_s:.1f} s: the rest is damaged or missing"
            )


def open_files(uri: str, notify: Callable[[str], None]) -> ImageSource | VideoSource:
    """Return the source for an image, a folder of images, a glob pattern or a video file.

    Raises:
        InputError: `uri` does not exist, cannot be read, or is a folder or pattern without images.
    """
    path = Path(uri)
    # A name that is not UTF-8 is shown as escapes, because JSON documents cannot contain it.
    name = printable(uri)
    try:
        is_folder, exists = path.is_dir(), path.exists()
        files = sorted(path.iterdir(), key=natural_key) if is_folder else []
    except PermissionError as error:
        raise InputError(f"source '{name}' cannot be read: check the permissions of it and of its folders") from error
    if is_folder:
        return _images(files, name, f"folder '{name}' contains", notify)
    # A name that exists may contain * or [ itself.
    if not exists and glob.has_magic(uri):
        found = [Path(each) for each in glob.glob(uri, recursive=True)]  # noqa: PTH207 - takes absolute patterns too
        return _images(sorted(found, key=natural_key), name, f"pattern '{name}' matches", notify)
    require_file(path, "source")
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_SUFFIXES):
        return ImageSource([path], name, notify)  # which gives the reason if the format is not read
    # FFmpeg cannot mistake an absolute path for a protocol.
    path = path.resolve()
    return VideoSource(cv2.VideoCapture(opencv_text(str(path)), cv2.CAP_FFMPEG), name, notify, path)


def count_damaged_frames(path: Path, is_stopped: Callable[[], bool]) -> int:
    """Return the number of frames of a video whose missing parts the decoder invented; 0 without PyAV.

    OpenCV does not report such frames. PyAV does, so the whole file is decoded again, until `is_stopped()`. Frames that
    cannot be decoded at all are not counted.
    """
    try:
        import av
        import av.logging
    except ImportError:
        return 0
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's messages on stderr
    damaged = 0
    # IndexError: PyAV finds no video stream.
    with suppress(av.FFmpegError, IndexError), av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if is_stopped():
                break
            with suppress(av.FFmpegError):
                damaged += sum(frame.is_corrupt for frame in packet.decode())
    return damaged


def capture_fps(capture: cv2.VideoCapture) -> float | None:
    """Return the nominal frame rate in frames per second; None if it is unknown or implausible."""
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def capture_frame_count(capture: cv2.VideoCapture) -> int | None:
    """Return the frame count that the container declares; None for a live stream or an unknown count."""
    count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return int(count) if math.isfinite(count) and count > 0 else None


def _images(found: list[Path], name: str, where: str, notify: Callable[[str], None]) -> ImageSource:
    """Return the source of the image files among `found`.

    Raises:
        InputError: There are none; the message begins with `where`, such as "folder 'faces' contains".
    """
    report_unread(found, notify)  # those of formats such as HEIC
    visible = [path for path in found if not path.name.startswith(".")]  # macOS puts ._NAME.jpg beside images
    paths = [path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not paths:
        cure = f"expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        if any(path.is_dir() for path in visible):
            cure = "its subfolders are not read: give a pattern such as 'FOLDER/*/*.jpg'"
        raise InputError(f"{where} no images: {cure}")
    return ImageSource(paths, name, notify)
