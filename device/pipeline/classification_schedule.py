"""Classification schedule: the faces of each frame that are classified, every Nth frame of a track or by need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from edgekit.device.detections import BoolArray, IntArray
from edgekit.device.pipeline.smoothing import FORGET_S
from edgekit.preprocess import FloatArray, ImageU8

ClassifyEvery: TypeAlias = int | Literal["auto"]

# Longest time between two classifications of a face, in presentation time.
LONGEST_S = 0.3
# Frames of equal distance have times that differ by rounding.
_ROUNDING_S = 1e-6
# Faces classified per frame, beside new ones; the others wait for the next frame.
_PER_FRAME = 2
# A face is undecided while its two largest smoothed probabilities differ by less.
_MARGIN = 0.1
# Change is measured on crops of this size, in standard deviations of the pixels.
_COARSE_PX = 11
_CHANGED = 0.45
# Smallest standard deviation, in levels of 0 to 255: noise of a plain area is no change.
_LEAST_CONTRAST = 8.0


@dataclass
class _Track:
    coarse: FloatArray  # of the crop that was classified last
    classified_s: float
    seen_s: float
    frames: int = 0  # since the last classification
    raw: FloatArray | None = None
    decided: bool = False


class ClassificationSchedule:
    """Chooses the faces to classify in each frame; the classifier's last output stands in for the others.

    With "auto", a tracked face is classified when it is new, when its crop differs from the one classified last, while
    its class is undecided, and at least every 0.3 s. Of faces that are not new, the two that have waited longest are
    classified in a frame. The choice depends on crops, tracks and presentation times only.
    """

    def __init__(self, every: ClassifyEvery = 1) -> None:
        """Classify every `every`th frame of each track, or by need ("auto"). Faces without a track are classified."""
        self._every = every
        self._tracks: dict[int, _Track] = {}

    def due(self, crops: ImageU8, track_ids: IntArray | None, time_s: float) -> BoolArray:
        """Return which faces of the next frame to classify (N,).

        Args:
            crops: uint8 (N, H, W, 1 or 3), of all faces of the frame.
            track_ids: Their ids (N,).
            time_s: Presentation time of the frame in seconds.
        """
        due = np.ones(len(crops), np.bool_)
        if self._every == 1 or track_ids is None:
            return due
        self._tracks = {key: track for key, track in self._tracks.items() if time_s - track.seen_s <= FORGET_S}
        coarse = [_coarse(crop) for crop in crops]
        waiting = []
        for index, track_id in enumerate(track_ids.tolist()):
            if (track := self._tracks.get(track_id)) is not None:
                due[index] = False
                if self._wants(track, coarse[index], time_s):
                    waiting.append((track.classified_s, index))
                track.frames, track.seen_s = track.frames + 1, time_s
        due[[index for _, index in sorted(waiting)[: _PER_FRAME if self._every == "auto" else None]]] = True
        for index in np.flatnonzero(due).tolist():
            self._tracks[int(track_ids[index])] = _Track(coarse[index], time_s, time_s)
        return due

    def completed(self, raw: FloatArray, due: BoolArray, track_ids: IntArray | None) -> FloatArray:
        """Return the probabilities of all faces (N, classes), from those of the faces that were classified."""
        if self._every == 1 or track_ids is None:
            return raw
        tracks = [self._tracks[track_id] for track_id in track_ids.tolist()]
        for row, index in zip(raw, np.flatnonzero(due), strict=True):
            tracks[index].raw = row
        return np.array([track.raw for track in tracks], np.float32).reshape(len(tracks), raw.shape[1])

    def judge(self, probabilities: FloatArray, uncertain: BoolArray, track_ids: IntArray | None) -> None:
        """Record whether the class of each face is decided, from the smoothed probabilities (N, classes)."""
        if self._every != "auto" or track_ids is None:
            return
        for row, is_uncertain, track_id in zip(probabilities, uncertain, track_ids.tolist(), strict=True):
            track = self._tracks[track_id]
            assert track.raw is not None
            second, best = np.sort(row)[-2:] if len(row) > 1 else (0.0, 1.0)
            agrees = track.raw.argmax() == row.argmax()
            track.decided = bool(agrees and best - second >= _MARGIN and not is_uncertain)

    def _wants(self, track: _Track, coarse: FloatArray, time_s: float) -> bool:
        if self._every != "auto":
            return track.frames + 1 >= self._every
        # The next frame would be too late.
        is_due = 2 * time_s - track.classified_s - track.seen_s > LONGEST_S + _ROUNDING_S
        return is_due or not track.decided or float(np.abs(coarse - track.coarse).mean()) > _CHANGED


def _coarse(crop: ImageU8) -> FloatArray:
    """Return a small version of a crop with mean 0 and standard deviation 1: exposure and contrast are no change."""
    small = np.asarray(cv2.resize(crop, (_COARSE_PX, _COARSE_PX), interpolation=cv2.INTER_AREA), np.float32)
    small -= small.mean()
    return small / max(float(small.std()), _LEAST_CONTRAST)
