"""Other classes for a data set: several as one (`positive=happy`, `negative=angry,sad`), or some left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.data import DataSet, ImageSet
from edgekit.text import one_line

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


def say_left_out(merges: Merges, labels: Sequence[str], say: Callable[[str], None]) -> None:
    """Say which labels are merged into none."""
    named = {name for names in merges.values() for name in names}
    left = [label for label in labels if label not in named]
    if left:
        say(one_line(f"left out, since no --merge names them: {', '.join(left)}"))


def merge_classes(dataset: DataSet, merges: Mapping[str, Sequence[str]]) -> DataSet:
    """Return the data set with the new classes, without the images of classes that are merged into none."""
    numbers = np.full(len(dataset.classes), -1, np.int64)
    for number, names in enumerate(merges.values()):
        numbers[[dataset.classes.index(name) for name in names]] = number
    splits = {name: renumbered(part, numbers) for name, part in dataset.splits.items()}
    return DataSet(dataset.name, tuple(merges), splits)


def renumbered(part: ImageSet, numbers: NDArray[np.int64]) -> ImageSet:
    """Return a split under other labels: `numbers` has the new one of each old label, -1 where its images go.

    Targets become shares among the new classes; an image whose target has none of them is trained towards its label.
    """
    kept = part.subset(numbers[part.labels] >= 0)
    labels, targets = numbers[kept.labels], kept.targets
    if targets is not None:
        new = range(numbers.max() + 1)
        shares = np.stack([targets[:, np.flatnonzero(numbers == number)].sum(axis=1) for number in new], axis=1)
        total = shares.sum(axis=1, keepdims=True)
        certain = np.eye(len(new), dtype=np.float32)[labels]
        targets = np.where(total > 0, shares / np.maximum(total, np.float32(1e-12)), certain).astype(np.float32)
    return replace(kept, labels=labels, targets=targets)
