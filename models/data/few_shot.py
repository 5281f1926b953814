"""Few-shot sampling and base/novel classes, the protocols of prompt learning (arXiv 2109.01134, 2203.05557)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import LabelMap
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify, ignore_message
from edgekit.models.data import (
    DataSet,
    ImageSet,
    held_back,
    named_split,
    usual_test_split,
    usual_training_split,
    usual_validation_split,
)
from edgekit.models.data.groups import shared_groups
from edgekit.models.data.image_files import ImageFiles
from edgekit.models.data.merging import merge_classes, renumbered
from edgekit.models.data.readers import Groups, Labels, Selection
from edgekit.text import one_line

# The splits of a sampled data set.
TRAIN, VALIDATION, TEST = "train", "val", "test"
# Validation images per class: as many as shots, but at most four, as in CoOp.
MAX_VALIDATION_SHOTS = 4


@dataclass(frozen=True)
class Splits:
    """Names of splits; None: one of the usual names. A usual name can stand for another, see `named_split`."""

    train: str | None = None
    validation: str | None = None
    test: str | None = None


def base_count(classes: int) -> int:
    """Return the number of base classes, which are the first ones: half of all classes, rounded up.

    Raises:
        InputError: There would be fewer than two base or novel classes.
    """
    if classes < 4:
        raise InputError(f"base-to-novel needs at least 2 base and 2 novel classes: the data has {classes} in total")
    return (classes + 1) // 2


def few_shot(
    labels: Labels,
    classes: Sequence[str],
    shots: int,
    seed: int,
    splits: Splits,
    notify: Notify = ignore_message,
    groups: Groups | None = None,
) -> Selection:
    """Return a selection of training, validation and test images.

    A class with fewer images than shots gives all its images. With the same seed, the images of fewer shots are a
    subset of those of more shots. Without a validation split, the validation images come from the training split, and
    where its groups are known, from groups that give no training image. Without a test split, the test images are the
    validation images.

    Args:
        labels: The labels of each split.
        classes: The classes to sample; their labels are 0 to len(classes) - 1.
        shots: Training images per class.
        seed: Seed of the sampling.
        splits: The splits to sample from.
        notify: Called with one message that names the classes with fewer images than shots, if there are any.
        groups: The group of each image of each split, such as a person; None: not known.

    Returns:
        The splits "train", "val" and "test"; "test" has all images of all classes.

    Raises:
        InputError: A split does not exist, a class has no training image, or no image or group is left for validation.
    """
    train = _named(labels, splits.train or usual_training_split(labels), "train")
    validation = splits.validation or usual_validation_split(labels)
    validation = validation and _named(labels, validation, "val")
    if validation == train:
        raise InputError(f"split '{train}' cannot be training and validation split: choose another validation split")
    apart = None if validation else _held_back_groups(labels, groups or {}, train, len(classes), seed)
    generator = np.random.default_rng(seed)
    few = min(shots, MAX_VALIDATION_SHOTS)
    chosen, validated, short = [], [], []
    for label, name in enumerate(classes):
        members = generator.permutation(np.flatnonzero(labels[train] == label))
        others = members[shots:]
        if apart is not None:
            members, others = members[~apart[members]], members[apart[members]]
        if not len(members):
            raise InputError(f"class '{name}' has no image in split '{train}'")
        if len(members) < shots:
            short.append(f"{name} ({len(members)})")
        chosen.append(members[:shots])
        if validation is None:
            validated.append(others[:few])
        else:
            members = np.flatnonzero(labels[validation] == label)
            validated.append(generator.permutation(members)[:few])
    if short:
        notify(one_line(f"classes with fewer images than {shots} shots give all they have: {', '.join(short)}"))
    selection = {
        TRAIN: (train, np.sort(np.concatenate(chosen))),
        VALIDATION: (validation or train, np.sort(np.concatenate(validated))),
    }
    if not len(selection[VALIDATION][1]):
        raise InputError(f"split '{train}' has no image left for validation: use fewer shots or add a split 'val'")
    return {**selection, TEST: _test(labels, splits, selection[VALIDATION])}


def _held_back_groups(labels: Labels, groups: Groups, train: str, classes: int, seed: int) -> NDArray[np.bool_] | None:
    """Return a mask of the training images whose groups are held back for validation; None: the groups are not known.

    The mask does not depend on the number of shots. Images of other than the first `classes` classes are not used.
    """
    known = groups.get(train)
    if known is None:
        return None
    used = labels[train] < classes
    mask = np.zeros(len(used), bool)
    mask[used] = held_back(train, labels[train][used], known[used], seed)
    return mask


@overload
def of_classes(part: ImageSet, labels: Sequence[int]) -> ImageSet: ...
@overload
def of_classes(part: ImageFiles, labels: Sequence[int]) -> ImageFiles: ...
def of_classes(part: ImageSet | ImageFiles, labels: Sequence[int]) -> ImageSet | ImageFiles:
    """Return the images with these labels, renumbered from 0 in the given order; see `renumbered`."""
    numbers = np.full(max(*labels, part.labels.max(initial=0)) + 1, -1, np.int64)
    numbers[list(labels)] = np.arange(len(labels))
    if isinstance(part, ImageSet):
        return renumbered(part, numbers)
    kept = part.subset(numbers[part.labels] >= 0)
    return replace(kept, labels=numbers[kept.labels])


def require_persons_apart(training: ImageFiles | ImageSet, test: ImageFiles | ImageSet) -> None:
    """Check that no person, or other group of images, is both in the training and in the test images.

    Raises:
        InputError: There is such a group.
    """
    if shared := shared_groups(training.groups, test.groups):
        raise InputError(
            f"'{shared[0]}' is in the training and in the test images, as are {len(shared) - 1} other persons or "
            "groups: keep each in one split"
        )


def without_classes(dataset: DataSet, left_out: Sequence[str]) -> DataSet:
    """Return the data set without some classes and their images.

    Raises:
        InputError: A class does not exist, or fewer than two classes remain.
    """
    for name in left_out:
        if name not in dataset.classes:
            raise InputError(f"class '{name}' cannot be left out: the classes are {', '.join(dataset.classes)}")
    kept = tuple(name for name in dataset.classes if name not in left_out)
    if len(kept) < 2:
        raise InputError(f"{len(kept)} of {len(dataset.classes)} classes remain: leave out fewer")
    return replace(merge_classes(dataset, LabelMap(kept, tuple((name,) for name in kept))), label_map=None)


def report_known(what: str, labels: Sequence[str], new: Sequence[str], notify: Notify) -> None:
    """Warn if a CLIP, or a net that it learns from, was trained with classes that ought to be new for the CLIP.

    `what` names the CLIP or the net, and `labels` are the classes that it was trained with.
    """
    if known := [name for name in new if name in labels]:
        notify(one_line(f"warning: {what} was trained with {', '.join(known)}: for this CLIP, no such class is new"))


def tested_images(dataset: DataSet, validation: ImageSet, splits: Splits) -> ImageSet:
    """Return the test split of a data set; without one, `validation`."""
    test = splits.test or usual_test_split(dataset.splits)
    return validation if test is None else dataset.split(test)


def _test(labels: Labels, splits: Splits, validation: tuple[str, NDArray[np.int64]]) -> tuple[str, NDArray[np.int64]]:
    name = splits.test or usual_test_split(labels)
    if name is None:
        return validation
    name = _named(labels, name, "test")
    return name, np.arange(len(labels[name]))


def _named(labels: Labels, name: str | None, kind: str) -> str:
    found = name and named_split(labels, name)
    if found is None or found not in labels:
        missing = f"no split named '{kind}'" if name is None else f"no split '{name}'"
        raise InputError(f"the data has {missing}: its splits are {', '.join(labels)}; choose one as {kind}-split")
    return found
