"""Faces made unrecognisable before a picture is shown to others or kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import cv2
import numpy as np

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.preprocess import ImageU8

# A box's corners in frame pixels.
Xyxy: TypeAlias = tuple[float, float, float, float]

# So few values a face that nobody can be told from them; the box grows because detectors cut chin, ears and hair.
_CELLS = 6
_MARGIN = 0.25
# A face that the detector misses for a moment is still there.
_REMEMBERED_S = 0.5
_REMEMBERED_BOXES = 256


class FaceBlur:
    """Replaces the faces of the present and the last half second by a few coarse cells."""

    def __init__(self, presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s) -> None:
        """Remember for half a second of `presentation_time_s`: of a recording's own time, however fast it is read."""
        self._picture_time = presentation_time_s
        self._boxes: deque[tuple[float, Xyxy]] = deque(maxlen=_REMEMBERED_BOXES)

    def see(self, frame: Frame, result: FrameResult) -> None:
        """Note where faces are; to be called with every result, shown or not."""
        time_s = self._picture_time(frame)
        self._boxes.extend((time_s, face.xyxy) for face in result.faces)
        while self._boxes and time_s - self._boxes[0][0] > _REMEMBERED_S:
            self._boxes.popleft()

    def boxes(self) -> list[Xyxy]:
        """Return what `hide_boxes` has to hide now."""
        return [xyxy for _, xyxy in self._boxes]


def hide_boxes(image_bgr: ImageU8, boxes_xyxy: Sequence[Xyxy]) -> ImageU8:
    """Return a copy of a frame, uint8 (H, W, 3), with every box and a margin around it reduced to a few cells."""
    canvas = image_bgr.copy()
    height, width = canvas.shape[:2]
    # Cells are always made of the original, so that boxes which overlap hide each other's rims too.
    for x0, y0, x1, y1 in boxes_xyxy:
        margin = _MARGIN * max(x1 - x0, y1 - y0)
        left, right = max(0, int(x0 - margin)), min(width, int(x1 + margin) + 1)
        top, bottom = max(0, int(y0 - margin)), min(height, int(y1 + margin) + 1)
        if left >= right or top >= bottom:
            continue
        region = image_bgr[top:bottom, left:right]
        cells = (min(_CELLS, right - left), min(_CELLS, bottom - top))
        coarse = cv2.resize(region, cells, interpolation=cv2.INTER_AREA)
        canvas[top:bottom, left:right] = np.asarray(
            cv2.resize(coarse, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST), np.uint8
        )
    return canvas
