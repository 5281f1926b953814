"""Track ids: assigns the boxes of a frame to the faces of the previous frame, by overlap.

A face keeps its id while its boxes overlap from detection to detection. A face that the detector loses becomes hidden:
its box continues at its last speed, so that a face that passes behind another gets its own id again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgekit.device.detections import Detections, Track
from edgekit.preprocess import FloatArray

# A box continues a track if their intersection over union is at least _MIN_IOU. A face that moved fast overlaps less:
# its box continues the track if it is within _MAX_SHIFT times its size of the predicted place and its size has changed
# by a factor of at most _MAX_SIZE_RATIO.
_MIN_IOU = 0.25
_MAX_SHIFT = 0.6
_MAX_SIZE_RATIO = 1.5
# A face that is hidden for longer than this gets a new id.
_HIDDEN_S = 1.0
# Weight of a new speed measurement; between two detections most of the measured speed is noise.
_SPEED_GAIN = 0.4


class TrackManager:
    """Assigns track ids to detections. Times are presentation times in seconds and never decrease."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._last_id = 0
        self._time_s = 0.0

    @property
    def visible(self) -> list[Track]:
        """The faces in the current frame, the earliest track first."""
        return [track for track in self._tracks if not track.hidden]

    def move(self, xyxy: Sequence[FloatArray | None], time_s: float) -> bool:
        """Move the visible faces to the boxes that the tracker returned; return whether it found all of them.

        A lost face becomes hidden. Hidden faces continue at their last speed.

        Args:
            xyxy: The new box of each face of `visible`, in the same order; None: the tracker has lost the face.
            time_s: Presentation time of the frame.
        """
        elapsed_s = self._advance_to(time_s)
        for track in self._tracks:
            track.detected, track.landmarks_xy = False, None
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
        """Update the tracks with the detections in the frame of `time_s`.

        A detection continues the track that it overlaps most, else it starts a new one. A track without a detection
        becomes hidden, and ends when it has been hidden for too long.

        `move` may have moved the tracks into this frame before. If not, they move at their last speed.
        """
        elapsed_s = self._advance_to(time_s)  # 0 after `move`
        for track in self._tracks:
            track.detected, track.hidden = False, True  # until a detection continues it
            _drift(track, elapsed_s)
        pairs = match([track.xyxy for track in self._tracks], list(detections.xyxy))
        continued = {detection: self._tracks[track] for track, detection in pairs}  # tracks by index of detection
        for index, (box, score) in enumerate(zip(detections.xyxy, detections.scores.tolist(), strict=True)):
            # A hidden track that is continued becomes visible with its id.
            track = continued.get(index) or self._start(box, time_s)
            if elapsed_s and index in continued:
                # `_drift` has moved the track at its speed: the distance that remains corrects the speed.
                speed_error_xy = (_centre(box) - _centre(track.xyxy)) / np.float32(elapsed_s)
                track.speed_xy = np.asarray(track.speed_xy + _SPEED_GAIN * speed_error_xy, np.float32)
            track.xyxy = np.asarray(box, np.float32)
            track.score, track.seen_s = score, time_s
            track.hidden, track.detected = False, True
            track.landmarks_xy = None if detections.landmarks_xy is None else detections.landmarks_xy[index]
        self._keep(lambda track: not track.hidden or time_s - track.seen_s <= _HIDDEN_S)

    def end(self, time_s: float) -> None:
        """End all tracks: the next detections are other faces."""
        self._advance_to(time_s)
        self._keep(lambda _track: False)

    def keep_inside(self, xyxy: tuple[float, float, float, float]) -> None:
        """End the tracks whose centre lies outside a region, given in pixels of the frame."""
        x0, y0, x1, y1 = xyxy

        def is_inside(track: Track) -> bool:
            x, y = _centre(track.xyxy)
            return bool(x0 <= x <= x1 and y0 <= y <= y1)

        self._keep(is_inside)

    def detections(self) -> Detections:
        """Return the visible faces with their ids, and with landmarks if each face has them."""
        tracks = self.visible
        landmarks_xy = [track.landmarks_xy for track in tracks if track.landmarks_xy is not None]
        return Detections(
            np.array([track.xyxy for track in tracks], np.float32).reshape(-1, 4),
            np.array([track.score for track in tracks], np.float32),
            landmarks_xy=np.stack(landmarks_xy) if tracks and len(landmarks_xy) == len(tracks) else None,
            tracks=np.array(tracks, np.object_),
            detected=np.array([track.detected for track in tracks], np.bool_),
        )

    def _keep(self, is_kept: Callable[[Track], bool]) -> None:
        """End the tracks for which `is_kept` returns False."""
        ended = [track for track in self._tracks if not is_kept(track)]
        for track in ended:
            track.ended_s = self._time_s
        self._tracks = [track for track in self._tracks if track not in ended]

    def _advance_to(self, time_s: float) -> float:
        """Set the time of the current frame, and return the seconds since the time before."""
        elapsed_s = max(time_s - self._time_s, 0.0)
        self._time_s = time_s
        return elapsed_s

    def _start(self, box: FloatArray, time_s: float) -> Track:
        """Return a new track with the next id."""
        self._last_id += 1
        track = Track(self._last_id, np.asarray(box, np.float32), seen_s=time_s)
        self._tracks.append(track)
        return track


def iou(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the intersections over union, float32 (N, M), of boxes xyxy (N, 4) and (M, 4)."""
    low_xy = np.maximum(first[:, np.newaxis, :2], second[np.newaxis, :, :2])  # (N, M, 2): corners of the overlaps
    high_xy = np.minimum(first[:, np.newaxis, 2:], second[np.newaxis, :, 2:])
    overlap = np.asarray((high_xy - low_xy).clip(0).prod(axis=2), np.float32)  # (N, M)
    first_areas = (first[:, 2:] - first[:, :2]).clip(0).prod(axis=1)
    second_areas = (second[:, 2:] - second[:, :2]).clip(0).prod(axis=1)
    union = first_areas[:, np.newaxis] + second_areas[np.newaxis] - overlap
    # 0 for two empty boxes, whose union is 0.
    return np.asarray(np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0), np.float32)


def match(tracks: Sequence[FloatArray], boxes: Sequence[FloatArray]) -> list[tuple[int, int]]:
    """Return the pairs (track, box) that belong together, one to one: largest overlap first, then nearest."""
    if not tracks or not boxes:
        return []
    overlaps = iou(np.stack(tracks), np.stack(boxes))
    candidates = []
    for (track, box), overlap in np.ndenumerate(overlaps):
        # Any sufficient overlap counts more than nearness, which is at most 1.
        likeness = 1 + float(overlap) if overlap >= _MIN_IOU else _nearness(tracks[track], boxes[box])
        if likeness > 0:
            candidates.append((likeness, track, box))
    pairs: list[tuple[int, int]] = []
    for _likeness, track, box in sorted(candidates, key=lambda candidate: -candidate[0]):
        if all(track != other_track and box != other_box for other_track, other_box in pairs):
            pairs.append((track, box))
    return pairs


def _nearness(track: FloatArray, box: FloatArray) -> float:
    """Return 0 for a box too far from the track or too different in size, up to 1 for one in the same place."""
    # The side of a square with the area of each of the two boxes; 1e-6, because an empty box must not divide by 0.
    sides_px = [math.sqrt(max(float((x1 - x0) * (y1 - y0)), 1e-6)) for x0, y0, x1, y1 in (track, box)]
    if max(sides_px) > _MAX_SIZE_RATIO * min(sides_px):
        return 0.0
    shift_px = float(np.linalg.norm(_centre(track) - _centre(box)))
    return max(0.0, 1 - shift_px / (_MAX_SHIFT * max(sides_px)))


def _centre(xyxy: FloatArray) -> FloatArray:
    """Return the centre x, y of a box, float32 (2,)."""
    return np.asarray((xyxy[:2] + xyxy[2:]) / 2, np.float32)


def _place(track: Track, box: FloatArray, elapsed_s: float) -> None:
    """Move a track to a tracked box, and update its speed by the distance."""
    if elapsed_s > 0:
        speed = (_centre(box) - _centre(track.xyxy)) / np.float32(elapsed_s)
        track.speed_xy = np.asarray((1 - _SPEED_GAIN) * track.speed_xy + _SPEED_GAIN * speed, np.float32)
    track.xyxy = np.asarray(box, np.float32)


def _drift(track: Track, elapsed_s: float) -> None:
    """Move a track as far as it moves in `elapsed_s` at its speed."""
    track.xyxy = np.asarray(track.xyxy + np.tile(track.speed_xy * np.float32(elapsed_s), 2), np.float32)
