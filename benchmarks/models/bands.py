"""(module) Accuracy in bands of what is measured of each face: brightness, size, and pose by the landmarks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import Contract
from edgekit.device.frame import Frame
from edgekit.device.imaging import as_frame, decode_image
from edgekit.device.pipeline.loop import crop_faces
from edgekit.errors import InputError
from edgekit.models.data.files import open_files
from edgekit.models.data.photos import PhotoDetector, labelled_photos
from edgekit.models.evaluation.evaluate import Evaluation, mean_recall
from edgekit.preprocess import FloatArray
from edgekit.report.statistics import wilson_interval

# Distance of the nose tip from the plane of the eyes, in distances between the eyes: a mean adult face.
_NOSE_DEPTH = 0.6
# Text, unit, and the lower edges of the bands above the lowest one.
MEASURES: Mapping[str, tuple[str, str, tuple[float, ...]]] = {
    "brightness": ("mean pixel value of the crop, 0 to 255", "", (60, 100, 140)),
    "size": ("short side of the face box in the photograph", " px", (48, 96, 144)),
    "yaw": ("angle by which the head is turned to one side, estimated from nose and eyes", "°", (10, 20, 35)),
    "roll": ("angle by which the head is tilted to one side, estimated from the eyes", "°", (5, 10, 20)),
}
Values = NDArray[np.float64]


def measured_faces(photos: Path, detector: str, contract: Contract) -> dict[str, Values]:
    """Return the measures of the largest face of each photograph, in the order of `PhotoEvaluation.with_face`."""
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    faces_of = PhotoDetector(detector, notify=lambda _: None)
    with open_files(photos) as files:
        for entry in labelled_photos(files, str(photos), lambda _: None):
            if entry.class_name not in contract.labels:
                continue
            try:
                image = as_frame(decode_image(files.read(entry.path), entry.name))
            except InputError:
                continue
            if len(faces := faces_of.detect(image)):
                x0, y0, x1, y1 = faces.xyxy[0].tolist()
                crop = crop_faces(Frame(0, 0.0, 0.0, image), faces[:1], contract)
                has_pose = faces.landmarks_xy is not None
                yaw, roll = head_angles_deg(faces.landmarks_xy[0]) if has_pose else (math.nan, math.nan)
                values = (crop.mean(dtype=np.float64), min(x1 - x0, y1 - y0), yaw, roll)
                for name, value in zip(MEASURES, values, strict=True):
                    found[name].append(float(value))
    return {name: np.array(values) for name, values in found.items()}


def head_angles_deg(landmarks_xy: FloatArray) -> tuple[float, float]:
    """Return yaw and roll of a head in degrees, both without sign, from its landmarks (5, 2)."""
    left, right, nose = landmarks_xy[:3].astype(np.float64)
    line = right - left
    distance = float(np.hypot(*line))
    offset = abs(float((nose - (left + right) / 2) @ line)) / max(distance, 1e-9)
    return math.degrees(math.atan2(offset, _NOSE_DEPTH * distance)), math.degrees(abs(math.atan2(line[1], line[0])))


def in_bands(result: Evaluation, name: str, values: Values, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the accuracy of an evaluation in bands of one measure (N,), ready for JSON; faces with NaN are in none."""
    text, unit, edges = MEASURES[name]
    bands = []
    for low, high in pairwise((None, *edges, None)):
        chosen = (values >= (-np.inf if low is None else low)) & (values < (np.inf if high is None else high))
        part = result.subset(chosen)
        limits = f"{low:g}{unit} and more" if high is None else f"{low} to {high:g}{unit}"
        bands.append(
            {
                "band": f"below {high:g}{unit}" if low is None else limits,
                "total": part.total,
                "accuracy": part.accuracy if part.total else None,
                "interval": list(wilson_interval(part.correct, part.total)) if part.total else None,
                "mean_recall": mean_recall(part.per_class, classes) if part.total else None,
            }
        )
    return {"measure": text, "bands": bands}
