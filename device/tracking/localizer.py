"""Localizers return the boxes that a model classifies: `FaceTracker` for faces, `WholeImage` for whole images."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from edgekit.device.detections import Detections
from edgekit.device.frame import Frame
from edgekit.device.region import Region
from edgekit.device.stage_timer import StageTimer
from edgekit.device.track import Track
from edgekit.device.tracking.face_tracker import FaceTracker


class WholeImage:
    """Returns one box per frame: the region of interest, or the whole frame. Needs no detector."""

    detector_name = "none"
    input_size_px = None

    def __init__(self, region: Region | None, *, is_sequence: bool) -> None:
        """Use `region` of each frame; None: the whole frame. In a sequence all boxes have the same track."""
        self._region = region
        self._tracks = np.array([Track(1)], np.object_) if is_sequence else None

    def find(self, frame: Frame, timer: StageTimer) -> Detections:
        """Return the box of the region with score 1, in whole pixels.

        Raises:
            InputError: The region lies outside the frame.
        """
        del timer
        xyxy = np.array([self._xyxy(frame)], np.float32)
        return Detections(xyxy, np.ones(1, np.float32), tracks=self._tracks, are_regions=True)

    def set_load_level(self, detect_every_at_least: int = 1, detector_scale: float = 1.0) -> None:
        """Do nothing: without a detector only a lower frame rate reduces the load."""

    def _xyxy(self, frame: Frame) -> tuple[int, int, int, int]:
        return (0, 0, *frame.size_wh) if self._region is None else self._region.xyxy(frame.size_wh)


# Returns the boxes that the model classifies, for frames in their order.
Localizer: TypeAlias = FaceTracker | WholeImage
