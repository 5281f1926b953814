"""When to look for faces again: every Nth frame, or by what happens in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from edgekit.device.tracking.tracker import iou
from edgekit.preprocess import FloatArray, ImageU8

# Frames from one detection to the next: at most, when a face may have come or gone, when faces may be mixed up.
_LONGEST, _SHORTEST, _DOUBTFUL = 10, 4, 2
# A camera that gives few frames shall not wait for ten of them.
_LONGEST_S = 0.5
# Change is measured on a picture of this size, in gray levels; the exposure, which shifts all of them, taken off.
_COARSE_WH = (32, 24)
_CHANGED_LEVELS = 18.0
_CUT_LEVELS = 25.0
# So many cells outside the known people make it worth a look.
_CHANGED_CELLS = 6
# A body moves with its face: so much around it, in widths and heights of the face, is no news.
_BODY_SIDE, _BODY_ABOVE, _BODY_BELOW = 1.0, 0.6, 2.5
_MIN_FOLLOWED = 0.6
_MAX_OVERLAP = 0.05


@dataclass(frozen=True)
class Moment:
    """What is known when it is to be decided whether to detect.

    `frames` and `elapsed_s` count from the last detection. `boxes` are the followed faces in pixels of `luma`, `lost`
    says that one could not be followed, `followed` is the least share of points followed in any of them.
    """

    frames: int
    elapsed_s: float
    luma: ImageU8
    boxes: Sequence[FloatArray]
    lost: bool
    followed: float


class Schedule(Protocol):
    """Decides for every frame after the first; the first is always searched.

    `follows` is False where every frame is searched anyway, so that nothing has to be followed in between.
    """

    follows: bool

    def due(self, moment: Moment) -> bool:
        """Return whether to search this frame."""
        ...

    def detected(self, luma: ImageU8, news: bool) -> None:
        """Take note of the picture that was searched, and whether faces came or went."""
        ...


class Every:
    """Every Nth frame."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self.follows = frames > 1

    def due(self, moment: Moment) -> bool:
        """Return whether N frames have passed."""
        return moment.frames >= self._frames

    def detected(self, luma: ImageU8, news: bool) -> None:
        """Forget it."""


class Adaptive:
    """Rarely while nothing happens; at once when a face is lost or the scene changes.

    A face that can hardly be followed, faces that touch each other, and changes outside the known faces (somebody may
    have come in) shorten the wait.
    """

    follows = True

    def __init__(self) -> None:
        self._coarse: FloatArray | None = None
        self._patience = _SHORTEST
        self._unsure = False

    def due(self, moment: Moment) -> bool:
        """Return whether something happened, or enough time has passed."""
        if moment.lost or self._unsure or moment.frames >= _LONGEST or moment.elapsed_s >= _LONGEST_S:
            return True
        if moment.frames >= _DOUBTFUL and (moment.followed < _MIN_FOLLOWED or _touch(moment.boxes)):
            return True
        if moment.boxes and moment.frames < self._patience:
            # A cut would have lost the faces.
            return False
        outside, everywhere = self._change(moment)
        return everywhere >= _CUT_LEVELS or outside >= _CHANGED_CELLS

    def detected(self, luma: ImageU8, news: bool) -> None:
        """Keep the picture: changes are counted from here. Where they meant nothing, they are believed later."""
        self._coarse = _coarse(luma)
        # A face that came or went may have been a slip of the detector's: the next frame tells.
        self._unsure = news
        self._patience = _SHORTEST if news else min(self._patience + 1, _LONGEST)

    def _change(self, moment: Moment) -> tuple[int, float]:
        """Return the number of cells that changed outside faces, and the mean change of the whole picture."""
        if self._coarse is None:
            return 0, 0.0
        change = _coarse(moment.luma) - self._coarse
        change = np.abs(change - np.median(change))
        everywhere = float(change.mean())
        to_cells = np.tile(np.divide(_COARSE_WH, moment.luma.shape[::-1]), 2)
        for box in moment.boxes:
            width, height = box[2:] - box[:2]
            around = (_BODY_SIDE * width, _BODY_ABOVE * height, _BODY_SIDE * width, _BODY_BELOW * height)
            x0, y0, x1, y1 = (np.add(box, np.multiply(around, (-1, -1, 1, 1))) * to_cells).clip(0).round().astype(int)
            change[y0:y1, x0:x1] = 0
        return int((change > _CHANGED_LEVELS).sum()), everywhere


def _coarse(luma: ImageU8) -> FloatArray:
    return np.asarray(cv2.resize(luma, _COARSE_WH, interpolation=cv2.INTER_AREA), np.float32)


def _touch(boxes: Sequence[FloatArray]) -> bool:
    if len(boxes) < 2:
        return False
    overlaps = iou(np.stack(boxes), np.stack(boxes))
    np.fill_diagonal(overlaps, 0)
    return bool(overlaps.max() > _MAX_OVERLAP)
