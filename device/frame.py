"""What a source gives and what it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

from edgekit.preprocess import ImageU8

# Of pictures that somebody says are a sequence.
_ASSUMED_FPS = 25.0


@dataclass(frozen=True)
class Frame:
    """A picture with its number and capture times; `image_bgr` is uint8 (H, W, 3); `file` names a picture's own file.

    `sequence` counts the frames the source captured, so a gap shows frames that were dropped. Everything else is made
    of `image_bgr`, unless a source knows better: a camera that delivers luma and chroma (`yuv.PlanarFrame`) has the
    luma for nothing and makes `image_bgr` only if somebody asks, and it may have a smaller picture for the detector.
    """

    sequence: int
    monotonic_s: float
    wall_s: float
    image_bgr: ImageU8
    file: str | None = None

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the frame, the pixels that boxes are counted in."""
        return self.image_bgr.shape[1], self.image_bgr.shape[0]

    @property
    def luma(self) -> ImageU8 | None:
        """The full-range luma plane, uint8 (H, W), where the source has one; None where it would cost a conversion."""
        return None

    @property
    def small_bgr(self) -> ImageU8:
        """The same view for the detector, uint8 (h, w, 3) B, G, R, at most as large as the frame."""
        return self.image_bgr

    @property
    def small_luma(self) -> ImageU8 | None:
        """The luma of `small_bgr`, as `luma`."""
        return None


class Source(Protocol):
    """Frames from somewhere: an iterable to be used in a `with` block.

    A live source gives its newest frame and drops older ones, others give every frame. What is unknown or has no
    meaning for a source is None.
    """

    @property
    def name(self) -> str:
        """How messages and reports call it."""
        ...

    @property
    def fps(self) -> float | None:
        """Nominal frames a second."""
        ...

    @property
    def frame_count(self) -> int | None:
        """How many frames there are."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames come whether or not anyone asks."""
        ...

    @property
    def dropped(self) -> int:
        """Frames given up for newer ones."""
        ...

    @property
    def skipped(self) -> int:
        """Pictures that could not be read."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:
        """End the iteration before its next frame. May be called from a signal handler or another thread."""
        ...


def presentation_time_s(source: Source) -> Callable[[Frame], float]:
    """Return what tells when a frame of `source` was taken, in seconds.

    For a recording that is its place in it, so that what depends on time does not depend on how fast it is read.
    """
    if source.live:
        return lambda frame: frame.monotonic_s
    fps = source.fps or _ASSUMED_FPS
    return lambda frame: frame.sequence / fps


class RecordedSource:
    """The part that sources without hurry share: they give every frame and stop when told."""

    live = False
    dropped = 0
    skipped = 0
    _stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the iteration before its next frame."""
        self._stopped = True
