"""Detection schedules: on which frames the detector runs, every Nth or by the content of the image; cuts of a film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from edgekit.device.tracking.tracks import iou
from edgekit.preprocess import FloatArray, ImageU8

COARSE_WH = (32, 24)
# Mean difference of the coarse images of two scenes, in standard deviations of their pixels, from which a frame begins
# another scene. Successive frames of the shared clips differ by at most 0.15, with flickering light by 0.4; of pairs of
# photographs, 99 % differ by more than 0.56.
_CUT_DIFFERENCE = 0.55
# Smallest standard deviation of a coarse image, in gray levels: a nearly black frame belongs to no scene.
_LEAST_CONTRAST = 4.0
# Frames farther apart differ by the motion of a camera, too: those of the shared clips by 0.8 after 0.4 s.
_SHORT_STEP_S = 0.15
_CUT_DIFFERENCE_AFTER_LONG_STEP = 0.9


def coarse_image(luma: ImageU8) -> FloatArray:
    """Return a frame's luma, uint8 (h, w), as float32 (24, 32) in gray levels."""
    return np.asarray(cv2.resize(luma, COARSE_WH, interpolation=cv2.INTER_AREA), np.float32)


class SceneCuts:
    """Finds the cuts of a film in its successive frames."""

    def __init__(self) -> None:
        self._scene: FloatArray | None = None
        self._latest_s = 0.0

    def is_cut(self, coarse: FloatArray, time_s: float) -> bool:
        """Return whether the next frame is the first one of another scene.

        Images are compared with mean 0 and standard deviation 1, so that another exposure or contrast is no cut. Black
        frames between two scenes are skipped.

        Args:
            coarse: The frame, as `coarse_image`.
            time_s: Presentation time of the frame.
        """
        step_s = time_s - self._latest_s
        self._latest_s = time_s
        deviation = coarse - coarse.mean()  # (24, 32)
        contrast = float(deviation.std())
        if contrast < _LEAST_CONTRAST:
            return False  # a black frame: the next one is compared with the scene before it
        before, self._scene = self._scene, deviation / np.float32(contrast)
        if before is None:
            return False
        # The motion of a camera changes the image more in a longer time.
        limit = _CUT_DIFFERENCE if step_s <= _SHORT_STEP_S else _CUT_DIFFERENCE_AFTER_LONG_STEP
        return float(np.abs(before - self._scene).mean()) >= limit


# Largest number of frames from one detection to the next, and the same while tracks may be mixed up.
_MAX_FRAMES, _MAX_FRAMES_DOUBTFUL = 10, 2
# While there are faces, changes of the image are checked from this frame on after a detection; see `Adaptive`.
_FIRST_CHECKED = 4
# Largest time from one detection to the next, for cameras with a low frame rate.
_MAX_S = 0.5
# Change of one cell of the coarse image, and of their mean, in gray levels after subtracting the change of exposure.
_CHANGED_LEVELS = 18.0
_CHANGED_MEAN_LEVELS = 25.0
# Number of changed cells outside known faces and their bodies that triggers a detection.
_CHANGED_CELLS = 6
# The body moves with the face: changes within this distance, in widths and heights of the face, are ignored.
_BODY_SIDE, _BODY_ABOVE, _BODY_BELOW = 1.0, 0.6, 2.5
_MIN_FOLLOWED = 0.6
_MAX_OVERLAP = 0.05


@dataclass(frozen=True)
class TrackingState:
    """The state of tracking in one frame, from which a schedule decides.

    Attributes:
        frames: Frames since the last detection.
        elapsed_s: Seconds since the last detection.
        coarse: The frame, as `coarse_image`.
        size_wh: Width and height of the image of `boxes`.
        boxes: The tracked faces, each xyxy float32 (4,).
        lost: Whether a face could not be tracked into this frame.
        followed: The share of a face that could be tracked (`Moved.followed`), of the face with the smallest share.
    """

    frames: int
    elapsed_s: float
    coarse: FloatArray
    size_wh: tuple[int, int]
    boxes: Sequence[FloatArray]
    lost: bool
    followed: float


class Every:
    """Runs the detector on every Nth frame."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        self.follows = frames > 1

    def due(self, state: TrackingState) -> bool:
        """Return whether N frames have passed."""
        return state.frames >= self._frames

    def detected(self, coarse: FloatArray, changed: bool) -> None:
        """Do nothing: the schedule depends on the count alone."""


class Adaptive:
    """Runs the detector on every tenth frame, and at once when a face is lost or the scene changes.

    With poorly tracked or overlapping faces, it runs on every second frame. A change outside the known faces (a person
    may have entered) also causes a detection.

    While there are faces, changes are not checked in the first frames after a detection, so that other motion in the
    scene does not cause a detection in every frame. Their number is 3 after a detection in which a face appeared or
    disappeared. Each further detection adds one, up to 9.
    """

    follows = True

    def __init__(self) -> None:
        self._coarse: FloatArray | None = None
        self._first_checked = _FIRST_CHECKED
        self._confirm_next = False

    def due(self, state: TrackingState) -> bool:
        """Return whether the detector must run on this frame."""
        # `_confirm_next`: the detection in the frame before has changed the faces, see `detected`.
        if state.lost or self._confirm_next:
            return True
        if state.frames >= _MAX_FRAMES or state.elapsed_s >= _MAX_S:
            return True
        # Poorly tracked or overlapping faces may have been mixed up.
        if state.frames >= _MAX_FRAMES_DOUBTFUL and (state.followed < _MIN_FOLLOWED or _overlap(state.boxes)):
            return True
        # Too early to check changes of the image: see the class.
        if state.boxes and state.frames < self._first_checked:
            return False
        changed_cells, mean_levels = self._change(state)
        return mean_levels >= _CHANGED_MEAN_LEVELS or changed_cells >= _CHANGED_CELLS

    def detected(self, coarse: FloatArray, changed: bool) -> None:
        """Use this frame as the reference for changes of the image, and set from which frame they are checked."""
        self._coarse = coarse
        # One detection can be wrong: the next frame confirms a face that appeared or disappeared.
        self._confirm_next = changed
        self._first_checked = _FIRST_CHECKED if changed else min(self._first_checked + 1, _MAX_FRAMES)

    def _change(self, state: TrackingState) -> tuple[int, float]:
        """Return how much the coarse image has changed since the last detection.

        Returns:
            The number of changed cells, without those that show a known face or its body.
            The mean change of all cells in gray levels.
        """
        if self._coarse is None:  # no detection yet
            return 0, 0.0
        change = state.coarse - self._coarse  # (24, 32)
        change = np.abs(change - _median(change))  # the median is the change of exposure
        mean_levels = float(change.mean())
        to_cells = np.tile(np.divide(COARSE_WH, state.size_wh), 2)  # (4,): from pixels of `boxes` to cells
        for box in state.boxes:
            width, height = box[2:] - box[:2]
            # The box grows to the left, above, to the right and below.
            growth = (-_BODY_SIDE * width, -_BODY_ABOVE * height, _BODY_SIDE * width, _BODY_BELOW * height)
            body_xyxy = np.add(box, growth)
            x0, y0, x1, y1 = (body_xyxy * to_cells).clip(0).round().astype(int)
            change[y0:y1, x0:x1] = 0
        return int((change > _CHANGED_LEVELS).sum()), mean_levels


# Decides for every frame after the first whether the detector runs; `follows`: whether faces are tracked in between.
Schedule: TypeAlias = Every | Adaptive


def _median(values: FloatArray) -> np.float32:
    """Return the median of an even number of values. np.median would import numpy.ma in the middle of a run."""
    middle = values.size // 2
    low, high = np.partition(values, (middle - 1, middle), axis=None)[middle - 1 : middle + 1]
    return np.float32((low + high) / 2)


def _overlap(boxes: Sequence[FloatArray]) -> bool:
    """Return whether two of the boxes overlap, so that their tracks may be mixed up."""
    if len(boxes) < 2:
        return False
    overlaps = iou(np.stack(boxes), np.stack(boxes))
    np.fill_diagonal(overlaps, 0)
    return bool(overlaps.max() > _MAX_OVERLAP)
