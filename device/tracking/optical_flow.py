"""Tracking of boxes from one frame to the next by optical flow.

Points on a grid inside each box are tracked forwards and back (pyramidal Lucas-Kanade). Points that do not return to
their start are discarded, as in Kalal, Mikolajczyk, Matas: Forward-Backward Error (ICPR 2010), and so are points that
move unlike the median. The box moves and scales as the remaining points do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.preprocess import FloatArray, ImageU8

_GRID = 5
# The grid covers the middle of the box: the corners show the background.
_INNER = (0.2, 0.8)
# Small, because the cost grows with the area and has to stay below the millisecond of a detection.
_WINDOW_WH = (9, 9)
_LEVELS = 3
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 8, 0.05)
# A point counts as tracked if it returns to within this distance of its start.
_MAX_RETURN_PX = 1.0
# A point is an outlier if it differs from the median motion by more than _MAX_STRAY_PX + _MAX_STRAY * side of the box.
_MAX_STRAY_PX, _MAX_STRAY = 1.5, 0.04
_MIN_FOLLOWED = 0.3
# Limit of the change in size from one frame to the next.
_MAX_GROWTH = 1.15


@dataclass(frozen=True)
class Moved:
    """A box in the next frame: xyxy float32 (4,), and the share of its content that could be tracked (0 to 1)."""

    xyxy: FloatArray
    followed: float


class Tracker(Protocol):
    """Moves boxes from one frame to the next. `move_boxes` is an example."""

    def __call__(self, before: ImageU8, after: ImageU8, boxes: Sequence[FloatArray]) -> Sequence[Moved | None]:
        """Return the new place of each box, None for a lost one.

        Args:
            before: Luma of the earlier frame, uint8 (H, W).
            after: Luma of the later frame, of the same size.
            boxes: xyxy float32 (4,), in pixels of both images.
        """


def create() -> Tracker:
    """Return the tracker `move_boxes`; this is the factory function in the registry."""
    return move_boxes


def move_boxes(before: ImageU8, after: ImageU8, boxes: Sequence[FloatArray]) -> list[Moved | None]:
    """Return the place in `after` of each box of `before`; None if too few of its points could be tracked.

    Args:
        before: Luma of the earlier frame, uint8 (H, W).
        after: Luma of the later frame, of the same size.
        boxes: xyxy float32 (4,), in pixels of both images.
    """
    if not boxes:
        return []
    xyxy = np.stack(boxes)
    size_wh = (xyxy[:, 2:] - xyxy[:, :2])[:, np.newaxis]  # (boxes, 1, 2)
    start = (xyxy[:, np.newaxis, :2] + _POINTS * size_wh).astype(np.float32)  # (boxes, points, 2)
    moved, returned = _there_and_back(before, after, start)
    step = moved - start  # (boxes, points, 2)
    # The median tolerates up to half of the points being wrong; the least-squares fit of the rest is more precise.
    # Sorting takes a tenth of the time of np.median for so few points, which also imports numpy.ma during the run.
    median_step = np.sort(step, axis=1)[:, _MEDIAN, np.newaxis]  # (boxes, 1, 2)
    from_median = step - median_step
    # np.add.reduce is np.sum without its overhead.
    from_median_px = np.sqrt(np.add.reduce(from_median * from_median, axis=2))  # (boxes, points)
    mean_side_px = np.add.reduce(size_wh, axis=2) / 2  # (boxes, 1)
    agrees = from_median_px <= _MAX_STRAY_PX + _MAX_STRAY * mean_side_px
    weights = (returned & agrees).astype(np.float32)  # (boxes, points)
    followed = np.add.reduce(weights, axis=1) / np.float32(_GRID * _GRID)  # (boxes,): share of the points that are used
    moved_xyxy = _fit(xyxy, start, moved, weights[..., np.newaxis])
    return [
        Moved(box, share) if share >= _MIN_FOLLOWED else None
        for box, share in zip(moved_xyxy, followed.tolist(), strict=True)
    ]


def _there_and_back(before: ImageU8, after: ImageU8, start: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Track points to the next frame and back to `before`.

    Returns:
        The points in `after`, float32 (boxes, points, 2).
        Which of them returned to their start, bool (boxes, points).
    """
    points = start.reshape(-1, 2)
    # Output arrays: OpenCV's type stubs require them.
    moved, back = np.empty_like(points), np.empty_like(points)
    _, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points, moved, winSize=_WINDOW_WH, maxLevel=_LEVELS, criteria=_STOP
    )
    _, found_again, _ = cv2.calcOpticalFlowPyrLK(
        after, before, moved, back, winSize=_WINDOW_WH, maxLevel=_LEVELS, criteria=_STOP
    )
    height, width = after.shape
    inside = ((moved >= 0) & (moved <= (width - 1, height - 1))).all(axis=1)
    near = np.abs(back - points).max(axis=1) <= _MAX_RETURN_PX
    good = (np.ravel(found) == 1) & (np.ravel(found_again) == 1) & near & inside
    return moved.reshape(start.shape), good.reshape(start.shape[:2])


def _fit(xyxy: FloatArray, start: FloatArray, moved: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the boxes (N, 4), moved and scaled by the least-squares fit of their weighted points.

    Args:
        xyxy: The boxes before (N, 4).
        start: Their points before, (N, points, 2).
        moved: Their points after, (N, points, 2).
        weights: 1 for the points to use, else 0, (N, points, 1).
    """
    total = np.maximum(weights.sum(axis=1), 1)  # (N, 1)
    start_mean, moved_mean = (weights * start).sum(axis=1) / total, (weights * moved).sum(axis=1) / total  # (N, 2)
    start_offset, moved_offset = start - start_mean[:, np.newaxis], moved - moved_mean[:, np.newaxis]
    # The factor s that minimises |moved_offset - s * start_offset|²; 1 where the points are too close to measure it.
    variance = (weights * start_offset * start_offset).sum(axis=(1, 2))  # (N,)
    covariance = (weights * start_offset * moved_offset).sum(axis=(1, 2))
    growth = np.divide(covariance, variance, out=np.ones_like(variance), where=variance > 1)
    growth = growth.clip(1 / _MAX_GROWTH, _MAX_GROWTH)[:, np.newaxis]
    centre, half = (xyxy[:, :2] + xyxy[:, 2:]) / 2, (xyxy[:, 2:] - xyxy[:, :2]) / 2
    # The box scales about the mean of its points, which may all lie on one side of the box.
    new_centre = moved_mean + (centre - start_mean) * growth
    return np.concatenate((new_centre - half * growth, new_centre + half * growth), axis=1).astype(np.float32)


# Place of the median among the sorted points of a box, whose number is odd.
_MEDIAN = _GRID * _GRID // 2
_STEPS = np.linspace(*_INNER, _GRID, dtype=np.float32)
_POINTS = np.stack(np.meshgrid(_STEPS, _STEPS), axis=-1).reshape(1, -1, 2)  # (1, points, 2), shares of the box
