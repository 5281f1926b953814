"""Merged and renamed classes (`positive=happy`, `negative=angry,sad`): read from texts, and applied to a data set.

`edgekit.contract.LabelMap` states them; `edgekit.models.model_loading.merge_net` applies them to a net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekit.contract import LabelMap
from edgekit.errors import InputError
from edgekit.models.callbacks import Notify
from edgekit.models.data import DataSet, ImageSet
from edgekit.text import one_line


def parse_merges(texts: Sequence[str], labels: Sequence[str]) -> LabelMap:
    """Return the label map of texts of the form `NEW=OLD,OLD`.

    Raises:
        InputError: A text has another form, an old label does not exist, or a label occurs twice.
    """
    merges: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for text in texts:
        new, mark, rest = (part.strip() for part in text.partition("="))
        names = tuple(name.strip() for name in rest.split(","))
        if not mark or not new or not all(names):
            raise InputError(
                f"merge '{text}': expected the form NEW=OLD,OLD, such as good=happy,surprise (Python: a list of these)"
            )
        if new in merges:
            raise InputError(f"merge '{text}': the new class '{new}' is defined twice")
        for name in names:
            if name not in labels:
                raise InputError(f"merge '{text}': there is no class '{name}': the classes are {', '.join(labels)}")
            if name in taken:
                raise InputError(f"merge '{text}': class '{name}' is merged twice")
            taken.add(name)
        merges[new] = names
    return LabelMap(tuple(merges), tuple(merges.values()))


def merged(dataset: DataSet, texts: Sequence[str], notify: Notify) -> DataSet:
    """Return the data set with its classes merged as texts NEW=OLD,OLD state; without texts, the data set itself.

    `notify` is called with the classes that are removed, if there are any.

    Raises:
        InputError: As for `parse_merges`.
    """
    if not texts:
        return dataset
    labels = parse_merges(texts, dataset.classes)
    report_removed(labels, dataset.classes, notify)
    return merge_classes(dataset, labels)


def report_removed(labels: LabelMap, classes: Sequence[str], notify: Notify) -> None:
    """Call `notify` with the classes that stand in no label and are therefore removed, if there are any."""
    if removed := [name for name in classes if labels.number(name) < 0]:
        notify(one_line(f"classes in no merge are removed: {', '.join(removed)}"))


def merge_classes(dataset: DataSet, labels: LabelMap) -> DataSet:
    """Return the data set with the labels as classes, without the images of classes that stand in no label."""
    numbers = np.array([labels.number(name) for name in dataset.classes], np.int64)
    splits = {name: renumbered(part, numbers) for name, part in dataset.splits.items()}
    return DataSet(dataset.name, labels.labels, splits, labels)


def renumbered(part: ImageSet, numbers: NDArray[np.int64]) -> ImageSet:
    """Return a split with other labels: `numbers[old]` is the new label, or -1 to remove the images of that label.

    A target is summed for each new class and normalised. If it has no share in the new classes, it becomes the label.
    """
    kept = part.subset(numbers[part.labels] >= 0)
    labels = numbers[kept.labels]
    if kept.targets is None:
        return replace(kept, labels=labels)
    classes = int(numbers.max()) + 1
    sums = [kept.targets[:, np.flatnonzero(numbers == number)].sum(axis=1) for number in range(classes)]  # (N,) each
    shares = np.stack(sums, axis=1)  # (N, new classes)
    total = shares.sum(axis=1, keepdims=True)
    one_hot_labels = np.eye(classes, dtype=np.float32)[labels]
    targets = np.where(total > 0, shares / np.maximum(total, np.float32(1e-12)), one_hot_labels)
    return replace(kept, labels=labels, targets=targets.astype(np.float32))
