"""Which crops of a run are saved for labelling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Protocol

import cv2
import numpy as np

from edgekit.contract import Contract
from edgekit.device.detections import Face
from edgekit.device.frame import Frame
from edgekit.device.imaging import at_most, resize, sharpness
from edgekit.device.track import Track
from edgekit.preprocess import FloatArray, ImageU8

MAX_SIDE_PX = 256

# Shortest time between two uncertain crops of one track.
_UNCERTAIN_INTERVAL_S = 5.0
# Side of the image on which sharpness is measured, and the sharpness that counts as half sharp.
_SHARPNESS_SIDE_PX = 64
_HALF_SHARP = 100.0


@dataclass(frozen=True)
class Crop:
    """Pixels to save, uint8 (H, W) gray or (H, W, 3) B, G, R, and the JSON document about them."""

    image: ImageU8
    document: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A classified face of a frame, tracked or not.

    `box` is from `crop_boxes`, `landmarks_xy` is float32 (5, 2) or None.
    """

    frame: Frame
    face: Face
    box: tuple[int, int, int, int]
    landmarks_xy: FloatArray | None
    track: Track | None
    contract: Contract
    clock_synchronised: bool = True

    @cached_property
    def image(self) -> ImageU8:
        """The pixels that the classifier's crop is made of, at most `MAX_SIDE_PX` wide and high; may be a view."""
        # As `crop_faces` of the pipeline: a gray net gets a camera's luma as it is.
        luma = self.frame.luma if self.contract.crop.grayscale else None
        image = self.frame.image_bgr if luma is None else luma
        x0, y0, x1, y1 = self.box
        return at_most(image[y0:y1, x0:x1], MAX_SIDE_PX)

    def crop(self) -> Crop:
        """Return a copy that does not keep the frame in memory."""
        face, wall_s = self.face, self.frame.wall_s
        document = {
            "time": datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds"),
            "unix_s": round(wall_s, 3),
            "label": face.label,
            "probability": round(face.probability, 6),
            "probabilities": {label: round(value, 6) for label, value in face.probabilities.items()},
            "raw_probabilities": {label: round(value, 6) for label, value in face.raw_probabilities.items()},
            "classified": face.classified,
            "subject": self.contract.subject,
            # All crops of a track get one label: of whole images, each is labelled by itself.
            "track": face.track_id if self.contract.subject == "face" else None,
            "score": round(face.score, 4),
            "xyxy": [round(float(value), 2) for value in face.xyxy],
            "sequence": self.frame.sequence,
        }
        if self.frame.file is not None:
            document["image"] = self.frame.file
        if not self.clock_synchronised:
            document["clock_synchronised"] = False
        return Crop(np.array(self.image), document)


class Strategy(Protocol):
    """Chooses the crops to save among the faces of all frames."""

    def choose(self, candidates: Sequence[Candidate], time_s: float) -> list[Crop]:
        """Return the crops to save now; called for every frame, `time_s` is its presentation time in seconds."""
        ...

    def finish(self) -> list[Crop]:
        """Return the crops to save at the end of the run."""
        ...


class EveryInterval:
    """Strategy that saves all faces of one frame, then none for `interval_s` seconds."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = -math.inf

    def choose(self, candidates: Sequence[Candidate], time_s: float) -> list[Crop]:
        """See `Strategy`."""
        if not candidates or time_s < self._next_s:
            return []
        self._next_s = time_s + self._interval_s
        return [candidate.crop() for candidate in candidates]

    def finish(self) -> list[Crop]:
        """See `Strategy`."""
        return []


@dataclass
class _Best:
    rank: float
    since_s: float
    crop: Crop


class BestPerTrack:
    """Strategy that saves, for each track, the crop with the highest rank within `window_s` seconds or until its end.

    Faces with a rank of 0 or less are never saved. Without tracking, all faces with a higher rank are saved.
    """

    def __init__(self, rank: Callable[[Candidate], float], window_s: float) -> None:
        self._rank = rank
        self._window_s = window_s
        self._best: dict[Track, _Best] = {}

    def choose(self, candidates: Sequence[Candidate], time_s: float) -> list[Crop]:
        """See `Strategy`."""
        chosen = []
        for candidate in candidates:
            rank, track = self._rank(candidate), candidate.track
            best = None if track is None else self._best.get(track)
            if rank <= (0.0 if best is None else best.rank):
                continue
            if track is None:
                chosen.append(candidate.crop())
            else:
                self._best[track] = _Best(rank, time_s if best is None else best.since_s, candidate.crop())
        due = [
            track
            for track, best in self._best.items()
            if time_s - best.since_s >= self._window_s or track.ended_s <= time_s
        ]
        return chosen + [self._best.pop(track).crop for track in due]

    def finish(self) -> list[Crop]:
        """See `Strategy`."""
        crops = [best.crop for best in self._best.values()]
        self._best.clear()
        return crops


def uncertain(max_margin: float) -> Strategy:
    """Return the strategy for faces whose two most probable classes differ by less than `max_margin`.

    For each track, the most uncertain crop within five seconds is saved.
    """

    def rank(candidate: Candidate) -> float:
        return max_margin - margin(candidate.face.probabilities.values())

    return BestPerTrack(rank, _UNCERTAIN_INTERVAL_S)


def best_of_track() -> Strategy:
    """Return the strategy that saves the most frontal, largest and sharpest crop of each track when it ends."""
    return BestPerTrack(_quality, math.inf)


def margin(probabilities: Iterable[float]) -> float:
    """Return the difference between the two largest probabilities, 0 to 1; 1 if there are fewer than two."""
    largest = sorted(probabilities, reverse=True)[:2]
    return largest[0] - largest[1] if len(largest) == 2 else 1.0


def _quality(candidate: Candidate) -> float:
    """Return the quality of a crop, 0 (not usable) to 1: the product of size, frontality and sharpness."""
    if not candidate.face.detected:
        return 0.0  # the box is an estimate of the tracker
    image = candidate.image
    size = float(min(image.shape[:2])) / MAX_SIDE_PX
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    gray = resize(np.asarray(gray, np.uint8), (_SHARPNESS_SIDE_PX, _SHARPNESS_SIDE_PX))
    variance = sharpness(gray)
    return size * (variance + 1) / (variance + _HALF_SHARP) * _frontality(candidate.landmarks_xy)


def _frontality(landmarks_xy: FloatArray | None) -> float:
    """Return how frontal a face is: 1 for a nose midway between the eyes, 0.01 for a profile; 1 without landmarks."""
    if landmarks_xy is None:
        return 1.0
    left, right, nose = (landmarks_xy[index].astype(float) for index in range(3))
    axis = right - left
    along = float(np.dot(nose - left, axis)) / max(float(np.dot(axis, axis)), 1e-6)
    return max(1 - abs(2 * along - 1), 0.01)
