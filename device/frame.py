"""Frames and the interface of frame sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias

import numpy as np

from edgekit.preprocess import ImageU8

if TYPE_CHECKING:
    from edgekit.device.yuv import Planes

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
        ...

    @property
    def fps(self) -> float | None:
        """Nominal frame rate."""
        ...

    @property
    def frame_count(self) -> int | None:
        """Number of frames."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames arrive at the source's own pace."""
        ...

    @property
    def dropped(self) -> int:
        """Frames that were captured but not read: replaced by newer ones, or discarded at the start of a pause."""
        ...

    @property
    def skipped(self) -> int:
        """Image files, and frames of a video, that could not be decoded."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:
        """End the iteration before its next frame. May be called from a signal handler or another thread."""
        ...


def presentation_time_s(source: Source, assumed_fps: float = _ASSUMED_FPS) -> Callable[[Frame], float]:
    """Return the function that returns the time of a frame of `source` in seconds.

    For a recording this is the frame's position in the video, so that results do not depend on the reading speed.
    `assumed_fps` is the frame rate of a recording without one.
    """
    if source.live:
        return lambda frame: frame.monotonic_s
    fps = source.fps or assumed_fps
    return lambda frame: frame.sequence / fps if frame.position_s is None else frame.position_s


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
    return image if isinstance(image, np.ndarray) else image.bgr


def _luma(image: ImageU8 | Planes) -> ImageU8 | None:
    return None if isinstance(image, np.ndarray) else image.luma
