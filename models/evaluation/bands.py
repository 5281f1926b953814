"""`edgekit.accuracy_by`: accuracy in bands of what is measured of each face, such as its size or its pose.

[result] = edgekit.evaluate_photos(["default"], "photos")
for band in edgekit.accuracy_by(result.with_face, "size").bands:
    print(band.name, band.total, band.accuracy, band.interval)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.device.detections import Detections
from edgekit.errors import InputError
from edgekit.models.evaluation.evaluate import Evaluation, mean_recall
from edgekit.preprocess import FloatArray, ImageU8
from edgekit.report.statistics import wilson_interval

# Distance of the nose tip from the plane of the eyes, in distances between the eyes: a mean adult face.
_NOSE_DEPTH = 0.6
# 97.5 % point of the normal distribution.


@dataclass(frozen=True)
class Measure:
    """What is measured of a face: its description, its unit, and the lower edges of the bands above the lowest one."""

    text: str
    unit: str
    edges: tuple[float, ...]


MEASURES = {
    "brightness": Measure("mean pixel value of the crop, 0 to 255", "", (60, 100, 140)),
    "size": Measure("short side of the face box in the photograph", "px", (48, 96, 144)),
    "yaw": Measure("angle by which the head is turned to one side, estimated from nose and eyes", "°", (10, 20, 35)),
    "roll": Measure("angle by which the head is tilted to one side, estimated from the eyes", "°", (5, 10, 20)),
}
# The names that users give, with the measures they stand for.
GROUPINGS = {"brightness": ("brightness",), "size": ("size",), "pose": ("yaw", "roll")}


@dataclass(frozen=True)
class Band:
    """Result of the faces whose measure is at least `low` and below `high`.

    Attributes:
        name: The limits with their unit.
        low: Lower limit; None for the lowest band.
        high: Upper limit; None for the highest band.
        total: Number of faces.
        correct: Number of correctly classified faces.
        interval: 95 % Wilson interval of the accuracy, 0..1; None without faces.
        mean_recall: Mean recall of the classes that have faces here, 0..1; None without faces.
    """

    name: str
    low: float | None
    high: float | None
    total: int
    correct: int
    interval: tuple[float, float] | None
    mean_recall: float | None

    @property
    def accuracy(self) -> float | None:
        """Fraction of correctly classified faces, 0..1; None without faces."""
        return self.correct / self.total if self.total else None


@dataclass(frozen=True)
class Breakdown:
    """Accuracy by one measure, the lowest band first; `unmeasured` is the number of faces without this measure."""

    name: str
    text: str
    bands: tuple[Band, ...]
    unmeasured: int

    def as_document(self) -> dict[str, Any]:
        """Return the breakdown as a JSON object."""
        bands = [
            {
                "band": band.name,
                "low": band.low,
                "high": band.high,
                "total": band.total,
                "correct": band.correct,
                "accuracy": band.accuracy,
                "interval": band.interval and list(band.interval),
                "mean_recall": band.mean_recall,
            }
            for band in self.bands
        ]
        return {"measure": self.text, "unmeasured": self.unmeasured, "bands": bands}


def accuracy_by(evaluation: Evaluation, name: str, classes: Sequence[str] = ()) -> Breakdown:
    """Return the accuracy in bands of one measure of the faces.

    Args:
        evaluation: Predictions with measures: `PhotoEvaluation.with_face`, or the result of `edgekit.evaluate`, which
            has the brightness only.
        name: A key of `MEASURES`: "brightness", "size", "yaw" or "roll".
        classes: Classes of the mean recall; default: all.

    Raises:
        InputError: The measure is unknown, or no face has this measure. The size needs a detector, and the pose needs a
            detector with landmarks.
    """
    if name not in MEASURES:
        raise InputError(f"measure '{name}' is unknown: expected one of {', '.join(MEASURES)}")
    if not has_measure(evaluation, name):
        raise InputError(
            f"no face has the measure '{name}': size needs photographs and a detector, pose the landmarks of yunet"
        )
    measure, values = MEASURES[name], evaluation.measures[name]
    bands = []
    for low, high in pairwise((None, *measure.edges, None)):
        # A comparison with NaN is false, so that a face without the measure is in no band.
        chosen = (values >= (-np.inf if low is None else low)) & (values < (np.inf if high is None else high))
        bands.append(_band(evaluation.subset(chosen), low, high, measure.unit, classes))
    return Breakdown(name, measure.text, tuple(bands), int(np.isnan(values).sum()))


def has_measure(evaluation: Evaluation, name: str) -> bool:
    """Return whether a measure is known of at least one face."""
    return name in evaluation.measures and not np.isnan(evaluation.measures[name]).all()


def breakdowns(evaluation: Evaluation, groupings: Sequence[str], classes: Sequence[str] = ()) -> list[Breakdown]:
    """Return the accuracy by the measures of some groupings: keys of `GROUPINGS`.

    Raises:
        InputError: As for `accuracy_by`.
    """
    names = [name for grouping in groupings for name in GROUPINGS[grouping]]
    return [accuracy_by(evaluation, name, classes) for name in names]


def brightness_of(images: ImageU8) -> NDArray[np.float64]:
    """Return the mean pixel value of each image (N, H, W, C): (N,)."""
    return np.asarray(images.mean(axis=(1, 2, 3), dtype=np.float64))


def face_measures(faces: Detections) -> dict[str, float]:
    """Return the size in pixels, and with landmarks the yaw and roll in degrees, of the first face."""
    x0, y0, x1, y1 = faces.xyxy[0].tolist()
    yaw, roll = (math.nan, math.nan) if faces.landmarks_xy is None else head_angles_deg(faces.landmarks_xy[0])
    return {"size": min(x1 - x0, y1 - y0), "yaw": yaw, "roll": roll}


def head_angles_deg(landmarks_xy: FloatArray) -> tuple[float, float]:
    """Return yaw and roll of a head in degrees, both without sign, estimated from its landmarks.

    The yaw is the angle at which a nose tip `_NOSE_DEPTH` eye distances in front of the eyes appears as far from their
    midpoint, measured along the line of the eyes, as it does here. The roll is the angle of that line.

    Args:
        landmarks_xy: float32 (5, 2), as `Detections.landmarks_xy`.
    """
    left, right, nose = landmarks_xy[:3].astype(np.float64)
    line = right - left
    distance = float(np.hypot(*line))
    offset = abs(float((nose - (left + right) / 2) @ line)) / max(distance, 1e-9)
    yaw = math.degrees(math.atan2(offset, _NOSE_DEPTH * distance))
    return yaw, math.degrees(abs(math.atan2(line[1], line[0])))


def stacked(measures: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float64]]:
    """Return the measures of several faces as one array (N,) per measure."""
    return {name: np.array([each[name] for each in measures]) for name in (measures[0] if measures else ())}


def _band(part: Evaluation, low: float | None, high: float | None, unit: str, classes: Sequence[str]) -> Band:
    unit = f" {unit}" if unit.isalpha() else unit
    if low is None:
        limits = f"below {high:g}{unit}"
    else:
        limits = f"{low:g}{unit} and more" if high is None else f"{low:g} to {high:g}{unit}"
    interval = wilson_interval(part.correct, part.total) if part.total else None
    recall = mean_recall(part.per_class, classes) if part.total else None
    return Band(limits, low, high, part.total, part.correct, interval, recall)
