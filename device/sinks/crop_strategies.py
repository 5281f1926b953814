"""The sink of `--collect`: which crops of a run are saved for labelling, as PNG files with one JSON line for each."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np

from edgekit.contract import Contract
from edgekit.device.detections import Face, FrameResult, Track, crop_boxes
from edgekit.device.frame import Frame, presentation_time_s
from edgekit.device.imaging import at_most, resize, sharpness
from edgekit.device.sinks.context import RunContext
from edgekit.device.sinks.disk_reserve import PICTURES
from edgekit.device.sinks.picture_folder import CROPS_FILE, CROPS_FOLDER, PictureFolder
from edgekit.device.sinks.writer import Each, Writer, WriterRules
from edgekit.errors import InputError, StorageError
from edgekit.files import append_line
from edgekit.preprocess import ImageU8

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

    `box` is from `crop_boxes`.
    """

    frame: Frame
    face: Face
    box: tuple[int, int, int, int]
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
            # The crops of one track get one label. Whole images are labelled one by one, so they have no track.
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


class EveryInterval:
    """Strategy that saves all faces of one frame, then none for `interval_s` seconds."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next_s = -math.inf

    def choose(self, candidates: Sequence[Candidate], time_s: float) -> list[Crop]:
        """Return the crops to save now; called for every frame, `time_s` is its presentation time in seconds."""
        if not candidates or time_s < self._next_s:
            return []
        self._next_s = time_s + self._interval_s
        return [candidate.crop() for candidate in candidates]

    def finish(self) -> list[Crop]:
        """Return the crops to save at the end of the run."""
        return []


@dataclass
class _Best:
    """The best crop of a track so far, and when its first one was found."""

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
        """Return the crops to save now: of tracks whose window or life is over, and of faces without a track."""
        crops = []
        for candidate in candidates:
            rank, track = self._rank(candidate), candidate.track
            if rank <= 0:
                continue
            if track is None:
                crops.append(candidate.crop())
            elif track not in self._best:
                self._best[track] = _Best(rank, time_s, candidate.crop())
            elif rank > self._best[track].rank:
                self._best[track].rank, self._best[track].crop = rank, candidate.crop()
        for track, best in list(self._best.items()):
            # `ended_s` is infinite while the track exists.
            if time_s - best.since_s >= self._window_s or track.ended_s <= time_s:
                crops.append(self._best.pop(track).crop)
        return crops

    def finish(self) -> list[Crop]:
        """Return the crops to save at the end of the run."""
        crops = [best.crop for best in self._best.values()]
        self._best.clear()
        return crops


Strategy: TypeAlias = EveryInterval | BestPerTrack


def uncertain(max_margin: float) -> Strategy:
    """Return the strategy for faces whose two most probable classes differ by less than `max_margin`.

    For each track, the most uncertain crop within five seconds is saved.
    """

    def rank(candidate: Candidate) -> float:
        return max_margin - margin(candidate.face.probabilities.values())  # not above 0: the crop is not saved

    return BestPerTrack(rank, _UNCERTAIN_INTERVAL_S)


def best_of_track() -> Strategy:
    """Return the strategy that saves the largest and sharpest crop of each track when it ends."""
    return BestPerTrack(_quality, math.inf)


def margin(probabilities: Iterable[float]) -> float:
    """Return the difference between the two largest probabilities, 0 to 1; 1 if there are fewer than two."""
    largest = sorted(probabilities, reverse=True)[:2]
    return largest[0] - largest[1] if len(largest) == 2 else 1.0


def _quality(candidate: Candidate) -> float:
    """Return the quality of a crop, 0 (not usable) to 1: the product of size and sharpness, each from 0 to 1."""
    if not candidate.face.detected:
        return 0.0  # the box is an estimate of the tracker
    image = candidate.image
    size = float(min(image.shape[:2])) / MAX_SIDE_PX
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    variance = sharpness(resize(np.asarray(gray, np.uint8), (_SHARPNESS_SIDE_PX, _SHARPNESS_SIDE_PX)))
    # + 1, because a rank of 0, as that of an even crop would be, is never saved.
    return size * (variance + 1) / (variance + _HALF_SHARP)  # about a half of `size` for a variance of _HALF_SHARP


# Crops of a live source that wait for the disk.
_MOST_CROPS = 32
_MOST_FILES = 10_000


class CollectSink(Writer[Crop]):
    """Saves the crops that a strategy chooses; none are deleted, a full folder takes no more.

    Attributes:
        folder: The folder.
    """

    def __init__(self, strategy: Strategy, folder: Path, run: RunContext) -> None:
        """Continue `folder`; the crops that wait in it for labelling count towards its limits.

        Raises:
            InputError: `folder` is a file.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"'{folder}' is a file: name a folder for the crops")
        self.folder = folder
        self._strategy = strategy
        self._run = run
        self._time_s = presentation_time_s(run.source)
        rules = WriterRules(
            what=f"collecting to '{folder}'",
            most=_MOST_CROPS,
            slow="disk too slow",
            holds=True,  # crops are few and small: they wait while the disk fails
            pauses_s=(5.0,),
            reserve=run.reserve(folder, PICTURES),
        )
        most_bytes = run.rules.pictures_max_bytes
        self._pictures = PictureFolder(folder / CROPS_FOLDER, ".png", most_files=_MOST_FILES, most_bytes=most_bytes)
        # Unique across runs, also on a board whose clock is wrong.
        self._run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._saved = 0  # crops of this run, for the next name
        account = run.account("collect")
        super().__init__(Each(self._write_crop), rules, account, run.shutdown, run.notify, threaded=run.source.live)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Pass the frame's faces to the strategy and save the crops it returns."""
        self.check()
        tracks = result.faces.tracks
        contract = self._run.contract_in_use
        boxes = crop_boxes(result.faces, frame.size_wh, contract.crop.margin)
        candidates = [
            Candidate(
                frame,
                face,
                box,
                track=None if tracks is None else tracks[index],
                contract=contract,
                clock_synchronised=result.clock_synchronised,
            )
            for index, (face, box) in enumerate(zip(result.faces, boxes, strict=True))
        ]
        for crop in self._strategy.choose(candidates, self._time_s(frame)):
            self.put(crop)

    def end(self) -> None:
        """Save what the strategy still holds."""
        for crop in self._strategy.finish():
            self.put(crop)
        super().end()

    def _write_crop(self, crop: Crop) -> None:
        """Write a crop and its JSON line, or neither."""
        name = f"{self._run_id}-{self._saved + 1:05}.png"
        track = crop.document["track"]
        document = {"file": f"{CROPS_FOLDER}/{name}", **crop.document, "source": self._run.source.name}
        # Track numbers begin at 1 in each run, and a folder has the crops of many runs.
        document["track"] = None if track is None else f"{self._run_id}-{track}"
        line = (json.dumps(document, allow_nan=False) + "\n").encode()
        self._pictures.store(name, cv2.imencode(".png", crop.image)[1].tobytes())
        try:
            append_line(self.folder / CROPS_FILE, line)
        except StorageError:
            self._pictures.remove(name)
            raise
        self._saved += 1
