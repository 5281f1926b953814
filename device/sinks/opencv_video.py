"""MPEG-4 part 2 video by OpenCV: the fallback without PyAV. Browsers and phones do not play it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import cv2

from edgekit.device.imaging import opencv_text
from edgekit.errors import InputError, StorageError
from edgekit.files import atomic_path, remove_leftovers
from edgekit.preprocess import ImageU8

# The only video encoder in every OpenCV wheel.
_CODEC = "mp4v"
# Closing an .mp4 writes its index, about 20 bytes per frame; recording ends while there is still space for the index.
_RESERVE_BYTES = 256 << 10
_INDEX_BYTES_PER_FRAME = 32


class OpenCvFile:
    """An .mp4 file with a constant frame rate, which has a temporary name until it is complete.

    Frames are repeated so that the video lasts as long as the frames did. Of a live source, frames are also left out,
    and pauses are cut to one second.

    Attributes:
        stored: Number of frames passed to `write`, once the file is complete.
    """

    def __init__(
        self, target: Path, size_wh: tuple[int, int], fps: float, live: bool, before_naming: Callable[[], None]
    ) -> None:
        """Open a temporary file.

        Args:
            target: The .mp4 file.
            size_wh: Width and height of the frames, both even.
            fps: Frame rate of the video.
            live: Whether frames arrive at irregular times.
            before_naming: Called when the video is complete, just before it gets its name.

        Raises:
            InputError: The encoder does not support the size.
            StorageError: The disk is full or not writable.
        """
        self._target = target
        self._fps = _encodable_fps(fps)
        self._live = live
        self._before_naming = before_naming
        self._written = 0
        self._frames = 0
        self._first_s: float | None = None
        self._latest_s = 0.0
        self._owed_frames = 0.0
        self.stored = 0
        # Temporary files of runs that were killed or lost power.
        remove_leftovers(target)
        self._stack = ExitStack()
        self._temporary = self._stack.enter_context(atomic_path(target))
        fourcc = cv2.VideoWriter.fourcc(*_CODEC)
        try:
            self._require_space()
            name = opencv_text(str(self._temporary.resolve()))
            self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, fourcc, self._fps, size_wh)
            if not self._writer.isOpened():
                raise InputError(f"video '{target}': this OpenCV cannot encode {size_wh[0]}x{size_wh[1]} pixels")
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise

    def write(self, image_bgr: ImageU8, time_s: float) -> None:
        """Append a frame, uint8 (H, W, 3) B, G, R.

        Raises:
            StorageError: The disk is full or not writable, or the file was removed.
        """
        for _ in range(self._repeats(time_s)):
            self._require_space()
            self._writer.write(image_bgr)
            self._written += 1
        self._frames += 1

    def size_bytes(self) -> int:
        """Return the current size of the file."""
        try:
            return self._temporary.stat().st_size
        except OSError:
            return 0

    def close(self) -> None:
        """Complete and name the video.

        Raises:
            StorageError: The file on the disk is incomplete, or cannot be named.
        """
        with self._stack:
            self._writer.release()
            if _playable_frames(self._temporary) != self._written:
                raise StorageError(f"video '{self._target}' is incomplete: the disk is full or faulty: free some space")
            self._before_naming()
        self.stored = self._frames

    def _require_space(self) -> None:
        reserve = _RESERVE_BYTES + _INDEX_BYTES_PER_FRAME * self._written
        try:
            free = shutil.disk_usage(self._temporary).free
        except OSError as error:
            raise StorageError(f"cannot write '{self._target}': {error.strerror}") from error
        if free < reserve:
            raise StorageError(
                f"video '{self._target}' ended after {self._written} frames because the disk is full: free some space"
            )

    def _repeats(self, time_s: float) -> int:
        """Return how often the frame is written; 0 leaves it out."""
        if self._first_s is None:
            self._first_s = time_s
        if not self._live:
            # Every frame is written; the one after a pause fills the pause.
            return max(1, round((time_s - self._first_s) * self._fps) + 1 - self._written)
        if self._written == 0:
            self._owed_frames = 1.0
        else:
            self._owed_frames += min(time_s - self._latest_s, 1.0) * self._fps
        self._latest_s = time_s
        due = int(self._owed_frames)
        self._owed_frames -= due
        return due


def _encodable_fps(fps: float) -> float:
    # MPEG-4 time stamps have at most 65535 ticks per second, too few for fractions of high rates.
    return max(0.1, round(fps, 2) if fps < 600 else round(fps))


def _playable_frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
