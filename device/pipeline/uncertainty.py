"""When a face or image has the label "uncertain": the only module that decides it.

It is uncertain below a threshold of its probability, where a face's crop is blank, and where the model finds the
picture unlike its classes (`Contract.distance`).
"""

from __future__ import annotations

import cv2
import numpy as np

from edgekit.contract import Contract
from edgekit.device.imaging import sharpness
from edgekit.device.track import Classification
from edgekit.preprocess import ImageU8

# An uncertain face has a label again when its largest probability exceeds the threshold by this much.
_LEAD = 0.1
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
    """Set what the crop that was classified last, and its distance from the model's classes, say about a face."""
    if contract.subject == "face" and contract.uncertain_below > 0:
        face.is_blank = is_blank(crop)
    if distance is not None and contract.distance is not None:
        limit = contract.distance.threshold
        limit -= _DISTANCE_LEAD * abs(limit) if face.is_unlike else 0
        face.distance, face.is_unlike = float(distance), bool(distance > limit)


def check_threshold(face: Classification, below: float) -> None:
    """Set whether a face is uncertain, and whether it is close to a change.

    A face becomes uncertain when its largest probability is lower than `below`. It stays uncertain until the
    probability is larger by 0.1, or by half of the difference to 1 if this is less. In the frame of a change, closeness
    is measured to the limit before the change. Without a threshold (0), no face is uncertain.
    """
    if below == 0:
        return
    half = (1 - below) / 2
    limit = np.float32(below) + np.float32(min(_LEAD, half) if face.uncertain else 0)
    largest = face.shown.max()
    face.uncertain = bool(largest < limit)
    close = np.float32(min(_CLOSE_UNCERTAIN if face.uncertain else _CLOSE_WITH_LABEL, half))
    face.is_close = bool(abs(largest - limit) < close)


def is_blank(crop: ImageU8) -> bool:
    """Return whether a crop, uint8 (H, W, 1 or 3), is nearly black, plain or blurred beyond recognition."""
    gray = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8) if crop.shape[2] == 3 else crop[..., 0]
    return float(gray.std()) < _LEAST_CONTRAST or sharpness(gray) < _LEAST_SHARPNESS
