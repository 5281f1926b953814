"""Probabilities of a face over time: smoothed, and a label that does not flicker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.preprocess import FloatArray

DEFAULT_SMOOTHING_S = 0.4
# Another label takes over when it leads by this much.
_LEAD = 0.1
# A face that was away for longer starts anew.
_FORGET_S = 2.0


@dataclass
class _State:
    probabilities: FloatArray
    label: int
    time_s: float


class Smoother:
    """Smooths the probabilities of each track: an exponential mean over time, whatever the frame rate.

    The label changes only when another one leads by 0.1.
    """

    def __init__(self, seconds: float = DEFAULT_SMOOTHING_S) -> None:
        """Smooth with a time constant of `seconds`; 0 leaves everything as it is."""
        self._seconds = seconds
        self._states: dict[int, _State] = {}

    def smooth(
        self, probabilities: FloatArray, track_ids: Sequence[int | None], time_s: float
    ) -> tuple[FloatArray, tuple[int, ...]]:
        """Return the smoothed probabilities and the index of each face's label.

        Args:
            probabilities: float32 (N, classes), of one frame's faces.
            track_ids: Their N ids; a face without one is left as it is.
            time_s: When the frame was taken, seconds.
        """
        rows, labels = [], []
        for row, track_id in zip(probabilities, track_ids, strict=True):
            if track_id is None or self._seconds <= 0:
                rows.append(row)
                labels.append(int(row.argmax()))
                continue
            state = self._states[track_id] = self._next(self._states.get(track_id), row, time_s)
            rows.append(state.probabilities)
            labels.append(state.label)
        self._states = {key: state for key, state in self._states.items() if time_s - state.time_s <= _FORGET_S}
        return np.stack(rows) if rows else probabilities, tuple(labels)

    def _next(self, state: _State | None, row: FloatArray, time_s: float) -> _State:
        if state is None or time_s - state.time_s > _FORGET_S:
            return _State(row, int(row.argmax()), time_s)
        weight = np.float32(1 - math.exp(-max(time_s - state.time_s, 0.0) / self._seconds))
        mean = np.asarray(state.probabilities + weight * (row - state.probabilities), np.float32)
        best = int(mean.argmax())
        label = best if mean[best] >= mean[state.label] + _LEAD else state.label
        return _State(mean, label, time_s)
