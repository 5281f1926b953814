"""Results as a video: the frames with boxes and labels drawn in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgekit.device.annotate import Draw, draw_faces
from edgekit.device.blur import Xyxy, hide_boxes
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame, Source, presentation_time_s
from edgekit.device.imaging import resize
from edgekit.device.sink import Sink
from edgekit.device.sinks.mp4 import H264File
from edgekit.device.sinks.opencv_video import OpenCvFile
from edgekit.errors import InputError
from edgekit.preprocess import ImageU8

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


class VideoSink(Sink):
    """Writes one .mp4 file, which is kept if the run ends early.

    The video has the size of the first frame; frames of other sizes are fitted into it.

    Attributes:
        frames: Number of frames passed to `write`.
    """

    def __init__(self, options: VideoOptions, make_room: Callable[[], None] = lambda: None) -> None:
        """Prepare to write the file; `make_room` is called just before it takes its name."""
        self._options = options
        self._make_room = make_room
        self._file: VideoFile | None = None
        self._size_wh = (0, 0)
        self.frames = 0

    def __exit__(self, *exception: object) -> None:
        """Complete the video.

        Raises:
            StorageError: The file on the disk is incomplete.
        """
        if self._file is not None:
            self._file.close()

    def write(self, frame: Frame, result: FrameResult, hidden_xyxy: Sequence[Xyxy] = ()) -> None:
        """Append the frame with its faces drawn in and the boxes `hidden_xyxy` blurred.

        Raises:
            StorageError: The disk is full or not writable, or the file was removed.
            InputError: The encoder does not support the size of the frame.
        """
        self.frames += 1
        image = hide_boxes(frame.image_bgr, hidden_xyxy) if hidden_xyxy else frame.image_bgr
        image = self._options.draw(image, result.faces)
        if self._file is None:
            self._file = self._open(image)
        self._file.write(_fit(image, self._size_wh), self._options.time_s(frame))

    @property
    def stored(self) -> int:
        """Number of frames that are safe in the file."""
        return self._file.stored if self._file is not None else 0

    def size_bytes(self) -> int:
        """Return the current size of the file."""
        return self._file.size_bytes() if self._file is not None else 0

    def _open(self, image: ImageU8) -> VideoFile:
        height, width = image.shape[:2]
        # The encoders need an even width and height.
        self._size_wh = (width + width % 2, height + height % 2)
        options = self._options
        if options.h264:
            self._make_room()
            return H264File(options.target, self._size_wh, options.fps)
        return OpenCvFile(options.target, self._size_wh, options.fps, options.live, self._make_room)


class VideoFile(Protocol):
    """A video file that is being written."""

    @property
    def stored(self) -> int:
        """Number of frames that are safe in the file."""
        ...

    def write(self, image_bgr: ImageU8, time_s: float) -> None:
        """Append a frame of the video's size.

        Raises:
            StorageError: The disk is full or not writable, or the file was removed.
        """
        ...

    def size_bytes(self) -> int:
        """Return the current size of the file."""
        ...

    def close(self) -> None:
        """Complete the file; raises as `write`."""
        ...


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
