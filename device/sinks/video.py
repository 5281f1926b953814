"""Results as a video: the frames with boxes and labels drawn in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np

from edgekit.device.annotate import draw_faces
from edgekit.device.blur import Xyxy, hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.errors import InputError, StorageError
from edgekit.files import atomic_path, remove_leftovers
from edgekit.preprocess import ImageU8

_SUFFIX = ".mp4"
# MPEG-4 part 2, the only video encoder in every OpenCV wheel.
_CODEC = "mp4v"
_STILLS_FPS = 5.0
_CAMERA_FPS = 15.0

# Closing an .mp4 writes its index, about 20 bytes per frame; recording ends while there is still space for the index.
_RESERVE_BYTES = 256 << 10
_INDEX_BYTES_PER_FRAME = 32


class VideoSink(Sink):
    """Writes an .mp4 file, which has a temporary name until it is complete.

    The video has the size of the first frame; frames of other sizes are fitted into it. Frames of a live source are
    repeated or dropped so that the video plays in real time, with pauses cut to one second. The video is kept if the
    run ends early.
    """

    def __init__(
        self,
        target: Path,
        fps: float | None,
        live: bool,
        before_naming: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to write `target`.

        Args:
            target: The .mp4 file.
            fps: Nominal frame rate of the source, if known.
            live: Whether the source is live.
            before_naming: Called when the video is complete, just before it gets its name.

        Raises:
            InputError: `target` does not end in .mp4 or is a folder.
        """
        if target.suffix.lower() != _SUFFIX or target.is_dir():
            raise InputError(f"video '{target}': name a file that ends in {_SUFFIX}")
        self._fps = _encodable_fps(fps or (_CAMERA_FPS if live else _STILLS_FPS))
        self._target = target
        self._live = live
        self._stack = ExitStack()
        self._temporary = target
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._written = 0
        self._last_monotonic_s = 0.0
        self._owed_frames = 0.0
        self._before_naming = before_naming

    def __exit__(self, *exception: object) -> None:
        """Complete and name the video.

        Raises:
            StorageError: The file on the disk is incomplete.
        """
        if self._writer is None:
            return
        with self._stack:
            self._writer.release()
            if _playable_frames(self._temporary) != self._written:
                raise StorageError(f"video '{self._target}' is incomplete: the disk is full or faulty: free some space")
            try:
                self._before_naming()
            except OSError as error:
                raise StorageError(f"video '{self._target}' cannot be named: {error.strerror or error}") from error

    def write(self, frame: Frame, result: FrameResult, hidden_xyxy: Sequence[Xyxy] = ()) -> None:
        """Append the frame with its faces drawn in and the boxes `hidden_xyxy` blurred.

        Raises:
            StorageError: The disk is full or not writable.
            InputError: The encoder does not support the size of the frame.
        """
        image = hide_boxes(frame.image_bgr, hidden_xyxy) if hidden_xyxy else frame.image_bgr
        image = draw_faces(image, result.faces)
        if self._writer is None:
            self._writer = self._open(image)
        canvas = _fit(image, self._size_wh)
        for _ in range(self._repeats(frame.monotonic_s)):
            self._require_space()
            self._writer.write(canvas)
            self._written += 1

    def written_bytes(self) -> int:
        """Return the current size of the file."""
        try:
            return self._temporary.stat().st_size if self._writer is not None else 0
        except OSError:
            return 0

    def _open(self, image: ImageU8) -> cv2.VideoWriter:
        height, width = image.shape[:2]
        # The encoder needs an even width and height.
        self._size_wh = (width + width % 2, height + height % 2)
        # Temporary files of runs that were killed or lost power.
        remove_leftovers(self._target)
        self._temporary = self._stack.enter_context(atomic_path(self._target))
        fourcc = cv2.VideoWriter.fourcc(*_CODEC)
        try:
            self._require_space()
            writer = cv2.VideoWriter(str(self._temporary.resolve()), cv2.CAP_FFMPEG, fourcc, self._fps, self._size_wh)
            if not writer.isOpened():
                raise InputError(f"video '{self._target}': this OpenCV cannot encode {width}x{height} pixels")
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return writer

    def _require_space(self) -> None:
        reserve = _RESERVE_BYTES + _INDEX_BYTES_PER_FRAME * self._written
        if shutil.disk_usage(self._temporary.parent).free < reserve:
            raise StorageError(
                f"video '{self._target}' ended after {self._written} frames because the disk is full: free some space"
            )

    def _repeats(self, monotonic_s: float) -> int:
        """Return how often the frame is written; 0 drops it."""
        if not self._live:
            return 1
        if self._written == 0:
            self._owed_frames = 1.0
        else:
            self._owed_frames += min(monotonic_s - self._last_monotonic_s, 1.0) * self._fps
        self._last_monotonic_s = monotonic_s
        due = int(self._owed_frames)
        self._owed_frames -= due
        return due


def _encodable_fps(fps: float) -> float:
    # MPEG-4 time stamps have at most 65535 ticks per second, too few for fractions of high rates.
    return max(0.1, round(fps, 2) if fps < 600 else round(fps))


def _fit(image: ImageU8, size_wh: tuple[int, int]) -> ImageU8:
    """Return `image` centred on black, resized only if it differs from the video size by more than 1 px."""
    width, height = size_wh
    have_h, have_w = image.shape[:2]
    if (have_w, have_h) == size_wh:
        return image
    if not (0 <= width - have_w <= 1 and 0 <= height - have_h <= 1):
        scale = min(width / have_w, height / have_h)
        have_w, have_h = max(1, round(have_w * scale)), max(1, round(have_h * scale))
        image = np.asarray(cv2.resize(image, (have_w, have_h), interpolation=cv2.INTER_AREA), np.uint8)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - have_h) // 2, (width - have_w) // 2
    canvas[top : top + have_h, left : left + have_w] = image
    return canvas


def _playable_frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
