"""Which box of this frame is which face of the last one: ids by overlap.

A face keeps its id while boxes overlap from detection to detection. One that the detector loses is hidden, not
forgotten: it drifts on at its last speed, so that a face that passes behind another comes back under its own name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgekit.device.detection import Detections
from edgekit.preprocess import FloatArray, ImageU8

# A pair overlaps enough at this intersection over union; a face that moved fast may instead lie within this share of
# its own size from where it was expected, if it is of about that size.
_MIN_IOU = 0.25
_MAX_SHIFT = 0.6
_MAX_SIZE_RATIO = 1.5
# How long a face may be hidden and still get its id back.
_HIDDEN_S = 1.0
# Share of a new measurement of speed; between two detections it is the box's own noise.
_SPEED_GAIN = 0.4


@dataclass(frozen=True)
class Moved:
    """Where a box went: xyxy float32 (4,), and the share of it that could be followed (0 to 1)."""

    xyxy: FloatArray
    followed: float


class MoveBoxes(Protocol):
    """Follows boxes from one picture to the next."""

    def __call__(self, before: ImageU8, after: ImageU8, boxes: Sequence[FloatArray]) -> Sequence[Moved | None]:
        """Return where each box (xyxy float32 (4,), in pixels of both pictures, uint8 (H, W) luma) went.

        None stands for one that was lost.
        """
        ...


@dataclass
class Track:
    """One face that is being followed.

    Attributes:
        id: Counts from 1; never given twice.
        xyxy: float32 (4,): left, top, right, bottom in pixels of the frame.
        score: The detector's, from when it last found the face.
        seen_s: Time of the last detection.
        speed_xy: Pixels a second of the centre, float32 (2,).
        hidden: The detector did not find it the last time.
        detected: The box is the detector's, of this frame.
    """

    id: int
    xyxy: FloatArray
    score: float
    seen_s: float
    speed_xy: FloatArray
    hidden: bool = False
    detected: bool = True


class Tracker:
    """Gives ids to detections. Time is that of the pictures, in seconds, and never runs backwards."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._given = 0
        self._time_s = 0.0

    @property
    def visible(self) -> list[Track]:
        """The faces in the frame as it is known now, those first found first."""
        return [track for track in self._tracks if not track.hidden]

    def move(self, xyxy: Sequence[FloatArray | None], time_s: float) -> bool:
        """Move the visible faces to `xyxy`, in their order; return whether all were still there (None: was lost).

        A face that was lost is hidden. Hidden ones drift.
        """
        elapsed_s = self._elapsed(time_s)
        for track in self._tracks:
            track.detected = False
            if track.hidden:
                _drift(track, elapsed_s)
        for track, box in zip(self.visible, xyxy, strict=True):
            if box is None:
                track.hidden = True
                _drift(track, elapsed_s)
            else:
                _place(track, box, elapsed_s)
        return all(box is not None for box in xyxy)

    def correct(self, detections: Detections, time_s: float) -> None:
        """Take what the detector found at `time_s`, after `move` if the visible faces could be followed there.

        A detection continues the face it overlaps most, else starts a new one. Faces without a detection are hidden;
        those hidden for too long are forgotten.
        """
        elapsed_s = self._elapsed(time_s)
        for track in self._tracks:
            track.detected = False
            if elapsed_s:
                _drift(track, elapsed_s)
        pairs = match([track.xyxy for track in self._tracks], list(detections.xyxy))
        found = {detection: self._tracks[track] for track, detection in pairs}
        for track in self._tracks:
            track.hidden = True
        for index, (box, score) in enumerate(zip(detections.xyxy, detections.scores.tolist(), strict=True)):
            track = found.get(index) or self._start(box, time_s)
            if elapsed_s and index in found:
                # It has drifted to where its speed took it: what is left to the box corrects the speed.
                miss = (_centre(box) - _centre(track.xyxy)) / np.float32(elapsed_s)
                track.speed_xy = np.asarray(track.speed_xy + _SPEED_GAIN * miss, np.float32)
            track.xyxy = np.asarray(box, np.float32)
            track.score, track.seen_s, track.hidden, track.detected = score, time_s, False, True
        self._tracks = [track for track in self._tracks if not track.hidden or time_s - track.seen_s <= _HIDDEN_S]

    def keep_inside(self, xyxy: tuple[float, float, float, float]) -> None:
        """Forget faces whose centre has left the region."""
        x0, y0, x1, y1 = xyxy
        self._tracks = [
            track for track in self._tracks if x0 <= (centre := _centre(track.xyxy))[0] <= x1 and y0 <= centre[1] <= y1
        ]

    def _elapsed(self, time_s: float) -> float:
        elapsed_s, self._time_s = max(time_s - self._time_s, 0.0), time_s
        return elapsed_s

    def _start(self, box: FloatArray, time_s: float) -> Track:
        self._given += 1
        track = Track(self._given, np.asarray(box, np.float32), 0.0, time_s, np.zeros(2, np.float32))
        self._tracks.append(track)
        return track


def iou(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the intersections over union, float32 (N, M), of boxes xyxy (N, 4) and (M, 4)."""
    low = np.maximum(first[:, np.newaxis, :2], second[np.newaxis, :, :2])
    high = np.minimum(first[:, np.newaxis, 2:], second[np.newaxis, :, 2:])
    overlap = np.asarray((high - low).clip(0).prod(axis=2), np.float32)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, np.newaxis] + areas[1][np.newaxis] - overlap
    return np.asarray(np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0), np.float32)


def match(tracks: Sequence[FloatArray], boxes: Sequence[FloatArray]) -> list[tuple[int, int]]:
    """Return the pairs (track, box) that belong together, each at most once: largest overlap first, then nearest."""
    if not tracks or not boxes:
        return []
    overlaps = iou(np.stack(tracks), np.stack(boxes))
    near = [[_nearness(track, box) for box in boxes] for track in tracks]
    candidates = [
        (1 + float(overlap) if overlap >= _MIN_IOU else near[row][column], row, column)
        for (row, column), overlap in np.ndenumerate(overlaps)
    ]
    pairs: list[tuple[int, int]] = []
    for worth, row, column in sorted(candidates, key=lambda item: -item[0]):
        if worth > 0 and all(row != taken[0] and column != taken[1] for taken in pairs):
            pairs.append((row, column))
    return pairs


def _nearness(track: FloatArray, box: FloatArray) -> float:
    """Return 0 for a box too far or too different in size to be the track's, up to 1 for one in its place."""
    sizes = [math.sqrt(max(float((b[2] - b[0]) * (b[3] - b[1])), 1e-6)) for b in (track, box)]
    if max(sizes) > _MAX_SIZE_RATIO * min(sizes):
        return 0.0
    shift = float(np.linalg.norm(_centre(track) - _centre(box)))
    return max(0.0, 1 - shift / (_MAX_SHIFT * max(sizes)))


def _centre(xyxy: FloatArray) -> FloatArray:
    return np.asarray((xyxy[:2] + xyxy[2:]) / 2, np.float32)


def _place(track: Track, box: FloatArray, elapsed_s: float) -> None:
    if elapsed_s > 0:
        speed = (_centre(box) - _centre(track.xyxy)) / np.float32(elapsed_s)
        track.speed_xy = np.asarray((1 - _SPEED_GAIN) * track.speed_xy + _SPEED_GAIN * speed, np.float32)
    track.xyxy = np.asarray(box, np.float32)


def _drift(track: Track, elapsed_s: float) -> None:
    track.xyxy = np.asarray(track.xyxy + np.tile(track.speed_xy * np.float32(elapsed_s), 2), np.float32)
