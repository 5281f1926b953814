"""The label of a face or image over time: smoothed probabilities, hysteresis, and when the label is "uncertain".

A face is uncertain below a threshold of its probability, where its crop is blank, and where the model finds the picture
unlike its classes (`Contract.distance`). No other module decides it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from edgekit.contract import Contract
from edgekit.device.detections import Classification
from edgekit.device.imaging import sharpness
from edgekit.preprocess import FloatArray, ImageU8

# Another class becomes the label when its averaged probability is larger by this much.
_LEAD = 0.1


def smooth(
    last: Classification | None, raw: FloatArray, time_s: float, smooth_s: float, *, is_new: bool, is_cut: bool
) -> Classification:
    """Return the classification of a face in the next frame, an exponential moving average of the classifier's outputs.

    The average depends on times, not on the frame rate.

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
    # Weight of this frame in the average.
    weight = 1 - math.exp(-max(time_s - last.seen_s, 0.0) / smooth_s)
    elapsed_s = time_s - last.classified_s
    since_s = (1 - weight) * last.since_s + weight * elapsed_s
    # The average so far used the last output in all frames since it. With the transition, this frame and those before
    # would have had a part of the change from the last output to `raw`: `change_share` of it in the average.
    change_share = weight if is_cut or elapsed_s <= 0 else since_s / elapsed_s
    mean = last.mean + np.float32(weight) * (last.raw - last.mean) + np.float32(change_share) * (raw - last.raw)
    best = int(mean.argmax())
    if mean[best] >= mean[last.label] + _LEAD:
        last.label = best
    is_shared = mean >= mean[last.label]  # (classes,): the label, and the classes above it
    last.shown = np.where(is_shared, np.float32(mean[is_shared].mean(dtype=np.float64)), mean)
    last.mean, last.seen_s, last.since_s = mean, time_s, since_s
    if is_new:
        last.raw, last.classified_s, last.since_s = raw, time_s, 0.0
    return last


# An uncertain face has a label again when its largest probability exceeds the threshold by this much.
_UNCERTAIN_LEAD = 0.1
# An image stays unlike the model's classes until its distance is lower than the threshold by this share. The noise of a
# sensor and of a stream changes the distance of a standing scene by at most 2 % of the threshold.
_DISTANCE_LEAD = 0.03
# A face whose largest probability is closer to the limit of "uncertain" is close to a change.
_CLOSE_WITH_LABEL, _CLOSE_UNCERTAIN = 0.077, 0.096
# A crop is blank below this standard deviation of its luma, or below this sharpness. Of 6,785 faces on photographs none
# is. Of the same faces darkened and blurred to many degrees, 14 % of the labels of blank crops are right, and 81 % of
# the others (model default, labels above its threshold).
_LEAST_CONTRAST, _LEAST_SHARPNESS = 6.0, 5.0


def is_uncertain(face: Classification) -> bool:
    """Return whether the label of a face or image is "uncertain"."""
    return face.uncertain or face.is_blank or face.is_unlike


def check_crop(face: Classification, crop: ImageU8, distance: float | None, contract: Contract) -> None:
    """Set `is_blank`, `distance` and `is_unlike` of a face from the crop that was just classified.

    `distance` is the model's output `Contract.distance` for the crop; None for a model without it.
    """
    if contract.subject == "face" and contract.uncertain_below > 0:
        face.is_blank = is_blank(crop)
    if distance is not None and contract.distance is not None:
        limit = contract.distance.threshold
        if face.is_unlike:  # hysteresis
            limit -= _DISTANCE_LEAD * abs(limit)
        face.distance = float(distance)
        face.is_unlike = bool(distance > limit)


def check_threshold(face: Classification, below: float) -> None:
    """Set `uncertain` and `is_close` of a face from its largest probability and the threshold `below`.

    A face becomes uncertain when its largest probability is lower than `below`. It stays uncertain until the
    probability is larger by 0.1, or by half of the difference to 1 if this is less. In the frame of a change, closeness
    is measured to the limit before the change. Without a threshold (0), no face is uncertain.
    """
    if below == 0:
        return
    half = (1 - below) / 2
    limit = np.float32(below)
    if face.uncertain:  # hysteresis
        limit += np.float32(min(_UNCERTAIN_LEAD, half))
    largest = face.shown.max()
    face.uncertain = bool(largest < limit)
    close = _CLOSE_UNCERTAIN if face.uncertain else _CLOSE_WITH_LABEL
    face.is_close = bool(abs(largest - limit) < np.float32(min(close, half)))


def is_blank(crop: ImageU8) -> bool:
    """Return whether a crop, uint8 (H, W, 1 or 3), is nearly black, plain or blurred beyond recognition."""
    gray = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8) if crop.shape[2] == 3 else crop[..., 0]
    return float(gray.std()) < _LEAST_CONTRAST or sharpness(gray) < _LEAST_SHARPNESS
