"""Classification schedule: the faces of each frame that are classified, every Nth frame of a track or by need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from edgekit.device.detections import BoolArray, IntArray
from edgekit.device.pipeline.smoothing import FORGET_S, Certainty
from edgekit.preprocess import FloatArray, ImageU8

ClassifyEvery: TypeAlias = int | Literal["auto"]

# Longest time between two classifications of a face, in presentation time.
_LONGEST_S = 0.2
# Frames at equal distances have times that differ by rounding.
_ROUNDING_S = 1e-6
# Faces classified per frame, beside new ones; the others wait for the next frame.
_PER_FRAME = 2
# A face with a label is undecided while its two largest smoothed probabilities differ by less.
_UNDECIDED = 0.16
# An undecided face is classified in every frame of this number.
_UNDECIDED_FRAMES = 2
# Change of a crop is the mean difference of two crops of this size, in standard deviations of their pixels.
_COARSE_PX = 11
# Smallest standard deviation, in levels of 0 to 255: noise of a plain area is no change.
_LEAST_CONTRAST = 8.0
# The change that requires a classification grows with the difference of the two largest probabilities.
_CHANGED, _CHANGED_PER_MARGIN = 0.18, 0.41
# Change from one frame to the next of a face that is replaced or hidden; tracking and detection move crops less.
_CUT = 0.5


@dataclass(frozen=True)
class Choice:
    """The faces of a frame to classify, bool (N,), and those that are another picture than in the frame before."""

    due: BoolArray
    cut: BoolArray


@dataclass
class _Track:
    classified: FloatArray  # the crop that was classified last, as `_coarse`
    latest: FloatArray  # the crop of the latest frame
    classified_s: float
    latest_s: float
    frames: int = 0  # since the last classification
    raw: FloatArray | None = None
    margin: float = 0.0
    undecided: bool = True


class ClassificationSchedule:
    """Chooses the faces to classify in each frame; the classifier's last output stands in for the others.

    With "auto", a tracked face is classified when it is new, when its crop differs from the one classified last, in
    every other frame while its class is undecided, and at least every 0.2 s. Of faces that are not new, the two that
    have waited longest are classified in a frame. The choice depends on crops, tracks and presentation times only.
    """

    def __init__(self, every: ClassifyEvery = 1) -> None:
        """Classify every `every`th frame of each track, or by need ("auto"). Faces without a track are classified."""
        self._every = every
        self._tracks: dict[int, _Track] = {}

    def choose(self, crops: ImageU8, track_ids: IntArray | None, time_s: float) -> Choice:
        """Return the faces of the next frame to classify.

        Args:
            crops: uint8 (N, H, W, 1 or 3), of all faces of the frame.
            track_ids: Their ids (N,).
            time_s: Presentation time of the frame in seconds.
        """
        due, cut = np.ones(len(crops), np.bool_), np.zeros(len(crops), np.bool_)
        if self._every == 1 or track_ids is None:
            return Choice(due, cut)
        self._tracks = {key: track for key, track in self._tracks.items() if time_s - track.latest_s <= FORGET_S}
        waiting = []
        for index, (crop, track_id) in enumerate(zip(map(_coarse, crops), track_ids.tolist(), strict=True)):
            track = self._tracks.get(track_id)
            if track is None:
                self._tracks[track_id] = _Track(crop, crop, time_s, time_s)
                continue
            due[index], cut[index] = False, _change(crop, track.latest) > _CUT
            if self._wants(track, crop, time_s) or (self._every == "auto" and cut[index]):
                waiting.append((track.classified_s, index))
            track.latest, track.latest_s, track.frames = crop, time_s, track.frames + 1
        for _, index in sorted(waiting)[: _PER_FRAME if self._every == "auto" else None]:
            due[index] = True
            track = self._tracks[int(track_ids[index])]
            track.classified, track.classified_s, track.frames = track.latest, time_s, 0
        return Choice(due, cut)

    def completed(self, raw: FloatArray, due: BoolArray, track_ids: IntArray | None) -> FloatArray:
        """Return the probabilities of all faces (N, classes), from those of the faces that were classified."""
        if self._every == 1 or track_ids is None:
            return raw
        tracks = [self._tracks[track_id] for track_id in track_ids.tolist()]
        for row, index in zip(raw, np.flatnonzero(due), strict=True):
            tracks[index].raw = row
        return np.array([track.raw for track in tracks], np.float32).reshape(len(tracks), raw.shape[1])

    def record(self, probabilities: FloatArray, certainty: Certainty, track_ids: IntArray | None) -> None:
        """Record how clear the class of each face is, from the smoothed probabilities (N, classes)."""
        if self._every != "auto" or track_ids is None:
            return
        faces = zip(probabilities, certainty.uncertain, certainty.is_close, track_ids.tolist(), strict=True)
        for row, is_uncertain, is_close, track_id in faces:
            track = self._tracks[track_id]
            second, best = np.sort(row)[-2:] if len(row) > 1 else (0.0, 1.0)
            track.margin = float(best - second)
            has_other_class = track.raw is not None and track.raw.argmax() != row.argmax()
            is_near_tie = track.margin < _UNDECIDED and not is_uncertain
            track.undecided = bool(is_close or has_other_class or is_near_tie)

    def _wants(self, track: _Track, crop: FloatArray, time_s: float) -> bool:
        frames = track.frames + 1
        if self._every != "auto":
            return frames >= self._every
        # In the next frame it would be too late.
        is_late = 2 * time_s - track.latest_s - track.classified_s > _LONGEST_S + _ROUNDING_S
        is_undecided = track.undecided and frames >= _UNDECIDED_FRAMES
        return (
            is_late or is_undecided or _change(crop, track.classified) > _CHANGED + _CHANGED_PER_MARGIN * track.margin
        )


def _coarse(crop: ImageU8) -> FloatArray:
    """Return a small version of a crop with mean 0 and standard deviation 1: exposure and contrast are no change."""
    small = np.asarray(cv2.resize(crop, (_COARSE_PX, _COARSE_PX), interpolation=cv2.INTER_AREA), np.float32)
    small -= small.sum() / np.float32(small.size)
    return small / np.float32(max(float(small.std()), _LEAST_CONTRAST))


def _change(crop: FloatArray, other: FloatArray) -> float:
    # As `mean`, which takes twice as long.
    return float(np.abs(crop - other).sum() / np.float32(crop.size))
