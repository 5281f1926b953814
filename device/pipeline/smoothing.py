"""Temporal smoothing of each face's probabilities, with hysteresis for its label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgekit.device.detections import IntArray
from edgekit.preprocess import FloatArray

DEFAULT_SMOOTHING_S = 0.4
# Another class becomes the label when its smoothed probability is larger by this much.
_LEAD = 0.1
# A face that was absent for longer starts without history.
_FORGET_S = 2.0


@dataclass
class _State:
    probabilities: FloatArray
    label: int
    time_s: float


class Smoother:
    """Exponential moving average of each track's probabilities over time, independent of the frame rate.

    The label changes only when another class leads by 0.1.
    """

    def __init__(self, seconds: float = DEFAULT_SMOOTHING_S) -> None:
        """Smooth with a time constant of `seconds`; 0 switches smoothing off."""
        self._seconds = seconds
        self._states: dict[int, _State] = {}

    def smooth(
        self, probabilities: FloatArray, track_ids: IntArray | None, time_s: float
    ) -> tuple[FloatArray, IntArray]:
        """Return the smoothed probabilities (N, classes) and the index of each face's label (N,).

        Args:
            probabilities: float32 (N, classes), of the faces of one frame.
            track_ids: Their ids (N,); without ids nothing is smoothed.
            time_s: Time of the frame in seconds.
        """
        if track_ids is None or self._seconds <= 0 or len(probabilities) == 0:
            self._forget(time_s)
            return probabilities, probabilities.argmax(axis=1)
        states = []
        for row, track_id in zip(probabilities, track_ids.tolist(), strict=True):
            self._states[track_id] = self._next(self._states.get(track_id), row, time_s)
            states.append(self._states[track_id])
        self._forget(time_s)
        return np.stack([state.probabilities for state in states]), np.array([state.label for state in states])

    def _next(self, state: _State | None, row: FloatArray, time_s: float) -> _State:
        if state is None or time_s - state.time_s > _FORGET_S:
            return _State(row, int(row.argmax()), time_s)
        weight = np.float32(1 - math.exp(-max(time_s - state.time_s, 0.0) / self._seconds))
        mean = np.asarray(state.probabilities + weight * (row - state.probabilities), np.float32)
        best = int(mean.argmax())
        label = best if mean[best] >= mean[state.label] + _LEAD else state.label
        return _State(mean, label, time_s)

    def _forget(self, time_s: float) -> None:
        self._states = {key: state for key, state in self._states.items() if time_s - state.time_s <= _FORGET_S}
