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
    face: Classification | None, raw: FloatArray, time_s: float, smooth_s: float, *, is_new: bool, is_cut: bool
) -> Classification:
    """Return a face's classification in the next frame: the exponential moving average of the outputs, and its label.

    The average depends on presentation times, not on the frame rate. In frames in which the face is not classified, it
    uses the last output. The next output corrects it.

    Args:
        face: The classification in the frame before, which is changed and returned; None for a new face.
        raw: The output of the classifier in this frame, or else its last one (classes,).
        time_s: Presentation time of the frame.
        smooth_s: The time constant, greater than 0 unless the face is new.
        is_new: Whether `raw` is of this frame.
        is_cut: Whether the crop shows something else since this frame, so that the output changed at once.
    """
    if face is None:
        return Classification(raw=raw, mean=raw, shown=raw, label=int(raw.argmax()), classified_s=time_s, seen_s=time_s)
    step_s = max(time_s - face.seen_s, 0.0)
    weight = 1 - math.exp(-step_s / smooth_s)  # of this frame in the average
    since_output_s = time_s - face.classified_s
    # The average of `since_output_s` over the frames since the last output.
    face.since_s = (1 - weight) * face.since_s + weight * since_output_s
    face.mean = face.mean + np.float32(weight) * (face.raw - face.mean)
    if is_new:
        # Since the last output, the average has used this output, although the face was changing. So a share of the
        # change from the last output to `raw` is added. After a cut, only this frame has changed, and the share is its
        # weight. Otherwise the output is taken to have changed linearly: the frame at time t after the last output had
        # t / since_output_s of the change. The average of t over the frames is `since_s`.
        share = weight
        if not is_cut and since_output_s > 0:
            share = face.since_s / since_output_s
        face.mean = face.mean + np.float32(share) * (raw - face.raw)
        face.raw, face.classified_s, face.since_s = raw, time_s, 0.0
    face.seen_s = time_s
    _update_label(face)
    return face


def _update_label(face: Classification) -> None:
    """Set `label` and `shown` of a face from `mean`.

    The label changes only when another class leads by 0.1. Until then, the label and the classes above it are shown
    with the mean of their averages, so that no class has a larger probability than the label.
    """
    best = int(face.mean.argmax())
    if face.mean[best] >= face.mean[face.label] + _LEAD:
        face.label = best
    is_shared = face.mean >= face.mean[face.label]  # (classes,): the label, and the classes above it
    shared = np.float32(face.mean[is_shared].mean(dtype=np.float64))
    face.shown = np.where(is_shared, shared, face.mean)


# An uncertain face has a label again when its largest probability exceeds the threshold by this much.
_UNCERTAIN_LEAD = 0.1
# An image stays unlike the model's classes until its distance is lower than the threshold by this share. The noise of a
# sensor and of a stream changes the distance of a standing scene by at most 2 % of the threshold.
_DISTANCE_LEAD = 0.03
# A face is close to a change (`is_close`) if its largest probability is closer to the limit of "uncertain". The
# classification schedule reads `is_close`. As its own thresholds, the two distances were chosen on four clips
# (docs/reference/results-device.md, Adaptive classification).
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
    # A blank crop makes a face uncertain, if the model has that label at all. The limits are those of faces.
    if contract.subject == "face" and contract.uncertain_below > 0:
        face.is_blank = is_blank(crop)
    if distance is not None and contract.distance is not None:
        limit = contract.distance.threshold
        if face.is_unlike:  # hysteresis: the distance must become clearly smaller than the threshold, which may be < 0
            limit -= _DISTANCE_LEAD * abs(limit)
        face.distance, face.is_unlike = float(distance), bool(distance > limit)


def check_threshold(face: Classification, below: float) -> None:
    """Set `uncertain` and `is_close` of a face from its largest probability and the threshold `below`.

    A face becomes uncertain when its largest probability is lower than `below`. It has a label again when the
    probability exceeds `below` by 0.1. Without a threshold (0), no face is uncertain.
    """
    if below == 0:
        return
    # `_UNCERTAIN_LEAD` and the distance of `is_close` are at most half of the way from the threshold to 1: with a high
    # threshold, a probability must be able to exceed them, too.
    most = (1 - below) / 2
    limit = np.float32(below)
    if face.uncertain:  # hysteresis
        limit += np.float32(min(_UNCERTAIN_LEAD, most))
    largest = face.shown.max()
    face.uncertain = bool(largest < limit)
    close = _CLOSE_UNCERTAIN if face.uncertain else _CLOSE_WITH_LABEL
    face.is_close = bool(abs(largest - limit) < np.float32(min(close, most)))


def is_blank(crop: ImageU8) -> bool:
    """Return whether a crop, uint8 (H, W, 1 or 3), is nearly black, plain or blurred beyond recognition."""
    gray = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8) if crop.shape[2] == 3 else crop[..., 0]
    return float(gray.std()) < _LEAST_CONTRAST or sharpness(gray) < _LEAST_SHARPNESS
