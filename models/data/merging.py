"""Several classes as one: `positive=happy`, `negative=angry,disgust,fear,sad`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgekit.errors import InputError
from edgekit.models.data import DataSet, ImageSet

Merges = dict[str, tuple[str, ...]]


def parse_merges(texts: Sequence[str], labels: Sequence[str]) -> Merges:
    """Return new label → old labels of texts `NEW=OLD,OLD`; labels that no text names are left out.

    Raises:
        InputError: A text has another form, names a class there is not, or one that another text has named.
    """
    merges: Merges = {}
    taken: set[str] = set()
    for text in texts:
        new, mark, rest = text.partition("=")
        names = tuple(name.strip() for name in rest.split(","))
        if not mark or not new.strip() or not all(names):
            raise InputError(f"merge '{text}' has another form than NEW=OLD,OLD")
        if new.strip() in merges:
            raise InputError(f"merge '{text}': '{new.strip()}' is there twice")
        for name in names:
            if name not in labels:
                raise InputError(f"merge '{text}': there is no class '{name}': the labels are {', '.join(labels)}")
            if name in taken:
                raise InputError(f"merge '{text}': class '{name}' is merged twice")
            taken.add(name)
        merges[new.strip()] = names
    return merges


def merge_classes(dataset: DataSet, merges: Mapping[str, Sequence[str]]) -> DataSet:
    """Return the data set with the new classes, without the images of classes that are merged into none."""
    splits = {name: _merged(part, dataset.classes, merges) for name, part in dataset.splits.items()}
    return DataSet(dataset.name, tuple(merges), splits)


def _merged(part: ImageSet, classes: Sequence[str], merges: Mapping[str, Sequence[str]]) -> ImageSet:
    numbers = np.full(len(classes), -1, np.int64)
    for number, names in enumerate(merges.values()):
        numbers[[classes.index(name) for name in names]] = number
    kept = part.subset(numbers[part.labels] >= 0)
    targets = kept.targets
    if targets is not None:
        targets = np.stack([targets[:, numbers == number].sum(axis=1) for number in range(len(merges))], axis=1)
        targets = (targets / np.maximum(targets.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return ImageSet(kept.images, numbers[kept.labels], targets, kept.names)
