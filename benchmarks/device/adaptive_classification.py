"""Labels of adaptive classification (the default of `edgekit run`) against classifying every frame.

    python benchmarks/device/adaptive_classification.py --media FOLDER --fer2013 fer2013.tar.gz \\
        --detector-model face_detection_yunet_2026may.onnx

The clips are those of the folder and two generated ones: faces of FER-2013 on four moving tracks, each replaced by a
face of another class every two seconds, at once or by a dissolve of half a second. Detection and tracking run once per
clip, so that all schedules classify the same boxes. Per clip and schedule:

- classified: the share of faces that were classified;
- equal: the share of faces whose label is that of classifying every frame;
- late: of the label changes that last 0.3 s when every frame is classified, those that appear more than 0.3 s later.

The gate requires that `auto` classifies at most a third, that at least 98 % of its labels are equal and that no change
is late, on every clip; and that every tenth frame fails. Exit code 3 if it does not hold.
"""

from __future__ import annotations

import itertools
import re
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from edgekit.device.detection import Detector, create_detector
from edgekit.device.detections import Detections, FrameResult
from edgekit.device.engines.classifier import Classifier
from edgekit.device.frame import Frame, presentation_time_s
from edgekit.device.imaging import as_frame, decode_image
from edgekit.device.pipeline.classification_schedule import ClassifyEvery
from edgekit.device.pipeline.loop import classify
from edgekit.device.pipeline.smoothing import DEFAULT_SMOOTHING_S
from edgekit.device.sources import open_source
from edgekit.device.stages import StageTimer
from edgekit.device.track import Track
from edgekit.device.tracking.detection_schedule import Adaptive
from edgekit.device.tracking.face_tracker import FaceTracker
from edgekit.errors import EdgekitError
from edgekit.model_store import resolve_model
from edgekit.preprocess import ImageU8

sys.path.append(str(Path(__file__).resolve().parent))
from moving_faces import FPS, Cutout, cut_out, moving_faces

CLIPS = ("carphone_pristine.mp4", "fer_test.mp4")
MOST_CLASSIFIED, LEAST_EQUAL = 1 / 3, 0.98
# Label changes that last this long must appear within this time.
LATE_S = 0.3
_FRAMES = 300
# Frames between two changes of expression, frames by which the changes of the tracks differ, and those of a dissolve.
_HELD_FRAMES, _APART_FRAMES, _DISSOLVE_FRAMES = 50, 11, 12
_TRACKS = 4
_SIDE_PX = 160
# Smallest probability of the right class in a face that is shown: other faces have no label that could change.
_CLEAR = 0.7


@dataclass(frozen=True)
class Tracked:
    """A frame with its tracked faces and its presentation time."""

    frame: Frame
    faces: Detections
    time_s: float


@dataclass(frozen=True)
class Agreement:
    """Agreement of a schedule with classifying every frame; counts of faces, and of label changes that lasted."""

    faces: int
    classified: int
    equal: int
    changes: int
    late: int

    @property
    def passes(self) -> bool:
        """Whether the gate accepts this clip."""
        few = self.classified <= MOST_CLASSIFIED * self.faces
        return few and self.equal >= LEAST_EQUAL * self.faces and not self.late


def track(frames: Sequence[Frame], times_s: Sequence[float], detector: Detector) -> list[Tracked]:
    """Return the frames with their faces, tracked as by `edgekit run`."""
    clock = dict(zip((frame.sequence for frame in frames), times_s, strict=True))
    tracker = FaceTracker(detector, Adaptive(), presentation_time_s=lambda frame: clock[frame.sequence])
    return [
        Tracked(frame, tracker.find(frame, StageTimer()), time_s) for frame, time_s in zip(frames, times_s, strict=True)
    ]


def track_clip(path: Path, detector: Detector) -> list[Tracked]:
    """Return the tracked frames of a video file."""
    with open_source(str(path), lambda text: click.echo(text, err=True)) as source:
        clock = presentation_time_s(source)
        frames = list(source)
        return track(frames, [clock(frame) for frame in frames], detector)


def results(tracked: Sequence[Tracked], classifier: Classifier, every: ClassifyEvery) -> list[FrameResult]:
    """Return the classified frames for a schedule."""
    # Each schedule has tracks of its own, because classification keeps its state in them.
    tracks = {track.id: Track(track.id) for item in tracked for track in item.faces.tracks}
    found = []
    for item in tracked:
        own = np.array([tracks[track.id] for track in item.faces.tracks], np.object_)
        faces = replace(item.faces, tracks=own)
        found.append(classify(item.frame, faces, classifier, StageTimer(), item.time_s, DEFAULT_SMOOTHING_S, every))
    return found


def compare(tracked: Sequence[Tracked], expected: Sequence[FrameResult], actual: Sequence[FrameResult]) -> Agreement:
    """Return the agreement of `actual` with `expected`, the results of classifying every frame."""
    pairs = [
        pair for both in zip(expected, actual, strict=True) for pair in zip(*(each.faces for each in both), strict=True)
    ]
    changes = list(label_changes(tracked, expected))
    labels = [{face.track_id: face.label for face in result.faces} for result in actual]
    noticed = sum(
        any(
            labels[index].get(track_id) == label
            for index in range(first, len(labels))
            if tracked[index].time_s <= tracked[first].time_s + LATE_S + 1e-6
        )
        for first, track_id, label in changes
    )
    return Agreement(
        faces=len(pairs),
        classified=sum(face.classified for _, face in pairs),
        equal=sum(face.label == other.label for face, other in pairs),
        changes=len(changes),
        late=len(changes) - noticed,
    )


def label_changes(tracked: Sequence[Tracked], expected: Sequence[FrameResult]) -> Iterator[tuple[int, int, str]]:
    """Yield frame index, track id and new label of each change of a label that lasts `LATE_S`."""
    tracks: dict[int, list[tuple[int, str]]] = {}
    for index, result in enumerate(expected):
        for face in result.faces:
            tracks.setdefault(face.track_id or 0, []).append((index, face.label))
    for track_id, shown in tracks.items():
        runs = [list(run) for _, run in itertools.groupby(shown, key=lambda item: item[1])]
        for run in runs[1:]:
            if tracked[run[-1][0]].time_s - tracked[run[0][0]].time_s >= LATE_S:
                yield run[0][0], track_id, run[0][1]


def expressions(archive: Path, classifier: Classifier, detector: Detector, count: int) -> list[Cutout]:
    """Return `count` faces of FER-2013's validation split that are detected and clearly right, by changing class."""
    by_class: dict[str, list[ImageU8]] = {}
    with tarfile.open(archive) as files:
        for member in files:
            match = re.search(r"/test/(\w+)/PublicTest_\d+\.jpg$", member.name)
            if match and len(images := by_class.setdefault(match[1], [])) < 60:
                content = files.extractfile(member)
                assert content is not None
                images.append(as_frame(decode_image(content.read(), member.name)))
    found: dict[str, list[Cutout]] = {}
    for name, images in sorted(by_class.items()):
        for image in images:
            picture = framed(image)
            faces = detector.detect(picture)
            if name not in classifier.labels or len(faces) != 1:
                continue
            result = classify(Frame(0, 0.0, 0.0, picture), faces, classifier, StageTimer())
            if result.faces[0].label == name and result.faces[0].probability >= _CLEAR:
                found.setdefault(name, []).append(cut_out(picture, faces.xyxy[0]))
    turns = itertools.chain.from_iterable(itertools.zip_longest(*found.values()))
    cutouts = [cutout for cutout in turns if cutout is not None][:count]
    if len(cutouts) < count:
        raise click.ClickException(f"'{archive}' has {len(cutouts)} clear faces: expected {count}")
    return cutouts


def framed(image_bgr: ImageU8) -> ImageU8:
    """Return a face of FER-2013 enlarged, with a blurred margin in which a detector finds it."""
    large = cv2.resize(image_bgr, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_CUBIC)
    margin = _SIDE_PX // 2
    wide = cv2.copyMakeBorder(large, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    blurred = cv2.GaussianBlur(wide, (0, 0), 12)
    blurred[margin:-margin, margin:-margin] = large
    return np.asarray(blurred, np.uint8)


def generated(cutouts: Sequence[Cutout], background_bgr: ImageU8, dissolve: bool) -> list[Frame]:
    """Return the generated clip; track `who` shows its next cutout every `_HELD_FRAMES` frames."""

    def shown(who: int, index: int) -> Cutout:
        turn, age = divmod(index + _APART_FRAMES * who, _HELD_FRAMES)
        after, before = (cutouts[(step * _TRACKS + who) % len(cutouts)] for step in (turn, turn - 1))
        if not dissolve or age >= _DISSOLVE_FRAMES or turn == 0:
            return after
        return dissolved(before, after, (age + 1) / (_DISSOLVE_FRAMES + 1))

    images, _ = moving_faces(shown, background_bgr, _FRAMES)
    return [Frame(index, index / FPS, 0.0, image) for index, image in enumerate(images)]


def dissolved(before: Cutout, after: Cutout, share: float) -> Cutout:
    """Return a mixture with `share` of `after`, in its shape."""
    size_wh = (after.image_bgr.shape[1], after.image_bgr.shape[0])
    scaled = cv2.resize(before.image_bgr, size_wh, interpolation=cv2.INTER_AREA)
    mixed = cv2.addWeighted(scaled, 1 - share, after.image_bgr, share, 0)
    return Cutout(np.asarray(mixed, np.uint8), after.opacity, after.xyxy)


@click.command()
@click.option("--media", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the clips.")
@click.option("--fer2013", type=click.Path(exists=True, path_type=Path), required=True, help="Archive of FER-2013.")
@click.option("--detector-model", type=click.Path(path_type=Path), required=True, help="YuNet's file of May 2026.")
@click.option("--model", default="default", show_default=True, help="The classifier.")
def main(media: Path, fer2013: Path, detector_model: Path, model: str) -> None:
    """Compare schedules of classification with classifying every frame."""
    try:
        detector = create_detector("yunet", model_path=detector_model, notify=click.echo)
        classifier = Classifier(resolve_model(model), 1)
        cutouts = expressions(fer2013, classifier, detector, _TRACKS * (_FRAMES // _HELD_FRAMES + 2))
        background = as_frame(decode_image((media / "coffee.png").read_bytes(), "coffee.png"))
        clips = {name: track_clip(media / name, detector) for name in CLIPS}
        for name, dissolve in (("generated, cut", False), ("generated, dissolve", True)):
            frames = generated(cutouts, background, dissolve)
            clips[name] = track(frames, [frame.monotonic_s for frame in frames], detector)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    table = Table()
    for column in ("clip", "classify every", "classified", "equal labels", "late changes", "gate"):
        table.add_column(column)
    passed: dict[ClassifyEvery, list[bool]] = {}
    schedules: tuple[ClassifyEvery, ...] = ("auto", 3, 10)
    for (name, tracked), every in itertools.product(clips.items(), schedules):
        found = compare(tracked, results(tracked, classifier, 1), results(tracked, classifier, every))
        passed.setdefault(every, []).append(found.passes)
        table.add_row(
            name,
            str(every),
            f"{found.classified} of {found.faces} ({found.classified / found.faces:.1%})",
            f"{found.equal / found.faces:.2%}",
            f"{found.late} of {found.changes}",
            "passes" if found.passes else "fails",
        )
    Console(width=110).print(table)
    if not all(passed["auto"]):
        click.echo("auto fails the gate", err=True)
        sys.exit(3)
    if all(passed[10]):
        click.echo("every tenth frame passes the gate: the clips do not measure enough", err=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
