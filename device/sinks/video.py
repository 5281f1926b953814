"""Results as a video in one or more files: the frames with boxes and labels drawn in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgekit.device.accounting import NOT_WRITABLE, Account
from edgekit.device.annotate import Draw, draw_faces
from edgekit.device.blur import FaceBlur, Xyxy, hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame, Source, presentation_time_s
from edgekit.device.imaging import resize
from edgekit.device.sink import Sink
from edgekit.device.sinks.mp4 import H264File
from edgekit.device.sinks.opencv_video import OpenCvFile
from edgekit.device.sinks.rotation import Rotation, free_bytes
from edgekit.errors import InputError, StorageError
from edgekit.preprocess import ImageU8

_VideoFile: TypeAlias = H264File | OpenCvFile

_SUFFIX = ".mp4"
# For sources without a frame rate.
_STILLS_FPS = 5.0
_CAMERA_FPS = 15.0


@dataclass(frozen=True)
class VideoOptions:
    """How a video is recorded.

    Attributes:
        target: The .mp4 file.
        fps: Nominal frame rate.
        live: Whether the source is live.
        time_s: Returns the time of a frame in seconds.
        draw: Draws the faces into a frame.
        h264: Whether PyAV encodes (`mp4.H264File`); otherwise OpenCV does (`OpenCvFile`).
    """

    target: Path
    fps: float
    live: bool
    time_s: Callable[[Frame], float]
    draw: Draw = draw_faces
    h264: bool = True

    def __post_init__(self) -> None:
        if self.target.suffix.lower() != _SUFFIX or self.target.is_dir():
            raise InputError(f"video '{self.target}': name a file that ends in {_SUFFIX}")

    @staticmethod
    def of(target: Path, source: Source, draw: Draw, h264: bool) -> VideoOptions:
        """Return the options for the frames of a source; images without a frame rate are shown for 0.2 s each.

        Raises:
            InputError: `target` does not end in .mp4 or is a folder.
        """
        fps = source.fps or (_CAMERA_FPS if source.live else _STILLS_FPS)
        return VideoOptions(target, fps, source.live, presentation_time_s(source, _STILLS_FPS), draw, h264)


class RotatingVideo(Sink):
    """A video in one or more files, which are kept if the run ends early.

    `target` is the latest file; a higher number means an older file. A file has the size of its first frame; frames of
    other sizes are fitted into it.
    """

    def __init__(self, options: VideoOptions, rotation: Rotation, blur: FaceBlur | None) -> None:
        """Prepare to write `options.target`; arguments as in `recorder.open_video`."""
        self._options = options
        self._rotation = rotation
        # One blur for all files, because a face may be visible across the change of files.
        self._blur = blur
        self._file: _VideoFile | None = None
        self._size_wh = (0, 0)
        self._started_s = 0.0
        # Frames of the current file, and how many of them are counted as written.
        self._frames = 0
        self._counted = 0
        self.account = Account("save")
        self.accounts = (self.account,)

    def __exit__(self, *exception: object) -> None:
        """Finish the current file.

        Raises:
            StorageError: The file cannot be finished.
        """
        self.finish_file()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Append the frame with the faces drawn in, or blurred; raises as `record`."""
        self.account.produce()
        self.record(frame, result, self.hidden_boxes(frame, result))

    def hidden_boxes(self, frame: Frame, result: FrameResult) -> list[Xyxy]:
        """Return the boxes to blur in this frame; must be called for every frame, recorded or not."""
        if self._blur is None:
            return []
        self._blur.update(frame, result)
        return self._blur.boxes()

    def record(self, frame: Frame, result: FrameResult, hidden_xyxy: Sequence[Xyxy]) -> None:
        """Append the frame, to a new file if the rotation requires it; the caller has counted it as produced.

        Raises:
            StorageError: The disk is full or not writable, or the file was removed.
            InputError: The encoder does not support the size of the frame.
        """
        if self._file is not None and self._is_due(self._file):
            try:
                self.finish_file()
            except StorageError:
                self.account.drop(NOT_WRITABLE)  # this frame is in neither file
                raise
        self._frames += 1
        image = hide_boxes(frame.image_bgr, hidden_xyxy) if hidden_xyxy else frame.image_bgr
        image = self._options.draw(image, result.faces)
        if self._file is None:
            self._file = self._open(image)
        self._file.write(_fit(image, self._size_wh), self._options.time_s(frame))
        self._counted = self.account.write_up_to(self._file.stored, self._counted)

    def finish_file(self) -> None:
        """Complete the current file; the next frame begins another. Frames that are not in the file are dropped.

        Raises:
            StorageError: The file cannot be finished.
        """
        ended = self._file, self._frames, self._counted
        self._file, self._frames, self._counted = None, 0, 0
        self.account.finish(*ended)

    def free_bytes(self) -> int:
        """Return the free space on the disk of `target`, 0 if unknown."""
        return free_bytes(self._options.target)

    def _is_due(self, file: _VideoFile) -> bool:
        return self._rotation.is_due(file.size_bytes(), time.monotonic() - self._started_s)

    def _open(self, image: ImageU8) -> _VideoFile:
        height, width = image.shape[:2]
        # The encoders need an even width and height.
        self._size_wh = (width + width % 2, height + height % 2)
        self._started_s, options = time.monotonic(), self._options
        if options.h264:
            self._rotation.make_room(options.target)
            return H264File(options.target, self._size_wh, options.fps)
        make_room = partial(self._rotation.make_room, options.target)
        return OpenCvFile(options.target, self._size_wh, options.fps, options.live, make_room)


def _fit(image: ImageU8, size_wh: tuple[int, int]) -> ImageU8:
    """Return `image` centred on black, resized only if it differs from the video size by more than 1 px."""
    width, height = size_wh
    have_h, have_w = image.shape[:2]
    if (have_w, have_h) == size_wh:
        return image
    if not (0 <= width - have_w <= 1 and 0 <= height - have_h <= 1):
        scale = min(width / have_w, height / have_h)
        have_w, have_h = max(1, round(have_w * scale)), max(1, round(have_h * scale))
        image = resize(image, (have_w, have_h))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - have_h) // 2, (width - have_w) // 2
    canvas[top : top + have_h, left : left + have_w] = image
    return canvas
