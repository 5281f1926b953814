"""Data sets in memory: uint8 images, labels and splits.

`edgekit.models.data.readers.load_dataset` reads a data set from folders, archives and files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.preprocess import ImageU8

# In the label order of FER-2013, of the EdgeCNN authors' checkpoints and of every edgekit expression model.
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# Name of the only split of a data set without splits.
ALL_IMAGES = "all"
_TRAIN_SPLITS = ("Training", "train", "training", ALL_IMAGES)
_VALIDATION_SPLITS = ("PublicTest", "val", "valid", "validation")
_TEST_SPLITS = ("PrivateTest", "test", "testing")
# A folder with one of these names is a split, even if it is the only one.
KNOWN_SPLITS = (*_TRAIN_SPLITS, *_VALIDATION_SPLITS, *_TEST_SPLITS)
# File names of CK+: subject, sequence, frame.
_SUBJECT = re.compile(r"(S\d{3})_\d{3}_\d{8}\.")


@dataclass(frozen=True)
class ImageSet:
    """One split: `images` uint8 (N, H, W, 1 gray or 3 RGB) and `labels` int64 (N,).

    `targets`, if present, replace the labels in training: distributions over the classes, float32 (N, classes), rows
    that sum to 1. `names` are the paths of the image files within the data set, if it consists of files.
    """

    images: ImageU8
    labels: NDArray[np.int64]
    targets: NDArray[np.float32] | None = None
    names: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> ImageSet:
        """Return the images selected by a mask or an index array."""
        return ImageSet(
            self.images[chosen],
            self.labels[chosen],
            None if self.targets is None else self.targets[chosen],
            None if self.names is None else self.names[chosen],
        )


@dataclass(frozen=True)
class DataSet:
    """A data set: name, classes in label order, and splits by name."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, ImageSet]

    @property
    def is_gray(self) -> bool:
        """Whether all images have one channel."""
        return all(part.images.shape[-1] == 1 for part in self.splits.values())

    def split(self, name: str) -> ImageSet:
        """Return a split.

        Raises:
            InputError: The data set has no split of that name; the message lists its splits.
        """
        if name not in self.splits:
            raise InputError(f"data set '{self.name}' has no split '{name}': it has {', '.join(self.splits)}")
        return self.splits[name]

    def checksum(self) -> str:
        """Return a SHA-256 over classes, labels, targets and pixels; it does not depend on the file format."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for name in sorted(self.splits):
            part = self.splits[name]
            digest.update(f"\n{name} {part.images.shape}".encode())
            digest.update(np.ascontiguousarray(part.images).data)
            digest.update(part.labels.astype("<i8").tobytes())
            if part.targets is not None:
                digest.update(part.targets.astype("<f4").tobytes())
        return digest.hexdigest()


def training_split(dataset: DataSet, name: str | None = None) -> str:
    """Return the name of the training split: `name`, or by default `Training`, `train`, `training` or `all`.

    Raises:
        InputError: The data set has no such split.
    """
    return _existing(dataset, name or usual_training_split(dataset.splits), "train", "training split")


def split_to_measure(dataset: DataSet, name: str | None = None) -> str:
    """Return the name of the test split: `name`, or by default `PrivateTest`, `test` or `testing`.

    Raises:
        InputError: The data set has no such split.
    """
    return _existing(dataset, name or usual_test_split(dataset.splits), "test", "test split")


def _existing(dataset: DataSet, name: str | None, usual: str, role: str) -> str:
    if name is None:
        raise InputError(
            f"data set '{dataset.name}' has no split named '{usual}': it has {', '.join(dataset.splits)}; "
            f"choose one as the {role}"
        )
    dataset.split(name)
    return name


def usual_training_split(splits: Iterable[str]) -> str | None:
    """Return the name of the training split among `splits`, or None if none has a usual name."""
    return _first_known(splits, _TRAIN_SPLITS)


def usual_validation_split(splits: Iterable[str]) -> str | None:
    """Return the name of the validation split among `splits`, or None if none has a usual name."""
    return _first_known(splits, _VALIDATION_SPLITS)


def usual_test_split(splits: Iterable[str]) -> str | None:
    """Return the name of the test split among `splits`, or None if none has a usual name."""
    return _first_known(splits, _TEST_SPLITS)


def train_and_validation(
    dataset: DataSet, train: str | None, validation: str | None, seed: int
) -> tuple[ImageSet, ImageSet, str]:
    """Return the training split, the validation split, and a description of the validation split.

    Args:
        dataset: The data.
        train: Name of the training split; None: one of the usual names.
        validation: Name of the validation split; None: one of the usual names. If there is none, 10 % of the training
            images of each class are held back, drawn with `seed`; where the file names contain the subject (CK+), 10 %
            of the images by whole subjects. A test split is never chosen.
        seed: Seed for the held-back images.

    Raises:
        InputError: A split does not exist, the training split is empty, or is too small to hold back images.
    """
    train = training_split(dataset, train)
    training = dataset.split(train)
    if len(training) == 0:
        raise InputError(f"split '{train}' of data set '{dataset.name}' is empty")
    validation = validation or usual_validation_split(dataset.splits)
    if validation == train:
        raise InputError(f"split '{train}' cannot be training and validation split: choose another validation split")
    if validation is not None:
        return training, dataset.split(validation), validation
    subjects = _subjects(training)
    held_back = _every_tenth(training.labels, seed) if subjects is None else _tenth_by_subject(subjects, seed)
    if not held_back.any() or held_back.all():
        raise InputError(f"split '{train}' is too small to hold back a validation split: add a split 'val'")
    by_subject = "" if subjects is None else " by subject"
    return training.subset(~held_back), training.subset(held_back), f"10 % held back from {train}{by_subject}"


def distinct_images(dataset: DataSet, name: str) -> ImageSet:
    """Return a split without the images that are pixel-identical to an image of another split."""
    return dataset.split(name).subset(~duplicated(dataset, name))


def duplicated(dataset: DataSet, name: str) -> NDArray[np.bool_]:
    """Return a mask of the images that are pixel-identical to an image of another split: bool (N,)."""
    others = {image.tobytes() for other, images in dataset.splits.items() if other != name for image in images.images}
    return np.array([image.tobytes() in others for image in dataset.split(name).images], bool)


def _first_known(splits: Iterable[str], names: tuple[str, ...]) -> str | None:
    existing = set(splits)
    return next((name for name in names if name in existing), None)


def _every_tenth(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    chosen = np.zeros(len(labels), bool)
    generator = np.random.default_rng(seed)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[generator.permutation(members)[: len(members) // 10]] = True
    return chosen


def _subjects(part: ImageSet) -> NDArray[np.str_] | None:
    """Return the subject of each image, or None if a file name does not contain one."""
    found = [] if part.names is None else [_SUBJECT.match(name.rpartition("/")[2]) for name in part.names]
    subjects = [match[1] for match in found if match]
    return np.array(subjects, np.str_) if subjects and len(subjects) == len(part) else None


def _tenth_by_subject(subjects: NDArray[np.str_], seed: int) -> NDArray[np.bool_]:
    order = np.random.default_rng(seed).permutation(np.unique(subjects))
    sizes = np.cumsum([np.count_nonzero(subjects == subject) for subject in order])
    enough = int(np.searchsorted(sizes, len(subjects) / 10)) + 1
    return np.isin(subjects, order[:enough])
