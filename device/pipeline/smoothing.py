"""Temporal smoothing of a track's probabilities, with hysteresis for its label."""

from __future__ import annotations

import math

import numpy as np

from edgekit.device.track import Classification
from edgekit.preprocess import FloatArray

DEFAULT_SMOOTHING_S = 0.4
# Another class becomes the label when its averaged probability is larger by this much.
_LEAD = 0.1


def smooth(
    last: Classification | None, raw: FloatArray, time_s: float, smooth_s: float, *, is_new: bool, is_cut: bool
) -> Classification:
    """Return the classification of a face in the next frame: an exponential moving average, whatever the frame rate.

    The label changes only when another class leads by 0.1. Until then, the label and the classes above it share the
    mean of their averages, so that no class has a larger probability than the label.

    In frames in which a face is not classified, the average uses the classifier's last output. The next output replaces
    these values by a linear transition between the two outputs.

    Args:
        last: The classification in the frame before, which is changed; None for a face without one.
        raw: The classifier's last output (classes,).
        time_s: Presentation time of the frame.
        smooth_s: The time constant.
        is_new: Whether `raw` is of this frame.
        is_cut: Whether the face changed at once in this frame, without a transition since the last output.
    """
    if last is None:
        return Classification(raw, raw, raw, int(raw.argmax()), time_s, time_s)
    weight = 1 - math.exp(-max(time_s - last.seen_s, 0.0) / smooth_s)
    elapsed_s = time_s - last.classified_s
    since_s = (1 - weight) * last.since_s + weight * elapsed_s
    # Share of the change from the last output to this one in the average over the frames between.
    share = weight if is_cut or elapsed_s <= 0 else since_s / elapsed_s
    mean = last.mean + np.float32(weight) * (last.raw - last.mean) + np.float32(share) * (raw - last.raw)
    best = int(mean.argmax())
    if mean[best] >= mean[last.label] + _LEAD:
        last.label = best
    shared = mean >= mean[last.label]
    last.shown = np.where(shared, np.float32(mean[shared].mean(dtype=np.float64)), mean)
    last.mean, last.seen_s, last.since_s = mean, time_s, since_s
    if is_new:
        last.raw, last.classified_s, last.since_s = raw, time_s, 0.0
    return last
