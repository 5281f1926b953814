"""Steps that all trainings share."""

from __future__ import annotations

import numpy as np

from edgekit.models.data import DataSet, ImageSet
from edgekit.models.training.run import TrainingData, check_training_images


def of_labels(labels: list[int], seed: int) -> ImageSet:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 4, 4, 1), np.uint8)
    return ImageSet(images, np.array(labels, np.int64))


def test_classes_without_validation_images_are_named() -> None:
    classes = ("cat", "dog", "bird")
    training, whole, part = of_labels([0, 1, 2], 0), of_labels([2, 1, 0], 1), of_labels([1, 1], 2)
    lines: list[str] = []
    for validation in (whole, part):
        dataset = DataSet("pets", classes, {"train": training, "val": validation})
        check_training_images(TrainingData(dataset, training, validation, "val"), lines.append)
    assert lines == [
        "validation images (val) have no image of class cat, bird: their accuracy does not count these classes"
    ]
