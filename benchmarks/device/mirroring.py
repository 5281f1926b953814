"""Accuracy and steadiness of labels when every other crop of a face is mirrored, as `edgekit run --mirror` does.

    python benchmarks/device/mirroring.py --photos photos.tar --clip carphone_pristine.mp4 --clip fer_test.mp4 \\
        --detector-model face_detection_yunet_2026may.onnx

Photographs: each face is classified by its crop alone, and by the mean of the probabilities of crop and mirrored crop,
which smoothing approaches.

Sequences: each of some photographs is the frame of a video for two seconds, with noise, and with a box that jitters by
2 % of its side. Measured are the share of right labels and the label changes per 100 faces of successive frames.

Clips: the same label changes, of every Nth frame.
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import edgekit
from edgekit.device.frame import Frame, RecordedSource, Source
from edgekit.device.imaging import as_frame, decode_image
from edgekit.device.pipeline.loop import crop_faces
from edgekit.device.pipeline.smoothing import Smoother
from edgekit.errors import EdgekitError
from edgekit.models.data.files import open_files
from edgekit.models.data.photos import PhotoDetector, labelled_photos
from edgekit.models.evaluation.evaluate import mean_recall
from edgekit.preprocess import FloatArray, ImageU8, softmax

_SEQUENCE_FRAMES = 60
_SEQUENCE_FPS = 30
_JITTER = 0.02
# Standard deviation of the noise, in levels of 0 to 255.
_NOISE = 4.0
_FIVE = ("angry", "happy", "sad", "surprise", "neutral")


@click.command()
@click.option("--photos", type=click.Path(path_type=Path), help="Folder or archive of class folders.")
@click.option("--clip", "clips", multiple=True, type=click.Path(path_type=Path))
@click.option("--every", multiple=True, type=int, default=(1, 3, 6), show_default=True, metavar="N")
@click.option("--model", default="default", show_default=True)
@click.option("--sequences", default=300, show_default=True, help="Number of photographs that become sequences.")
@click.option("--detector-model", type=click.Path(path_type=Path))
def main(photos: Path | None, clips: tuple[Path, ...], every: tuple[int, ...], model: str, **options: Any) -> None:
    """Compare labels with and without mirrored crops."""
    try:
        if photos is not None:
            on_photos(photos, model, options["detector_model"])
            on_sequences(photos, model, options["detector_model"], options["sequences"])
        for clip, step in itertools.product(clips, every):
            on_clip(clip, step, model, options["detector_model"])
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


class WithMirrored:
    """A classifier whose probabilities are the mean over a crop and its mirrored crop."""

    def __init__(self, classifier: edgekit.Classifier) -> None:
        self.contract = classifier.contract
        self._classifier = classifier

    def logits(self, crops: ImageU8) -> FloatArray:
        """Return the logarithms of the mean probabilities (N, classes)."""
        both = [softmax(self._classifier.logits(images)) for images in (crops, np.ascontiguousarray(crops[:, :, ::-1]))]
        return np.log(np.maximum(np.mean(both, axis=0), np.finfo(np.float32).tiny))


class EveryNth(RecordedSource):
    """Every Nth frame of a recording, at its time in the recording."""

    def __init__(self, source: Source, step: int) -> None:
        self._source = source
        self._step = step
        self.name, self.fps, self.frame_count = source.name, source.fps, source.frame_count

    def __iter__(self) -> Iterator[Frame]:
        return itertools.islice(self._source, None, None, self._step)


class Changes(edgekit.Sink):
    """Counts the faces that were in the frame before, and those of them whose label changed."""

    def __init__(self) -> None:
        self.faces = 0
        self.changed: Counter[str] = Counter()
        self._labels: dict[int | None, dict[str, str]] = {}

    def write(self, frame: Frame, result: edgekit.FrameResult) -> None:
        """Compare the labels of a frame with those of the frame before."""
        del frame
        labels = {
            face.track_id: {
                "label": face.label,
                "unsmoothed": max(face.raw_probabilities, key=face.raw_probabilities.__getitem__),
            }
            for face in result.faces
        }
        for track_id in labels.keys() & self._labels.keys():
            self.faces += 1
            before, now = self._labels[track_id], labels[track_id]
            self.changed.update(kind for kind in now if now[kind] != before[kind])
        self._labels = labels


def on_photos(photos: Path, model: str, detector_model: Path | None) -> None:
    """Print accuracy, mean recall and calibration of crops alone and with their mirrored crops."""
    classifier = edgekit.load_model(model)
    models = {"crop": classifier, "crop and mirrored crop": WithMirrored(classifier)}
    results = edgekit.evaluate_photos(list(models.values()), photos, detector_model=detector_model)
    for name, result in zip(models, results, strict=True):
        print(
            f"{name}: {result.accuracy:.2%} right ({result.with_face.correct} of {result.total}), "
            f"mean recall of five {mean_recall(result.per_class, _FIVE):.2%}, "
            f"calibration error {result.with_face.calibration.expected_error:.3f}",
            flush=True,
        )


def on_sequences(photos: Path, model: str, detector_model: Path | None, count: int) -> None:
    """Print accuracy and label changes of photographs shown as sequences, for several frame rates."""
    classifier = edgekit.load_model(model)
    random = np.random.default_rng(0)
    tallies = {(step, mirror): Counter[str]() for step, mirror in itertools.product((1, 3, 6, 15), (False, True))}
    for image_bgr, xyxy, truth in faces_of_photos(photos, detector_model, classifier.labels, count):
        frames = (jittered(image_bgr, xyxy, random) for _ in range(_SEQUENCE_FRAMES))
        crops = np.concatenate([crop_faces(*frame, classifier.contract) for frame in frames])
        plain, mirrored = (classifier.probabilities(each) for each in (crops, np.ascontiguousarray(crops[:, :, ::-1])))
        for (step, mirror), tally in tallies.items():
            labels = shown_labels(plain[::step], mirrored[::step], Smoother(mirror=mirror), step / _SEQUENCE_FPS)
            tally["right"] += labels.count(classifier.labels.index(truth))
            tally["changed"] += sum(map(operator.ne, labels, labels[1:]))
            tally.update(faces=len(labels), pairs=len(labels) - 1, sequences=1)
    for (step, mirror), tally in tallies.items():
        kind = "mirrored" if mirror else "plain"
        print(
            f"{tally['sequences']} sequences at {_SEQUENCE_FPS / step:g} frames/s, {kind}: "
            f"{tally['right'] / tally['faces']:.2%} of {tally['faces']} labels right, "
            f"{100 * tally['changed'] / tally['pairs']:.2f} changes per 100",
            flush=True,
        )


def shown_labels(plain: FloatArray, mirrored: FloatArray, smoother: Smoother, step_s: float) -> list[int]:
    """Return the label of each frame of a face from the probabilities (frames, classes) of its two crops."""
    labels, track = [], np.array([1])
    for index, both in enumerate(zip(plain, mirrored, strict=True)):
        chosen = smoother.mirrored(track, index * step_s)
        row = both[int(chosen is not None and chosen[0])]
        labels.append(int(smoother.smooth(row[np.newaxis], track, index * step_s)[1][0]))
    return labels


def faces_of_photos(
    photos: Path, detector_model: Path | None, labels: Sequence[str], count: int
) -> Iterator[tuple[ImageU8, FloatArray, str]]:
    """Yield image, box of the largest face and label of `count` photographs, spread evenly."""
    detector = PhotoDetector(model_path=detector_model, notify=print)
    with open_files(photos) as files:
        entries = [each for each in labelled_photos(files, str(photos), print) if each.class_name in labels]
        for entry in entries[:: max(1, len(entries) // count)][:count]:
            image_bgr = as_frame(decode_image(files.read(entry.path), entry.name))
            found = detector.detect(image_bgr)
            if len(found):
                yield image_bgr, found.xyxy[0], entry.class_name


def jittered(image_bgr: ImageU8, xyxy: FloatArray, random: np.random.Generator) -> tuple[Frame, FloatArray]:
    """Return the photograph with noise as a frame, and its box (1, 4), moved and resized by about 2 % of its side."""
    noisy = image_bgr + _NOISE * random.standard_normal(image_bgr.shape, np.float32)
    side = float(xyxy[2] - xyxy[0] + xyxy[3] - xyxy[1]) / 2
    right, down, wider = _JITTER * side * random.standard_normal(3, np.float32)
    moved = xyxy + np.array([right - wider / 2, down - wider / 2, right + wider / 2, down + wider / 2], np.float32)
    return Frame(0, 0.0, 0.0, noisy.clip(0, 255).astype(np.uint8)), moved[np.newaxis]


def on_clip(clip: Path, step: int, model: str, detector_model: Path | None) -> None:
    """Print the label changes of every `step`th frame of a clip with and without mirrored crops."""
    for mirror in (False, True):
        changes = Changes()
        with edgekit.stream(source=clip, model=model, detector_model=detector_model, mirror=mirror) as stream:
            fps = (stream.source.fps or 0) / step
            stream.run([changes], pace=lambda source: EveryNth(source, step))
        rates = {kind: 100 * changes.changed[kind] / max(changes.faces, 1) for kind in ("label", "unsmoothed")}
        print(
            f"{clip.name} at {fps:.1f} frames/s, {'mirrored' if mirror else 'plain'}: "
            f"{rates['label']:.2f} changes per 100 of {changes.faces} faces, unsmoothed {rates['unsmoothed']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
