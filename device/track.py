"""`Track`: what the runtime keeps of a followed face from frame to frame, in one object that the tracker owns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.preprocess import FloatArray


@dataclass
class Classification:
    """The classifications of a track; times are presentation times in seconds.

    Attributes:
        raw: The classifier's last output (classes,).
        mean: Its average over time (classes,).
        shown: `mean` as it is shown with `label` (classes,).
        label: The index of the label.
        classified_s: Time of the last classification.
        seen_s: Time of the latest frame.
        since_s: Average, as `mean`, of the time since the last classification.
        frames: Frames since the last classification.
        uncertain: Whether the largest of `shown` is below the threshold, with hysteresis.
        is_close: Whether a small change of the largest of `shown` would change `uncertain`.
        is_blank: Whether the crop that was classified last shows too little to have a label.
        distance: Its distance from the model's classes, see `Contract.distance`; NaN: the model has none.
        is_unlike: Whether the distance exceeds the threshold, with hysteresis.
        crop: The crop of the latest frame in the form that the classification schedule compares.
        classified_crop: The crop that was classified last, in the same form.
    """

    raw: FloatArray
    mean: FloatArray
    shown: FloatArray
    label: int
    classified_s: float
    seen_s: float
    since_s: float = 0.0
    frames: int = 0
    uncertain: bool = False
    is_close: bool = False
    is_blank: bool = False
    distance: float = math.nan
    is_unlike: bool = False
    crop: FloatArray | None = None
    classified_crop: FloatArray | None = None


@dataclass(eq=False)
class Track:
    """A followed face, or the only box of a model of whole images; it ends when the tracker drops the face.

    The stages of the pipeline run in threads, up to one frame apart. So each field belongs to one stage, which alone
    reads and writes it: to tracking up to `landmarks_xy`, to classification `classification`, to the sinks `states`.
    All stages read `id`, which never changes, and `ended_s`. What they need of another stage is in the `Detections` of
    their frame.

    Attributes:
        id: Counts from 1 and is used once.
        xyxy: float32 (4,): left, top, right, bottom in pixels of the frame.
        score: The score of the last detection.
        seen_s: Presentation time of the last detection.
        speed_xy: Speed of the centre in pixels per second, float32 (2,).
        hidden: The last detection did not find the face.
        detected: The detector found the box in this frame.
        landmarks_xy: float32 (5, 2), as `Detections.landmarks_xy`; None for a box that the detector did not find now.
        ended_s: Presentation time of the frame in which the track ended. It is set before any stage gets this frame, so
            that a comparison with the time of the stage's own frame does not depend on the threads.
        classification: None before the first classification.
        states: What sinks keep of the face, by the object that keeps it.
    """

    id: int
    xyxy: FloatArray = field(default_factory=lambda: np.zeros(4, np.float32))
    score: float = 1.0
    seen_s: float = 0.0
    speed_xy: FloatArray = field(default_factory=lambda: np.zeros(2, np.float32))
    hidden: bool = False
    detected: bool = True
    landmarks_xy: FloatArray | None = None
    ended_s: float = math.inf
    classification: Classification | None = None
    states: dict[object, Any] = field(default_factory=dict)
