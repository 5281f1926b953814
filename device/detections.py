"""What detectors, trackers, the classifier and sinks exchange: faces, their tracks, and the result of one frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import UNCERTAIN, Subject
from edgekit.device.zones import Zone
from edgekit.preprocess import FloatArray, square_crop_box


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
        since_s: The time since the last classification, averaged over the frames since then with the weights of `mean`.
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


IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a `Detections`.

    Attributes:
        xyxy: float32 (4,): left, top, right, bottom in pixels of the frame; may lie partly outside it.
        score: The detector's score, 0 to 1.
        label: The most probable class, or "uncertain"; empty before classification.
        probability: The largest of `probabilities`.
        probabilities: The probability of each class by label, in the model's order, smoothed over time for a tracked
            face; empty before classification.
        track_id: The id of the face in all frames in which it is tracked; None without tracking.
        detected: Whether the detector found the box in this frame; False if the tracker moved the box of an earlier
            frame.
        raw_probabilities: The probabilities that the classifier returned last for this face, not smoothed.
        uncertain: Whether the label is "uncertain": `probability` is below the threshold, or was below it and has not
            clearly exceeded it since; or the crop is blank or unlike the model's classes.
        distance: How unlike the model's classes the crop is that was classified last, see `Contract.distance`; None
            for a model without a distance.
        classified: Whether `raw_probabilities` were computed in this frame; False if they are those of an earlier
            frame.
        zone: The name of the zone; None without zones.
    """

    xyxy: FloatArray
    score: float
    label: str = ""
    probability: float = 0.0
    probabilities: Mapping[str, float] = field(default_factory=dict)
    track_id: int | None = None
    detected: bool = True
    raw_probabilities: Mapping[str, float] = field(default_factory=dict)
    uncertain: bool = False
    distance: float | None = None
    classified: bool = True
    zone: str | None = None


@dataclass(frozen=True, eq=False)
class Detections:
    """The N faces of one frame as arrays, the highest score first as a detector returns them.

    Iteration yields `Face` objects, and an integer index returns one `Face`. A slice, an index array or a mask returns
    the `Detections` of these faces.

        large = detections[(detections.xyxy[:, 2] - detections.xyxy[:, 0]) > 100]
        for face in large:
            print(face.xyxy, face.label)

    Attributes:
        xyxy: float32 (N, 4): left, top, right, bottom in pixels of the frame. A box may lie partly outside the frame.
        scores: float32 (N,), 0 to 1, from the detector that last found the face. Scores of two detectors are not
            comparable.
        landmarks_xy: float32 (N, 5, 2) in pixels of the frame, as seen in the image: left eye, right eye, tip of the
            nose, left and right corner of the mouth; None if the detector has no landmarks, or did not run on this
            frame.
        tracks: The `Track` of each face (N,); None without tracking.
        detected: bool (N,), see `Face.detected`; None if the detector found all of them in this frame.
        probabilities: float32 (N, classes), smoothed over time for tracked faces; None before classification.
        classes: The names of the columns of `probabilities`.
        label_indices: int64 (N,), the column of each face's largest probability. If several are equal, it is the column
            of the face's previous label.
        raw_probabilities: float32 (N, classes), the classifier's last output for each face; None if this output is
            `probabilities`.
        uncertain: bool (N,), see `Face.uncertain`; None: no face is uncertain.
        distances: float32 (N,), see `Face.distance`; None for a model without a distance.
        classified: bool (N,), see `Face.classified`; None: all faces were classified.
        are_regions: Whether the boxes are parts of the frame in which nothing was detected: the whole frame, the region
            of interest, or zones. The classifier's crop of a region has no margin.
        zones: All zones of the run.
        zone_indices: int64 (N,), the position in `zones` of each face's zone; None without zones.
    """

    xyxy: FloatArray
    scores: FloatArray
    landmarks_xy: FloatArray | None = None
    tracks: NDArray[np.object_] | None = None
    detected: BoolArray | None = None
    probabilities: FloatArray | None = None
    classes: tuple[str, ...] = ()
    label_indices: IntArray | None = None
    raw_probabilities: FloatArray | None = None
    uncertain: BoolArray | None = None
    distances: FloatArray | None = None
    classified: BoolArray | None = None
    are_regions: bool = False
    zones: tuple[Zone, ...] = ()
    zone_indices: IntArray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Face]:
        return (self._face(index) for index in range(len(self)))

    @overload
    def __getitem__(self, index: int | np.integer) -> Face: ...

    @overload
    def __getitem__(self, index: slice | BoolArray | IntArray | list[int]) -> Detections: ...

    def __getitem__(self, index: int | np.integer | slice | BoolArray | IntArray | list[int]) -> Face | Detections:
        """Return one face for an integer, else the selected faces."""
        if isinstance(index, int | np.integer):
            return self._face(int(index))
        # Each array has one row per face; the other attributes are of the frame or the run.
        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **{name: array[index] for name, array in arrays.items()})

    @property
    def track_ids(self) -> IntArray | None:
        """The id of each face's track, int64 (N,), counted from 1, each used once per run; None without tracking."""
        return None if self.tracks is None else np.array([track.id for track in self.tracks], np.int64)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of each face; empty before classification."""
        if self.label_indices is None:
            return ()
        uncertain = np.zeros(len(self), np.bool_) if self.uncertain is None else self.uncertain
        pairs = zip(self.label_indices, uncertain, strict=True)
        return tuple(UNCERTAIN if is_uncertain else self.classes[index] for index, is_uncertain in pairs)

    def _face(self, index: int) -> Face:
        """Return one face; without classification its label and probabilities are empty."""
        box, score = self.xyxy[index], float(self.scores[index])
        track_id = None if self.tracks is None else int(self.tracks[index].id)
        detected = _row(self.detected, index, default=True)  # without tracking, each box is from the detector
        zone = None if self.zone_indices is None else self.zones[self.zone_indices[index]].name
        if self.probabilities is None or self.label_indices is None:
            return Face(box, score, track_id=track_id, detected=detected, zone=zone)
        label_index = int(self.label_indices[index])
        probabilities = self.probabilities[index].tolist()
        raw_probabilities = _row(self.raw_probabilities, index, default=probabilities)
        uncertain = _row(self.uncertain, index, default=False)
        return Face(
            box,
            score,
            track_id=track_id,
            detected=detected,
            label=UNCERTAIN if uncertain else self.classes[label_index],
            probability=probabilities[label_index],
            probabilities=dict(zip(self.classes, probabilities, strict=True)),
            raw_probabilities=dict(zip(self.classes, raw_probabilities, strict=True)),
            uncertain=uncertain,
            distance=_row(self.distances, index, default=None),
            classified=_row(self.classified, index, default=True),
            zone=zone,
        )


def _row(array: NDArray[Any] | None, index: int, default: Any) -> Any:
    """Return a row of an optional array as Python values; `default` without the array."""
    return default if array is None else array[index].tolist()


def crop_boxes(faces: Detections, frame_wh: tuple[int, int], margin: float) -> list[tuple[int, int, int, int]]:
    """Return the part of the frame that each crop shows: left, top, right, bottom in whole pixels inside the frame.

    For a detected face it is the square of `preprocess.square_crop_box` with `margin`, for a region the box itself.
    """
    if not faces.are_regions:
        return [square_crop_box(xyxy, frame_wh, margin) for xyxy in faces.xyxy]
    width, height = frame_wh
    boxes = []
    for x0, y0, x1, y1 in faces.xyxy.round().astype(int).tolist():
        # Cut to the frame, and at least one pixel wide and high.
        left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
        right, bottom = min(max(x1, left + 1), width), min(max(y1, top + 1), height)
        boxes.append((left, top, right, bottom))
    return boxes


@dataclass(frozen=True)
class FrameResult:
    """The result of one frame: its capture times, its faces and the time of each stage.

    Attributes:
        sequence: The frame's number, see `Frame.sequence`.
        monotonic_s: Capture time on the clock of `time.monotonic`, which never jumps.
        wall_s: Capture time as Unix time, which jumps when a board without a clock battery receives the network time.
        frame_wh: Width and height of the frame.
        faces: The classified faces. If `subject` is "image", there is one entry, the frame or its region of interest;
            with zones, one for each.
        stage_ms: Time of each stage before the sinks in milliseconds, by stage name.
        age_ms: Time from capture to this result.
        health: State of board and process (`Health.as_document`), in the first result after each health sample.
        file: Path of the image file, if the source consists of image files.
        position_s: Position in the video in seconds, if the source is a video file.
        subject: What the model classifies, see `Contract.subject`.
        clock_synchronised: False for a result before the board's clock was synchronised: `wall_s` may be wrong.
    """

    sequence: int
    monotonic_s: float
    wall_s: float
    frame_wh: tuple[int, int]
    faces: Detections
    stage_ms: Mapping[str, float]
    age_ms: float
    health: Mapping[str, Any] | None = None
    file: str | None = None
    position_s: float | None = None
    subject: Subject = "face"
    clock_synchronised: bool = True
