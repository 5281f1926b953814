"""Temporal smoothing of each face's probabilities, with hysteresis for its label and for "uncertain"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgekit.device.detections import BoolArray, IntArray
from edgekit.preprocess import FloatArray

DEFAULT_SMOOTHING_S = 0.4
# Another class becomes the label when its averaged probability is larger by this much. An uncertain face has a label
# again when its largest probability exceeds the threshold by this much.
_LEAD = 0.1
# A face whose largest probability is closer to the limit of "uncertain" is close to a change.
_CLOSE_WITH_LABEL, _CLOSE_UNCERTAIN = 0.077, 0.096
# A face that was absent for longer starts without history.
FORGET_S = 2.0


@dataclass
class _State:
    mean: FloatArray
    label: int
    time_s: float
    raw: FloatArray  # the classifier's last output
    classified_s: float
    # Average, as `mean`, of the time since the last classification.
    since_s: float = 0.0
    uncertain: bool = False


@dataclass(frozen=True)
class Certainty:
    """Which faces are uncertain, and for which a small change of the largest probability would change this, (N,)."""

    uncertain: BoolArray
    is_close: BoolArray


class Smoother:
    """Exponential moving average of each track's probabilities over time, independent of the frame rate.

    The label changes only when another class leads by 0.1. Until then, the label and the classes above it share the
    mean of their averages, so that no class has a larger probability than the label.

    In frames in which a face is not classified, the average uses the classifier's last output. The next output replaces
    these values by a linear transition between the two outputs.
    """

    def __init__(self, seconds: float = DEFAULT_SMOOTHING_S) -> None:
        """Smooth with a time constant of `seconds`; 0 switches smoothing off."""
        self._seconds = seconds
        self._states: dict[int, _State] = {}

    def smooth(
        self,
        probabilities: FloatArray,
        track_ids: IntArray | None,
        time_s: float,
        classified: BoolArray | None = None,
        cut: BoolArray | None = None,
    ) -> tuple[FloatArray, IntArray]:
        """Return the smoothed probabilities (N, classes) and the index of each face's label (N,).

        A face's label has its largest probability; of equal probabilities it is the face's previous label.

        Args:
            probabilities: float32 (N, classes), of the faces of one frame: the classifier's last outputs.
            track_ids: Their ids (N,); without ids nothing is smoothed.
            time_s: Time of the frame in seconds.
            classified: The faces that were classified in this frame (N,); None: all.
            cut: The faces that changed at once in this frame (N,), without a transition since the last output; None:
                none.
        """
        if track_ids is None or self._seconds <= 0 or len(probabilities) == 0:
            self._forget(time_s)
            return probabilities, probabilities.argmax(axis=1)
        states = []
        is_new = [True] * len(probabilities) if classified is None else classified.tolist()
        is_cut = [False] * len(probabilities) if cut is None else cut.tolist()
        for row, track_id, *how in zip(probabilities, track_ids.tolist(), is_new, is_cut, strict=True):
            self._states[track_id] = self._next(self._known(track_id, time_s), row, time_s, *how)
            states.append(self._states[track_id])
        self._forget(time_s)
        return np.array([_shown(state) for state in states]), np.array([state.label for state in states])

    def certainty(self, probabilities: FloatArray, track_ids: IntArray | None, below: float) -> Certainty:
        """Return which faces are uncertain, for the result of `smooth` (N, classes).

        A face becomes uncertain when its largest probability is lower than `below`. It stays uncertain until the
        probability is larger by 0.1, or by half of the difference to 1 if this is less. Without ids or smoothing, only
        `below` counts. In the frame of a change, closeness is measured to the limit before the change.
        """
        largest = probabilities.max(axis=1)
        if track_ids is None or self._seconds <= 0 or below == 0:
            return Certainty(largest < below, np.zeros(len(largest), np.bool_))
        states = [self._states[track_id] for track_id in track_ids.tolist()]
        was_uncertain = np.array([state.uncertain for state in states], np.bool_)
        half = (1 - below) / 2
        limits = np.float32(below) + np.where(was_uncertain, np.float32(min(_LEAD, half)), np.float32(0))
        uncertain = largest < limits
        for state, is_uncertain in zip(states, uncertain.tolist(), strict=True):
            state.uncertain = is_uncertain
        close = np.where(uncertain, np.float32(min(_CLOSE_UNCERTAIN, half)), np.float32(min(_CLOSE_WITH_LABEL, half)))
        return Certainty(uncertain, np.abs(largest - limits) < close)

    def _known(self, track_id: int, time_s: float) -> _State | None:
        state = self._states.get(track_id)
        return None if state is None or time_s - state.time_s > FORGET_S else state

    def _next(self, state: _State | None, row: FloatArray, time_s: float, is_new: bool, is_cut: bool) -> _State:
        if state is None:
            return _State(row, int(row.argmax()), time_s, row, time_s)
        weight = 1 - math.exp(-max(time_s - state.time_s, 0.0) / self._seconds)
        elapsed_s = time_s - state.classified_s
        since_s = (1 - weight) * state.since_s + weight * elapsed_s
        # Share of the change from the last output to this one in the average over the frames between.
        share = weight if is_cut or elapsed_s <= 0 else since_s / elapsed_s
        mean = state.mean + np.float32(weight) * (state.raw - state.mean) + np.float32(share) * (row - state.raw)
        best = int(mean.argmax())
        label = best if mean[best] >= mean[state.label] + _LEAD else state.label
        if not is_new:
            state.mean, state.label, state.time_s, state.since_s = mean, label, time_s, since_s
            return state
        return _State(mean, label, time_s, row, time_s, uncertain=state.uncertain)

    def _forget(self, time_s: float) -> None:
        self._states = {key: state for key, state in self._states.items() if time_s - state.time_s <= FORGET_S}


def _shown(state: _State) -> FloatArray:
    """Return the averages, with those from the label's to the largest replaced by their mean."""
    shared = state.mean >= state.mean[state.label]
    return np.where(shared, np.float32(state.mean[shared].mean(dtype=np.float64)), state.mean)
