"""Frames, the planes that cameras deliver, and the interface of frame sources."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeAlias

import cv2
import numpy as np

from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8

Layout: TypeAlias = Literal["i420", "nv12"]

ROTATION_CODES = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class Planes:
    """The planes of one image: uint8 luma (H, W), u and v (H/2, W/2); views into the camera's buffer."""

    raw_luma: ImageU8
    u: ImageU8
    v: ImageU8
    full_range: bool

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.raw_luma.shape[1], self.raw_luma.shape[0]

    @functools.cached_property
    def luma(self) -> ImageU8:
        """Full-range luma, uint8 (H, W); the camera's own plane if that is full-range."""
        return self.raw_luma if self.full_range else np.asarray(cv2.LUT(self.raw_luma, _LIMITED_TO_FULL), np.uint8)

    @functools.cached_property
    def bgr(self) -> ImageU8:
        """The image as uint8 (H, W, 3) B, G, R."""
        width, height = self.size_wh
        i420 = np.empty((height * 3 // 2, width), np.uint8)
        # OpenCV converts from limited range only.
        i420[:height] = cv2.LUT(self.raw_luma, _FULL_TO_LIMITED) if self.full_range else self.raw_luma
        u_and_v = i420[height:].reshape(2, height // 2, width // 2)  # a view of the rows after the luma
        for target, plane in zip(u_and_v, (self.u, self.v), strict=True):
            target[:] = cv2.LUT(plane, _FULL_TO_LIMITED_CHROMA) if self.full_range else plane
        return np.asarray(cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420), np.uint8)

    def rotated(self, degrees: int) -> Planes:
        """Return the planes rotated clockwise by 0, 90, 180 or 270 degrees."""
        if degrees == 0:
            return self
        planes = (cv2.rotate(plane, ROTATION_CODES[degrees]) for plane in (self.raw_luma, self.u, self.v))
        luma, u, v = (np.asarray(plane, np.uint8) for plane in planes)
        return Planes(luma, u, v, self.full_range)


def split_planes(buffer: ImageU8, size_wh: tuple[int, int], stride: int, layout: Layout, full_range: bool) -> Planes:
    """Return the planes of a camera's buffer as views.

    Args:
        buffer: uint8 (bytes,): the rows of luma, then the rows of chroma.
        size_wh: Width and height in pixels, both even.
        stride: Bytes from one luma row to the next; the stride of separate u and v planes is half as large.
        layout: "i420": the u plane, then the v plane; "nv12": u and v interleaved.
        full_range: Whether luma is 0 for black and 255 for white.

    Raises:
        SourceError: The buffer is too small.
    """
    width, height = size_wh
    rows = height * 3 // 2
    if buffer.size < rows * stride or stride < width:
        raise SourceError(
            f"the camera delivers {buffer.size} bytes per image, too few for {width}x{height} in {layout} with rows "
            f"of {stride} bytes: choose another camera size"
        )
    whole = buffer[: rows * stride].reshape(rows, stride)  # each row may end with unused bytes
    luma, chroma = whole[:height, :width], whole[height:]
    if layout == "nv12":
        return Planes(luma, chroma[:, 0:width:2], chroma[:, 1:width:2], full_range)
    u, v = chroma.reshape(2, height // 2, stride // 2)[:, :, : width // 2]  # each (height / 2, width / 2)
    return Planes(luma, u, v, full_range)


def _lookup_table(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> ImageU8:
    """Return the table uint8 (256,) for `cv2.LUT` that maps level i to `values[i]`."""
    return values.round().clip(0, 255).astype(np.uint8)


_LEVELS = np.arange(256, dtype=np.float64)
# Limited range is 16 to 235 for luma and 16 to 240 for chroma (ITU-R BT.601).
_LIMITED_TO_FULL = _lookup_table((_LEVELS - 16) * 255 / 219)
_FULL_TO_LIMITED = _lookup_table(16 + _LEVELS * 219 / 255)
_FULL_TO_LIMITED_CHROMA = _lookup_table(128 + (_LEVELS - 128) * 224 / 255)


# What a live source delivers: usable images, images that show nothing new or nothing at all, or none.
CameraState: TypeAlias = Literal["ok", "frozen", "dark", "covered", "lost"]
CAMERA_STATES: tuple[CameraState, ...] = ("ok", "frozen", "dark", "covered", "lost")

# Used for a sequence of images without a frame rate.
_ASSUMED_FPS = 25.0


@dataclass(frozen=True, eq=False)
class Frame:
    """An image with its number and capture times.

    Attributes:
        sequence: Number of the frame, counted by the source; a gap means dropped frames.
        monotonic_s: Capture time on the clock of `time.monotonic`.
        wall_s: Capture time as Unix time.
        image: uint8 (H, W, 3) B, G, R, or planes of luma and chroma as a camera delivers them.
        file: Path of the image file, if the source consists of image files.
        small: The same view in fewer pixels, for the detector; None: the detector gets `image`.
        position_s: Position in the video according to its time stamps, in seconds from the first frame; None without
            time stamps.
    """

    sequence: int
    monotonic_s: float
    wall_s: float
    image: ImageU8 | Planes
    file: str | None = None
    small: Planes | None = None
    position_s: float | None = None

    @property
    def image_bgr(self) -> ImageU8:
        """The frame in colour, uint8 (H, W, 3) B, G, R."""
        return _bgr(self.image)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the frame; boxes are in its pixels."""
        if isinstance(self.image, np.ndarray):
            return self.image.shape[1], self.image.shape[0]
        return self.image.size_wh

    @property
    def luma(self) -> ImageU8 | None:
        """Full-range luma, uint8 (H, W); None for a B, G, R image, which would have to be converted."""
        return _luma(self.image)

    @property
    def small_bgr(self) -> ImageU8:
        """The detector's view, uint8 (h, w, 3) B, G, R, at most as large as the frame."""
        return _bgr(self.small or self.image)

    @property
    def small_luma(self) -> ImageU8 | None:
        """The luma of the detector's view, uint8 (h, w); None for a B, G, R image."""
        return _luma(self.small or self.image)


class Source(Protocol):
    """An iterable of frames, used in a `with` block.

    A live source captures in a thread of its own, yields its newest frame and drops older ones; other sources yield
    every frame. A value that is unknown is None.
    """

    @property
    def name(self) -> str:
        """The name in messages and reports."""

    @property
    def fps(self) -> float | None:
        """Nominal frame rate."""

    @property
    def frame_count(self) -> int | None:
        """Number of frames."""

    @property
    def live(self) -> bool:
        """Whether frames arrive at the source's own pace."""

    @property
    def dropped(self) -> int:
        """Frames that were captured but not read: replaced by newer ones, or discarded at the start of a pause."""

    @property
    def skipped(self) -> int:
        """Image files, and frames of a video, that could not be decoded."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:
        """End the iteration before its next frame. May be called from a signal handler or another thread."""


def presentation_time_s(source: Source, assumed_fps: float = _ASSUMED_FPS) -> Callable[[Frame], float]:
    """Return the function that returns the time of a frame of `source` in seconds.

    For a recording this is the frame's position in the video, so that results do not depend on the reading speed.
    `assumed_fps` is the frame rate of a recording without one.
    """
    if source.live:
        return lambda frame: frame.monotonic_s
    fps = source.fps or assumed_fps

    def position_s(frame: Frame) -> float:
        return frame.sequence / fps if frame.position_s is None else frame.position_s

    return position_s


class RecordedSource:
    """Base class of sources that yield every frame; it implements `stop` and the `with` block.

    Attributes:
        damaged: Frames of a video that were decoded, but in part invented by the decoder; known at its end.
    """

    live = False
    dropped = 0
    skipped = 0
    damaged = 0
    _stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the iteration before its next frame."""
        self._stopped = True


def _bgr(image: ImageU8 | Planes) -> ImageU8:
    """Return an image as uint8 (H, W, 3) B, G, R; planes are converted."""
    return image if isinstance(image, np.ndarray) else image.bgr


def _luma(image: ImageU8 | Planes) -> ImageU8 | None:
    """Return the full-range luma of planes, uint8 (H, W); None for a B, G, R image."""
    return None if isinstance(image, np.ndarray) else image.luma
