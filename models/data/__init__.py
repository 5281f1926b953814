"""Data sets in memory: uint8 images, labels and splits.

`edgekit.models.data.readers.load_dataset` reads a data set from folders, archives and files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import LabelMap
from edgekit.device.imaging import resize
from edgekit.errors import InputError
from edgekit.models.data.disk import selected_images
from edgekit.preprocess import FloatArray, ImageU8
from edgekit.text import counted

SplitKind = Literal["train", "val", "test"]
# In the label order of FER-2013, of the EdgeCNN authors' checkpoints and of every edgekit expression model.
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# Images per step of the checksum, which copies those on disk.
_DIGEST_ROWS = 1024
# Pictures of a class from which one is held back for validation, see `_quota`.
_LEAST_OF_CLASS = 5
# Name of the only split of a data set without splits.
ALL_IMAGES = "all"
# Side of small pictures, and the correlation from which two of them are nearly equal: of frames of one video all are
# above, of unrelated photographs none.
_SMALL_PX, _NEAR = 16, 0.95
_MOST_TRAINING, _MOST_HELD_BACK = 4000, 400
# Usual names of each kind of split; a name that a data set does not have stands for another of its kind.
_USUAL: dict[SplitKind, tuple[str, ...]] = {
    "train": ("Training", "train", ALL_IMAGES),
    "val": ("PublicTest", "val", "valid", "validation"),
    "test": ("PrivateTest", "test", "testing"),
}
# Options that choose a split of each kind, in the error for a missing one.
_SPLIT_OPTIONS: dict[SplitKind, str] = {
    "train": "train: --train-split; export: --calibrate-split",
    "val": "train: --val-split",
    "test": "eval, verify: --split; export: --eval-split",
}
# A folder with one of these names, in any case, is a split, even if it is the only one.
KNOWN_SPLITS = frozenset(name.casefold() for names in _USUAL.values() for name in names)


@dataclass(frozen=True)
class ImageSet:
    """One split: `images` uint8 (N, H, W, 1 gray or 3 RGB) and `labels` int64 (N,).

    `targets`, if present, replace the labels in training: distributions over the classes, float32 (N, classes), rows
    that sum to 1. `names` are the paths of the image files within the data set, if it consists of files; `groups` name
    the person or the track of each image, if they are known for all.
    """

    images: ImageU8
    labels: NDArray[np.int64]
    targets: NDArray[np.float32] | None = None
    names: NDArray[np.str_] | None = None
    groups: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> ImageSet:
        """Return the images selected by a mask or an index array."""
        return ImageSet(
            selected_images(self.images, chosen),
            self.labels[chosen],
            targets=None if self.targets is None else self.targets[chosen],
            names=None if self.names is None else self.names[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )


@dataclass(frozen=True)
class DataSet:
    """A data set: name, classes in label order, splits by name, and of merged classes what they stand for."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, ImageSet]
    label_map: LabelMap | None = None

    @property
    def is_gray(self) -> bool:
        """Whether all images have one channel."""
        return all(part.images.shape[-1] == 1 for part in self.splits.values())

    def split(self, name: str) -> ImageSet:
        """Return the split that `name` means; "val" also means one that is called "PublicTest", see `named_split`.

        Raises:
            InputError: The data set has no such split; the message lists its splits.
        """
        return self.splits[self.chosen_split(name, "train")]  # the kind has no effect, because there is a name

    def chosen_split(self, name: str | None, kind: SplitKind) -> str:
        """Return the name of the split that `name` means, or without `name` of the split of a kind."""
        return chosen_split(f"data set '{self.name}'", self.splits, name, kind)

    def checksum(self) -> str:
        """Return a SHA-256 over classes, labels, targets, groups and pixels; it does not depend on the file format."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for name in sorted(self.splits):
            part = self.splits[name]
            digest.update(f"\n{name} {part.images.shape}".encode())
            for start in range(0, len(part), _DIGEST_ROWS):
                digest.update(np.ascontiguousarray(part.images[start : start + _DIGEST_ROWS]).data)
            digest.update(part.labels.astype("<i8").tobytes())
            if part.targets is not None:
                digest.update(part.targets.astype("<f4").tobytes())
            if part.groups is not None:
                digest.update("\n".join(part.groups).encode())
        return digest.hexdigest()


def missing_split(subject: str, name: str, splits: Iterable[str]) -> InputError:
    """Return the error for data that has the splits `splits`, but not the chosen one or the default, `name`."""
    choice = f"choose split {' or '.join(splits)}"
    for kind, usual_names in _USUAL.items():
        if name in (kind, usual_names[0]):  # names that the user need not have typed: the latter is a default, too
            return InputError(
                f"{subject} has no split '{kind}': give a folder that contains {kind}/<class>/… "
                f"(docs/how-to/datasets.md), or {choice} ({_SPLIT_OPTIONS[kind]})"
            )
    return InputError(f"{subject} has no split '{name}': {choice}")


def chosen_split(subject: str, splits: Iterable[str], name: str | None, kind: SplitKind) -> str:
    """Return the one of `splits` that `name` means (see `named_split`), or without `name` the split of a kind.

    Raises:
        InputError: `subject`, which is named in the message, has no such split.
    """
    found = usual_split(splits, kind) if name is None else named_split(splits, name)
    if found is None or found not in splits:
        raise missing_split(subject, name or kind, splits)
    return found


def named_split(splits: Iterable[str], name: str) -> str:
    """Return the one of `splits` that `name` means, or else `name`.

    A usual name of training, validation or test splits also means a split with another usual name of the same kind.

    >>> named_split(["Training", "PublicTest"], "val")
    'PublicTest'
    """
    if name in splits:
        return name
    for usual_names in _USUAL.values():
        found = _first_known(splits, usual_names)
        if found is not None and _first_known([name], usual_names) is not None:  # `found` and `name` are of this kind
            return found
    return name


def usual_split(splits: Iterable[str], kind: SplitKind) -> str | None:
    """Return the one of `splits` with a usual name of its kind, in any case; None if there is none."""
    return _first_known(splits, _USUAL[kind])


def train_and_validation(dataset: DataSet, train: str | None, validation: str | None) -> tuple[ImageSet, ImageSet, str]:
    """Return training images, validation images, and the validation split's name or a description of held-back images.

    Args:
        dataset: The data.
        train: Name of the training split; None: one of the usual names.
        validation: Name of the validation split; None: one of the usual names. If there is none, training images are
            held back. A test split is never chosen.

    Raises:
        InputError: A split does not exist or is empty, or the training split is too small to hold back images.
    """
    train = dataset.chosen_split(train, "train")
    training = _split_with_images(dataset, train)
    validation = validation or usual_split(dataset.splits, "val")
    if validation is not None:
        validation = named_split(dataset.splits, validation)  # such as "PublicTest" for "val"
    if validation == train:
        raise InputError(f"split '{train}' cannot be training and validation split: choose another validation split")
    if validation is not None:
        return training, _split_with_images(dataset, validation), validation
    return _with_held_back(training, train, dataset.classes)


def _with_held_back(training: ImageSet, train: str, classes: tuple[str, ...]) -> tuple[ImageSet, ImageSet, str]:
    """Hold back validation images from the training split `train`; return as `train_and_validation`.

    A tenth of each class is held back (a fifth, up to 10 images, of a small class), by whole groups where the groups
    are known. They are always the same images, so that nets that start from each other or are averaged have the same
    validation images. Training images that are pixel-identical to a held-back one are left out.
    """
    labels = training.labels
    is_held_back = held_back(train, labels, training.groups, seed=0)
    held_back_images = (training.images[index] for index in np.flatnonzero(is_held_back))
    is_kept = ~is_held_back & ~identical_to(training.images, held_back_images)
    for label in np.unique(labels[~is_held_back]):
        if not (is_kept & (labels == label)).any():
            raise InputError(
                f"all training images of class '{classes[label]}' are identical to held-back ones: add others"
            )
    by_group = "" if training.groups is None else " by group"
    left_out = len(labels) - int(is_held_back.sum()) - int(is_kept.sum())
    without = f", without {left_out} training images identical to one of them" if left_out else ""
    return training.subset(is_kept), training.subset(is_held_back), f"held back from {train}{by_group}{without}"


def _split_with_images(dataset: DataSet, name: str) -> ImageSet:
    """Return a split; raise if it is empty."""
    part = dataset.split(name)
    if len(part) == 0:
        raise InputError(f"split '{name}' of data set '{dataset.name}' is empty: choose another split")
    return part


def held_back(train: str, labels: NDArray[np.int64], groups: NDArray[np.str_] | None, seed: int) -> NDArray[np.bool_]:
    """Return a mask of the images to hold back for validation, about a tenth of each class; by whole groups if known.

    Raises:
        InputError: There are too few images or groups; the message names the split `train`.
    """
    chosen = _tenth(labels, seed) if groups is None else _tenth_by_group(labels, groups, seed)
    if not chosen.any() or chosen.all():
        raise InputError(_why_none_held_back(train, labels, groups))
    return chosen


def _why_none_held_back(train: str, labels: NDArray[np.int64], groups: NDArray[np.str_] | None) -> str:
    """Return the error message for a training split of which no image, or every image, would be held back."""
    count = 0 if groups is None else len(np.unique(groups))
    if groups is None or count == len(groups):  # groups of one image each do not limit the choice
        largest = int(np.bincount(labels).max(initial=0)) if len(labels) else 0
        return (
            f"split '{train}' is too small to hold back a validation split: its largest class has "
            f"{counted(largest, 'picture')}, {_LEAST_OF_CLASS} are needed: add {_LEAST_OF_CLASS - largest} or more to "
            "each class, or add a split 'val'"
        )
    names = f"one group ('{groups[0]}')" if count == 1 else f"{count} groups, of which none can be held back"
    return (
        f"no validation pictures: the {len(groups)} pictures of split '{train}' belong to {names}, "
        "and only whole groups are held back: collect in several sessions, so that there are more tracks or persons; "
        "or correct the groups in the data's table, such as groups.csv; or add a split 'val'"
    )


def identical_to(images: ImageU8, others: Iterable[ImageU8]) -> NDArray[np.bool_]:
    """Return a mask of the images (N, H, W, C) that are pixel-identical to one of `others`: bool (N,)."""
    known = {_checksum(image) for image in others}
    return np.array([_checksum(image) in known for image in images], bool)


def _checksum(image: ImageU8) -> bytes:
    """Return a checksum of an image's pixels, without its shape."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def check_classes(training: ImageSet, classes: tuple[str, ...]) -> None:
    """Check that each class has training images, and not one image several times only.

    Raises:
        InputError: A class has no image, or its images are all identical.
    """
    for label, name in enumerate(classes):
        members = np.flatnonzero(training.labels == label)
        if len(members) == 0:
            raise InputError(f"class '{name}' has no training image: add some, or remove the class")
        images = training.images
        if len(members) > 1 and all(np.array_equal(images[members[0]], images[index]) for index in members[1:]):
            raise InputError(f"the {len(members)} training images of class '{name}' are identical: add other pictures")


def _first_known(splits: Iterable[str], names: tuple[str, ...]) -> str | None:
    """Return the first of `names` that is one of `splits` without regard to case, as `splits` spells it."""
    existing = {split.casefold(): split for split in splits}
    return next((existing[name.casefold()] for name in names if name.casefold() in existing), None)


def _quota(count: int) -> int:
    """Return the number of images to hold back of a class of `count` images: a tenth, or of small classes a fifth."""
    return max(count // 10, min(count // 5, 10))


def _tenth(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Return a mask of random images, about a tenth of each class: `_quota` of its number of images."""
    chosen = np.zeros(len(labels), bool)
    generator = np.random.default_rng(seed)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[generator.permutation(members)[: _quota(len(members))]] = True
    return chosen


def _tenth_by_group(labels: NDArray[np.int64], groups: NDArray[np.str_], seed: int) -> NDArray[np.bool_]:
    """Return a mask of the images of random whole groups, about a tenth of each class.

    Groups above the median size come last, so that one is held back only where a class needs it. A group is not held
    back if a class would keep less than half of its images for training.
    """
    # Numbers of images per class, (classes,): all, to hold back, and held back so far.
    totals = np.bincount(labels)
    quotas = np.array([_quota(int(total)) for total in totals])
    taken = np.zeros_like(totals)
    # Groups are numbered; `group_of` (N,) has the group of each image.
    names, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    is_chosen = np.zeros(len(names), bool)
    order = np.random.default_rng(seed).permutation(len(names))
    is_large = sizes[order] > np.median(sizes)
    for group in [*order[~is_large], *order[is_large]]:
        added = np.bincount(labels[group_of == group], minlength=len(totals))
        has_class = added > 0
        is_needed = (taken < quotas)[has_class].any()
        leaves_half = (2 * (taken + added) <= totals)[has_class].all()
        if is_needed and leaves_half:
            is_chosen[group] = True
            taken += added
    return is_chosen[group_of]


def spread(total: int, limit: int | None) -> NDArray[np.int64]:
    """Return at most `limit` indices below `total`, evenly spaced."""
    if limit is None or limit >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, limit).round().astype(np.int64)


def near_copies(training: ImageU8, held_back: ImageU8) -> float:
    """Return the share, 0..1, of the held-back images (N, H, W, C) that are nearly equal to a training image."""
    known = _small(training[spread(len(training), _MOST_TRAINING)])
    asked = _small(held_back[spread(len(held_back), _MOST_HELD_BACK)])
    correlations = asked @ known.T  # (held back, training)
    return float((correlations.max(axis=1) > _NEAR).mean())


def _small(images: ImageU8) -> FloatArray:
    """Return the images as small gray ones with mean 0 and norm 1: float32 (N, pixels).

    The scalar product of two of them is their correlation.
    """
    gray = [np.ascontiguousarray(image.mean(axis=-1).astype(np.uint8)) for image in images]
    pixels = np.stack([resize(image, (_SMALL_PX, _SMALL_PX)) for image in gray]).reshape(len(images), -1)
    centred: FloatArray = pixels.astype(np.float32) - pixels.mean(axis=1, keepdims=True, dtype=np.float32)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return centred
