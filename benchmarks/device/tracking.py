"""Face tracking between detections, compared with detection on every frame and with holding the last box.

    python benchmarks/device/tracking.py --detector-model face_detection_yunet_2026may.onnx --media ../shared/data/media

The clips are real videos and the made clip: real faces that move, grow, cross, enter and leave, with known boxes
(`moving_faces.py`). The reference is YuNet at 320 pixels on every frame. The agreement of holding the last box shows
how hard a clip is: on the made clip it must be below the required one.

Prints four figures per clip:
- agreement: share of the reference's boxes with a match (one to one, intersection over union of 0.5 or more);
- strays: share of the boxes without a match in the reference;
- switches: how often the id of a face changes;
- cost: time of detection and tracking on frames in memory, divided by the time of detection on every frame (median
  ratio of the pairs of `pairs.py`).

The exit code is 3 if a requirement is not met.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from moving_faces import FPS, KnownFace, cut_out, moving_faces
from rich.console import Console
from rich.table import Table

from edgekit.boards import read_board
from edgekit.device.detection import DEFAULT_SCORE_THRESHOLD
from edgekit.device.detection.yunet import YuNet
from edgekit.device.detections import Detections
from edgekit.device.engines.session import versions
from edgekit.device.frame import Frame
from edgekit.device.imaging import read_image
from edgekit.device.sources import open_source
from edgekit.device.stages import StageTimer
from edgekit.device.tracking.detection_schedule import Adaptive, Every, Schedule
from edgekit.device.tracking.face_tracker import FaceTracker
from edgekit.device.tracking.tracks import iou
from edgekit.errors import EdgekitError
from edgekit.model_store import asset
from edgekit.preprocess import ImageU8

sys.path.append(str(Path(__file__).resolve().parents[1]))
from pairs import time_pairs

MIN_IOU = 0.5
REQUIRED_AGREEMENT = 0.95
ALLOWED_STRAYS = 0.05
ALLOWED_COST = 0.75
DETECTOR_SIZE_PX = 320
MADE = "made"


@dataclass(frozen=True)
class FrameCache:
    """Frames in memory; `known` has the known faces of each frame of the made clip, and is None for other clips."""

    name: str
    fps: float
    images: list[ImageU8]
    known: list[list[KnownFace]] | None = None

    def frames(self) -> list[Frame]:
        return [Frame(index, index / self.fps, index / self.fps, image) for index, image in enumerate(self.images)]


@dataclass(frozen=True)
class Figures:
    """Results of tracking, and of holding the last box, on one clip; see the module's docstring.

    `correct` is the share of the visible known faces for which tracking has a box, `reference_correct` that for which
    the reference has one.
    """

    clip: str
    frames: int
    faces: int
    detected_frames: int
    agreement: float
    strays: float
    hold_agreement: float
    switches: int
    cost: float
    costs: tuple[float, ...]
    correct: float | None = None
    reference_correct: float | None = None
    hold_correct: float | None = None

    @property
    def faults(self) -> list[str]:
        """The requirements that are not met."""
        found = []
        if self.agreement < REQUIRED_AGREEMENT:
            found.append(f"agreement {self.agreement:.3f} < {REQUIRED_AGREEMENT}")
        if self.strays > ALLOWED_STRAYS:
            found.append(f"strays {self.strays:.3f} > {ALLOWED_STRAYS}")
        if self.switches > self.faces:
            found.append(f"{self.switches} switches > {self.faces} faces")
        if self.cost > ALLOWED_COST:
            found.append(f"cost {self.cost:.2f} > {ALLOWED_COST}")
        if self.clip == MADE and self.hold_agreement >= REQUIRED_AGREEMENT:
            found.append(f"holding the last box agrees too ({self.hold_agreement:.3f}): the clip is too easy")
        return found


def real_clip(path: Path) -> FrameCache:
    with open_source(str(path), lambda text: click.echo(text, err=True)) as source:
        return FrameCache(path.stem, source.fps or FPS, [frame.image_bgr for frame in source])


def made_clip(detector: YuNet, media: Path | None) -> FrameCache:
    """Return the made clip, composed of the bundled portrait and, with `media`, two more faces."""
    portrait = read_image(asset("astronaut.png"))
    pictures = [portrait, np.ascontiguousarray(portrait[:, ::-1])]
    background = np.full((480, 640, 3), 96, np.uint8)
    if media is not None:
        pictures.append(read_image(media / "three_faces.jpg"))
        background = read_image(media / "coffee.png")
    cutouts = [cut_out(picture, box) for picture in pictures for box in detector.detect(picture).xyxy[:2]]
    images, known = moving_faces(cutouts, background)
    return FrameCache(MADE, FPS, images, known)


def follow(face_tracker: FaceTracker, clip: FrameCache) -> list[Detections]:
    return [face_tracker.find(frame, StageTimer()) for frame in clip.frames()]


def hold(found: Sequence[Detections], reference: Sequence[Detections], searched: Sequence[bool]) -> list[Detections]:
    """Return the boxes of holding: those of the last frame with a detection, repeated until the next detection."""
    held, last = [], found[0]
    for faces, is_searched in zip(reference, searched, strict=True):
        last = faces if is_searched else last
        held.append(last)
    return held


def partners(wanted: np.ndarray, given: np.ndarray) -> list[int | None]:
    """Return, for each wanted box, the index of its match in `given` or None: one to one, largest overlap first."""
    partner: list[int | None] = [None] * len(wanted)
    overlaps = iou(wanted.reshape(-1, 4), given.reshape(-1, 4))
    while overlaps.size and overlaps.max() >= MIN_IOU:
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        partner[int(row)] = int(column)
        overlaps[row], overlaps[:, column] = 0, 0
    return partner


def agreement(wanted: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the share of wanted boxes with a match, and the share of given boxes without one."""
    pairs = [partners(a, b) for a, b in zip(wanted, given, strict=True)]
    met = sum(partner is not None for frame in pairs for partner in frame)
    total, offered = sum(map(len, wanted)), sum(map(len, given))
    return met / total if total else 1.0, 1 - met / offered if offered else 0.0


def switches(clip: FrameCache, found: Sequence[Detections]) -> tuple[int, int]:
    """Return the number of faces, and how often a face continued under another id."""
    if clip.known is None:
        # Real clips show one face: every further id is a switch.
        ids = [track_id for faces in found for track_id in faces.track_ids]
        return 1, len(set(ids)) - 1
    current: dict[int, int | None] = {}
    count = 0
    for known, faces in zip(clip.known, found, strict=True):
        partner = partners(np.array([face.xyxy for face in known]), faces.xyxy)
        for face, index in zip(known, partner, strict=True):
            if index is not None:
                track_id = faces.track_ids[index]
                count += face.who in current and current[face.who] != track_id
                current[face.who] = track_id
    return len(current), count


def measure(clip: FrameCache, detector: YuNet, every: str, rounds: int) -> Figures:
    def schedule() -> Schedule:
        return Adaptive() if every == "auto" else Every(int(every))

    reference = follow(FaceTracker(detector, None), clip)
    counting = _Counting(detector)
    found, searched = [], []
    follower = FaceTracker(counting, schedule())
    for frame in clip.frames():
        before = counting.calls
        found.append(follower.find(frame, StageTimer()))
        searched.append(counting.calls > before)
    held = hold(found, reference, searched)
    boxes = [[faces.xyxy for faces in way] for way in (reference, found, held)]
    agree, strays = agreement(boxes[0], boxes[1])
    correct: list[float | None] = [None, None, None]
    if clip.known is not None:
        visible = [np.array([face.xyxy for face in known if face.visible]) for known in clip.known]
        correct = [agreement(visible, way)[0] for way in boxes]
    faces, switched = switches(clip, found)

    pairs = time_pairs(
        lambda _: follow(FaceTracker(detector, None), clip),
        lambda _: follow(FaceTracker(detector, schedule()), clip),
        rounds,
    )
    return Figures(
        clip=clip.name,
        frames=len(clip.images),
        faces=faces,
        detected_frames=sum(searched),
        agreement=agree,
        strays=strays,
        hold_agreement=agreement(boxes[0], boxes[2])[0],
        switches=switched,
        cost=pairs.ratio,
        costs=pairs.ratios,
        correct=correct[1],
        reference_correct=correct[0],
        hold_correct=correct[2],
    )


class _Counting:
    """A detector that counts how often `detect` is called."""

    def __init__(self, detector: YuNet) -> None:
        self.name = detector.name
        self._detector = detector
        self.calls = 0

    def detect(self, image_bgr: ImageU8):
        self.calls += 1
        return self._detector.detect(image_bgr)


def show(figures: Sequence[Figures], console: Console) -> None:
    table = Table(title="Tracking, against YuNet on every frame", title_justify="left")
    columns = ("clip", "searched", "agreement", "strays", "holding", "switches", "cost", "known faces: ref/ours/hold")
    for name in columns:
        table.add_column(name, justify="left" if name == "clip" else "right")
    for item in figures:
        known = [value for value in (item.reference_correct, item.correct, item.hold_correct) if value is not None]
        table.add_row(
            item.clip,
            f"{item.detected_frames}/{item.frames}",
            f"{item.agreement:.3f}",
            f"{item.strays:.3f}",
            f"{item.hold_agreement:.3f}",
            f"{item.switches} of {item.faces}",
            f"{item.cost:.2f}",
            " / ".join(f"{value:.3f}" for value in known),
        )
    console.print(table)


@click.command()
@click.option("--detector-model", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--media", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of real clips.")
@click.option("--detect-every", "every", default="auto", show_default=True, metavar="N|auto")
@click.option("--rounds", default=5, show_default=True)
@click.option("--save-made", type=click.Path(path_type=Path), metavar="MP4", help="Write the made clip with its boxes.")
@click.option("--json", "as_json", is_flag=True)
def main(
    detector_model: Path, media: Path | None, every: str, rounds: int, save_made: Path | None, as_json: bool
) -> None:
    """Measure; exit with 3 if a requirement is not met."""
    cv2.setNumThreads(1)
    try:
        detector = YuNet(detector_model, DETECTOR_SIZE_PX, DEFAULT_SCORE_THRESHOLD, intra_op_threads=1)
        clips = [real_clip(path) for path in sorted(media.glob("*.mp4"))] if media else []
        clips.append(made_clip(detector, media))
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    if save_made:
        _save(clips[-1], save_made)
    figures = [measure(clip, detector, every, rounds) for clip in clips]
    show(figures, Console(stderr=as_json))
    if as_json:
        document = {"board": asdict(read_board()), "versions": versions(), "clips": [asdict(item) for item in figures]}
        click.echo(json.dumps(document, indent=2))
    faults = [f"{item.clip}: {fault}" for item in figures for fault in item.faults]
    for fault in faults:
        click.echo(f"refused: {fault}", err=True)
    if faults:
        raise SystemExit(3)


def _save(clip: FrameCache, path: Path) -> None:
    size_wh = clip.images[0].shape[1], clip.images[0].shape[0]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), clip.fps, size_wh)
    for image, known in zip(clip.images, clip.known or [], strict=True):
        canvas = image.copy()
        for face in known:
            x0, y0, x1, y1 = (round(float(value)) for value in face.xyxy)
            cv2.rectangle(canvas, (x0, y0), (x1, y1), (0, 255, 0) if face.visible else (0, 0, 255), 2)
        writer.write(canvas)
    writer.release()


if __name__ == "__main__":
    main()
