"""What the pipeline found in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FaceResult:
    """One face: its box (left, top, right, bottom in frame pixels), the detector's score and the classifier's answer.

    `probabilities` maps every label of the model, in its order, to a probability. `label` is the most probable one and
    `probability` its value; where a face is followed over frames, all three are smoothed in time and `label` changes
    only when another one clearly leads. `track_id` is the same for one face in all frames it is followed through,
    counts from 1 and is never given twice in a run; None where nothing is followed (pictures that are no sequence).
    `detected` tells a box that the detector found in this very frame from one that was tracked into it.
    """

    xyxy: tuple[float, float, float, float]
    score: float
    label: str
    probability: float
    probabilities: Mapping[str, float]
    track_id: int | None = None
    detected: bool = True


@dataclass(frozen=True)
class FrameResult:
    """One frame: its capture times, its faces and what they cost.

    `monotonic_s` never jumps, `wall_s` (Unix time) does when a board without a clock battery learns the time.
    `stage_ms` maps the stages that ran so far to their time; `age_ms` is the time from capture to this result. `health`
    is the state of board and process (`health.Health.as_document`) in the first result after each sample of it. `file`
    is the picture's, where every frame has its own.
    """

    sequence: int
    monotonic_s: float
    wall_s: float
    frame_wh: tuple[int, int]
    faces: tuple[FaceResult, ...]
    stage_ms: Mapping[str, float]
    age_ms: float
    health: Mapping[str, Any] | None = None
    file: str | None = None
