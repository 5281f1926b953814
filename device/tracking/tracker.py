"""The interface of trackers, which move boxes from one frame to the next without a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgekit.preprocess import FloatArray, ImageU8


@dataclass(frozen=True)
class Moved:
    """A box in the next frame: xyxy float32 (4,), and the share of its content that could be tracked (0 to 1)."""

    xyxy: FloatArray
    followed: float


class Tracker(Protocol):
    """Moves boxes from one frame to the next. `optical_flow.move_boxes` is an example."""

    def __call__(self, before: ImageU8, after: ImageU8, boxes: Sequence[FloatArray]) -> Sequence[Moved | None]:
        """Return the new place of each box, None for a lost one.

        Args:
            before: Luma of the earlier frame, uint8 (H, W).
            after: Luma of the later frame, of the same size.
            boxes: xyxy float32 (4,), in pixels of both images.
        """
        ...
