"""Steps that are common to all trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.train import TrainOptions
from edgekit.models.training.run import TrainingData, check_prior_strength, check_training_images, read_training_data


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


@pytest.mark.parametrize("shared", ["person-2", "track-20261128T101500-a1b2c3-1"])
def test_persons_and_tracks_in_training_and_validation_images_are_reported(shared: str) -> None:
    training = replace(of_labels([0, 0, 1], 0), groups=np.array(["person-1", shared, "track-1"]))
    validation = replace(of_labels([0, 0, 1], 1), groups=np.array([shared, "person-3", "track-1"]))
    lines: list[str] = []
    dataset = DataSet("pets", ("cat", "dog"), {"train": training, "val": validation})
    check_training_images(TrainingData(dataset, training, validation, "val"), lines.append)
    assert lines == [
        f"1 person or group in both training and validation images, such as '{shared}': the accuracy is too high"
    ]


def test_another_seed_holds_back_the_same_images(tmp_path: Path, bars_folder: Path) -> None:
    """Otherwise a fine-tuned net or an average of nets is evaluated on its own training images."""
    data = bars_folder / "Training"
    one, other = (read_training_data(TrainOptions(data=data, output=tmp_path / "out", seed=seed)) for seed in (0, 1))
    assert one.validation_name.startswith("held back from all")
    np.testing.assert_array_equal(one.validation.images, other.validation.images)


def test_class_shares_are_not_corrected_twice() -> None:
    check_prior_strength(0.0, "sampler")
    check_prior_strength(1.0, "none")
    with pytest.raises(InputError, match="so does balance 'sampler' of this training: use one of them"):
        check_prior_strength(1.0, "sampler")
