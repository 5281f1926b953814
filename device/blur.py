"""Makes faces unrecognisable in recorded and published images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import cv2
import numpy as np

from edgekit.device.detections import FrameResult
from edgekit.device.frame import Frame
from edgekit.preprocess import FloatArray, ImageU8

# Left, top, right, bottom in frame pixels.
Xyxy: TypeAlias = FloatArray | tuple[float, float, float, float]

# 6 x 6 values per face are too few to recognise it. The margin covers chin, ears and hair, which detectors cut off.
_CELLS = 6
_MARGIN = 0.25
# Boxes are kept for this long, in case the detector misses a face in a few frames of a video.
_KEPT_S = 0.5


class FaceBlur:
    """Collects the face boxes of a video's latest half second, or of the latest picture, for `hide_boxes`."""

    def __init__(self, presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s) -> None:
        """Take a frame's time from `presentation_time_s`; for a recording, that must be its position in the video."""
        self._presentation_time_s = presentation_time_s
        # Each box with the last time at which it is hidden.
        self._boxes: deque[tuple[float, Xyxy]] = deque()

    def update(self, frame: Frame, result: FrameResult) -> None:
        """Add the boxes of a frame; must be called for every frame, also for frames that are not published."""
        time_s = self._presentation_time_s(frame)
        for face in result.faces:
            # The next picture of a folder may show other people. Only the faces of a sequence are tracked.
            is_kept = frame.file is None or face.track_id is not None
            self._boxes.append((time_s + _KEPT_S if is_kept else time_s, face.xyxy))
        while self._boxes and time_s > self._boxes[0][0]:
            self._boxes.popleft()

    def boxes(self) -> list[Xyxy]:
        """Return the boxes to hide now."""
        return [xyxy for _, xyxy in self._boxes]


def hide_boxes(image_bgr: ImageU8, boxes_xyxy: Sequence[Xyxy]) -> ImageU8:
    """Return a copy of a frame, uint8 (H, W, 3), with each box, and a margin around it, pixelated to 6 x 6 cells."""
    canvas = image_bgr.copy()
    height, width = canvas.shape[:2]
    # Cells are computed from the original, so that overlapping boxes also hide each other's edges.
    for box in boxes_xyxy:
        x0, y0, x1, y1 = map(float, box)
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
