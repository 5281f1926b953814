"""Classification schedule: the faces of each frame that are classified, every Nth frame of a track or by need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from edgekit.device.detections import BoolArray, Classification
from edgekit.preprocess import FloatArray, ImageU8

ClassifyEvery: TypeAlias = int | Literal["auto"]

# Longest time between two classifications of a face, and of a whole image, in presentation time.
_LONGEST_S = 0.2
_LONGEST_OF_IMAGE_S = 1.0
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
# The largest change of a part of a whole image, from which the image is classified again: a new object may be small.
# The noise of a sensor and the compression of a stream change a part by less than 0.1.
_PART_CHANGED = 0.3
# Change from one frame to the next of a face that is replaced or hidden; tracking and detection move crops less.
_CUT = 0.5


@dataclass(frozen=True)
class Choice:
    """Which of the N faces of a frame are to be classified.

    Attributes:
        due: bool (N,): the face is to be classified.
        cut: bool (N,): the crop shows something else than in the frame before, as after a cut of a film.
        crops: `_coarse` of each crop, for the comparison in the next frame; None: nothing is compared.
    """

    due: BoolArray
    cut: BoolArray
    crops: list[FloatArray] | None = None

    def record(self, index: int, face: Classification) -> None:
        """Keep the crop of a face, and count its frames since the last classification, for the next frame's choice."""
        if self.crops is None:  # every face is classified in every frame
            return
        face.crop = self.crops[index]
        face.frames += 1
        if self.due[index]:
            face.classified_crop, face.frames = face.crop, 0


def choose(
    crops: ImageU8,
    last: Sequence[Classification | None],
    time_s: float,
    every: ClassifyEvery,
    *,
    are_images: bool = False,
) -> Choice:
    """Return which faces of a frame are classified; the others keep the classifier's last output.

    A new face is always classified. With "auto", a face is classified again

    - when its crop differs from the one that was classified last,
    - in every other frame while its class is undecided,
    - at least every 0.2 s.

    At most two faces are classified again in one frame: those that have waited longest. A whole image is classified
    again when a part of it has changed, and at least once per second.

    The choice depends on crops, tracks and presentation times only, not on the speed of the machine.

    Args:
        crops: uint8 (N, H, W, 1 or 3), of all faces of the frame.
        last: Their classifications in earlier frames (N,); None: a new face.
        time_s: Presentation time of the frame in seconds.
        every: Classify every Nth frame of each track, or by need ("auto").
        are_images: Whether the crops are whole images, not faces.
    """
    due = np.ones(len(crops), np.bool_)
    cut = np.zeros(len(crops), np.bool_)
    if every == 1:
        return Choice(due, cut)
    coarse = [_coarse(crop) for crop in crops]
    must_classify = _must_classify_image if are_images else _must_classify_face
    waiting = []  # with "auto": time of the last classification, and index, of the faces to classify again
    for index, (crop, face) in enumerate(zip(coarse, last, strict=True)):
        if face is None:
            continue
        due[index] = False
        cut[index] = _change(crop, face.crop) > _CUT
        if every != "auto":  # a fixed interval, which a cut does not shorten
            due[index] = face.frames + 1 >= every  # + 1: this frame
        elif cut[index] or must_classify(face, crop, time_s):
            waiting.append((face.classified_s, index))
    for _classified_s, index in sorted(waiting)[:_PER_FRAME]:  # those that have waited longest
        due[index] = True
    return Choice(due, cut, coarse)


def _must_classify_face(face: Classification, crop: FloatArray, time_s: float) -> bool:
    """Return whether a face needs another classification in this frame; `crop` is its coarse crop."""
    if _is_late(face, time_s, _LONGEST_S):
        return True
    # Difference of the two largest probabilities; 1 if there is only one class.
    margin = 1.0
    if len(face.shown) > 1:
        second, best = np.sort(face.shown)[-2:]
        margin = float(best - second)
    has_other_class = face.raw.argmax() != face.shown.argmax()  # the last output disagrees with the average
    is_near_tie = margin < _UNDECIDED and not face.uncertain  # an uncertain face has no label that a tie could change
    # `is_close`: a small change of its probabilities would make the face uncertain, or give it a label again.
    is_undecided = face.is_close or has_other_class or is_near_tie
    if is_undecided and face.frames + 1 >= _UNDECIDED_FRAMES:  # + 1: this frame
        return True
    # A small change of the crop can change the label only if the margin is small.
    return _change(crop, face.classified_crop) > _CHANGED + _CHANGED_PER_MARGIN * margin


def _must_classify_image(face: Classification, crop: FloatArray, time_s: float) -> bool:
    """Return whether a whole image needs a classification now."""
    assert face.classified_crop is not None
    change_of_parts = np.abs(crop - face.classified_crop)
    return _is_late(face, time_s, _LONGEST_OF_IMAGE_S) or float(change_of_parts.max()) > _PART_CHANGED


def _is_late(face: Classification, time_s: float, longest_s: float) -> bool:
    """Return whether the next frame would be later than `longest_s` after the last classification."""
    next_frame_s = time_s + (time_s - face.seen_s)
    return next_frame_s - face.classified_s > longest_s + _ROUNDING_S


def _coarse(crop: ImageU8) -> FloatArray:
    """Return a crop as float32 (11, 11) or (11, 11, 3) with mean 0 and standard deviation 1.

    Thus another exposure or contrast does not count as a change.
    """
    small = np.asarray(cv2.resize(crop, (_COARSE_PX, _COARSE_PX), interpolation=cv2.INTER_AREA), np.float32)
    small -= small.sum() / np.float32(small.size)  # its mean, see `_change`
    return small / np.float32(max(float(small.std()), _LEAST_CONTRAST))


def _change(crop: FloatArray, other: FloatArray | None) -> float:
    """Return the mean absolute difference of two coarse crops, in standard deviations of their pixels."""
    assert other is not None
    # Not `ndarray.mean`, which takes twice as long.
    return float(np.abs(crop - other).sum() / np.float32(crop.size))
