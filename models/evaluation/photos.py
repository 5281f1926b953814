"""`edgekit.evaluate_photos`: accuracy on whole photographs, measured through detector, crop and classifier.

[result] = edgekit.evaluate_photos(["default"], "photos")
print(f"{result.accuracy:.1%} of {result.total} photographs, {result.missed_total} without a detected face")
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekit.device.detections import Detections
from edgekit.device.frame import Frame
from edgekit.device.imaging import as_frame, decode_image, resize
from edgekit.device.pipeline.loop import crop_faces
from edgekit.errors import InputError
from edgekit.models.callbacks import of_stage
from edgekit.models.data import ImageSet
from edgekit.models.data.coop import is_split_file
from edgekit.models.data.files import Files, ImageEntry, open_files
from edgekit.models.data.photos import PhotoDetector, labelled_photos
from edgekit.models.data.readers import dataset_name, is_of_files
from edgekit.models.evaluation.evaluate import CropClassifier, Evaluation, evaluate, label_numbers, open_named
from edgekit.models.evaluation.options import EvaluatePhotosOptions, Protocols
from edgekit.models.torch_threads import set_torch_threads
from edgekit.options import takes
from edgekit.preprocess import ImageU8, crop_image


@dataclass(frozen=True)
class PhotoEvaluation:
    """Result of one model on photographs.

    Attributes:
        with_face: The predictions for the photographs with a detected face, for the largest face of each. For a model
            of whole images: the predictions for all photographs.
        missed: Number of photographs without a detected face, by true class, in label order.
        several_faces: Number of photographs with more than one detected face.
        left_out: Number of photographs of each class that the model does not have.
        unreadable: Paths of the photographs that could not be read; no other field counts them.
        detector: Name of the detector; None for a model of whole images.
        mirror: Whether the probabilities are the mean over each face and its mirror image.
    """

    with_face: Evaluation
    missed: Mapping[str, int]
    several_faces: int
    left_out: Mapping[str, int]
    unreadable: tuple[str, ...]
    detector: str | None
    mirror: bool = False

    @property
    def missed_total(self) -> int:
        """Number of photographs without a detected face."""
        return sum(self.missed.values())

    @property
    def total(self) -> int:
        """Number of photographs of the model's classes, with or without a detected face."""
        return self.with_face.total + self.missed_total

    @property
    def accuracy(self) -> float:
        """Fraction of correctly classified photographs, 0..1; a photograph without a detected face counts as wrong."""
        return self.with_face.correct / self.total

    @property
    def per_class(self) -> dict[str, float | None]:
        """Recall per class, 0..1; undetected faces count as wrong, and a class without photographs has None."""
        recalls: dict[str, float | None] = {}
        for index, (label, counts) in enumerate(zip(self.with_face.labels, self.with_face.confusion, strict=True)):
            total = int(counts.sum()) + self.missed[label]  # `counts`: predictions of the photographs of class `label`
            recalls[label] = int(counts[index]) / total if total else None
        return recalls


@takes(EvaluatePhotosOptions)
def evaluate_photos(options: EvaluatePhotosOptions) -> list[PhotoEvaluation]:
    """Classify the largest face of each photograph with one or more models, as `edgekit run --largest` does.

    The faces are detected once for all models. A model of whole images gets the whole photograph.

    `EvaluatePhotosOptions` describes the arguments.

    Returns:
        One result per model, in the order of `models`.

    Raises:
        InputError: A model, the photographs or an option cannot be used, or no photograph can be classified.
    """
    set_torch_threads(options.threads)
    if options.photos is None:
        raise InputError("argument 'photos' is missing")
    path = Path(options.photos)
    if not is_of_files(path) or is_split_file(path):
        raise InputError(f"photographs '{path}' are not image files: expected a folder or a .tar.gz archive")
    notify, threads = options.notify, options.threads
    detector = "yunet" if options.detector is None else str(options.detector)
    mirror = options.mirror and detector != "none"  # without a detector, photographs are evaluated as they are
    tallies = [_Tally(open_named(model, threads), mirror) for model in options.models]
    face_detector = None
    if any(tally.needs_faces for tally in tallies):
        face_detector = PhotoDetector(detector, min_face_px=options.min_face_px, threads=threads, notify=notify)
    with open_files(path, notify) as files:
        entries = _of_split(labelled_photos(files, str(path), notify), options.split, path)
        # No classes, so that the name is always that of the folder or archive: photographs are not FER-2013.
        name = dataset_name(path, classes=(), splits={entry.split for entry in entries})
        unreadable = _read_photos(files, entries, face_detector, tallies, options)
    detector_name = None if face_detector is None else face_detector.name
    return [tally.result(name, unreadable, detector_name, options) for tally in tallies]


class _Tally:
    """Counts and crops of one model, collected while the photographs are read.

    `left_out` counts the photographs of each class that the model does not have.
    """

    def __init__(self, classifier: CropClassifier, mirror: bool) -> None:
        """Start with no photographs; with `mirror`, faces are classified together with their mirror images."""
        self.classifier = classifier
        self._contract = classifier.contract
        self._protocol: Protocols = "center-flip" if mirror and self.needs_faces else "center-crop"
        # The photographs to classify: what the model gets of each, and the number of its label.
        self._crops: list[ImageU8] = []
        self._truths: list[int] = []
        self._missed: Counter[str] = Counter()  # photographs without a detected face, by label
        self.left_out: Counter[str] = Counter()  # photographs of classes that the model does not have, by class
        self._several = 0  # photographs with several faces

    @property
    def needs_faces(self) -> bool:
        """Whether the model classifies faces, not whole images."""
        return self._contract.subject == "face"

    def number(self, label: str) -> int:
        """Return the number of the model's label for a class of the data; -1 if it has none."""
        [number] = label_numbers([label], self._contract)
        return -1 if number is None else number

    def add(self, image: ImageU8, label: str, faces: Detections) -> None:
        """Add a photograph: its crop for the model, or a missed face if `faces` is empty.

        The crop shows the first of `faces`, which are ordered by size, or the whole image for a model of whole images.
        `image` is uint8 (H, W, 3) B, G, R.
        """
        if not self.needs_faces:
            crop, size_hw = self._contract.crop, self._contract.input.size_hw
            self._crops.append(crop_image(image, crop, size_hw, resize))
        elif len(faces) == 0:
            self._missed[self._contract.labels[self.number(label)]] += 1
            return
        else:
            self._several += len(faces) > 1
            frame = Frame(0, 0.0, 0.0, image)  # its number and times have no effect
            self._crops.append(crop_faces(frame, faces[:1], self._contract)[0])
        self._truths.append(self.number(label))

    def result(
        self, dataset: str, unreadable: tuple[str, ...], detector: str | None, options: EvaluatePhotosOptions
    ) -> PhotoEvaluation:
        """Classify the collected crops and return the result.

        Raises:
            InputError: There is nothing to classify, or the model's output contains NaN or infinity.
        """
        labels = self._contract.labels
        if not self._crops and self._missed:
            raise InputError(f"the detector '{detector}' finds no face in {self._missed.total()} photographs")
        if not self._crops:
            raise InputError(
                f"no readable photograph has a class of the model: its labels are {', '.join(labels)}, "
                f"those of the data {', '.join(self.left_out) or 'none'}"
            )
        images = ImageSet(np.stack(self._crops), np.array(self._truths, np.int64))
        predictions = evaluate(self.classifier, images, self._protocol, of_stage(options.progress, "classifying"))
        return PhotoEvaluation(
            with_face=replace(predictions, dataset=dataset, split=options.split or "all"),
            missed={label: self._missed[label] for label in labels},
            several_faces=self._several,
            left_out=dict(self.left_out),
            unreadable=unreadable,
            detector=detector if self.needs_faces else None,
            mirror=self._protocol == "center-flip",
        )


def _read_photos(
    files: Files,
    entries: Sequence[ImageEntry],
    face_detector: PhotoDetector | None,
    tallies: Sequence[_Tally],
    options: EvaluatePhotosOptions,
) -> tuple[str, ...]:
    """Add each photograph to the tallies, and return the names of the unreadable photographs."""
    report = of_stage(options.progress, "detecting faces" if face_detector else "reading photographs")
    unreadable = []
    no_faces = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    for number, entry in enumerate(entries, start=1):
        report(number, len(entries))
        wanted = []  # the tallies of models that have the photograph's class
        for tally in tallies:
            if tally.number(entry.class_name) >= 0:  # -1: the model does not have the class
                wanted.append(tally)
            else:
                tally.left_out[entry.class_name] += 1
        if not wanted:
            continue
        try:
            image = as_frame(decode_image(files.read(entry.path), str(entry.path)))
        except InputError as error:
            options.notify(f"{error}: skipped")
            unreadable.append(entry.name)
            continue
        needs_faces = any(tally.needs_faces for tally in wanted)
        faces = face_detector.detect(image) if face_detector and needs_faces else no_faces
        for tally in wanted:
            tally.add(image, entry.class_name, faces)
    return tuple(unreadable)


def _of_split(entries: Sequence[ImageEntry], split: str | None, path: Path) -> list[ImageEntry]:
    """Return the photographs of a split; None: all."""
    chosen = [entry for entry in entries if split is None or entry.split == split]
    if not chosen:
        known = sorted({entry.split for entry in entries})
        raise InputError(f"photographs '{path}' have no split '{split}': they have {', '.join(known)}")
    return chosen
