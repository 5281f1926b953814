"""Steps that are common to all trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.training.loop import EpochReport
from edgekit.models.training.options import TrainOptions
from edgekit.models.training.run import (
    TrainingData,
    check_training_images,
    read_training_data,
)
from tests.ferplus import save_votes

Draw = Callable[[Path, dict[str, int]], Path]


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


def test_persons_in_training_and_validation_images_are_reported() -> None:
    training = replace(of_labels([0, 0, 1], 0), groups=np.array(["person-1", "person-2", "track-1"]))
    validation = replace(of_labels([0, 0, 1], 1), groups=np.array(["person-2", "person-3", "track-1"]))
    lines: list[str] = []
    dataset = DataSet("pets", ("cat", "dog"), {"train": training, "val": validation})
    check_training_images(TrainingData(dataset, training, validation, "val"), lines.append)
    assert lines == [
        "1 person or group in both training and validation images, such as 'person-2': the accuracy is too high"
    ]


def test_another_seed_holds_back_the_same_images(tmp_path: Path, bars_folder: Path) -> None:
    """Otherwise a fine-tuned net or an average of nets is evaluated on its own training images."""
    data = bars_folder / "Training"
    one, other = (read_training_data(TrainOptions(data=data, output=tmp_path / "out", seed=seed)) for seed in (0, 1))
    assert one.validation_name.startswith("held back from all")
    np.testing.assert_array_equal(one.validation.images, other.validation.images)


def test_a_model_that_learns_mostly_votes_is_calibrated_by_them(draw_faces: Draw, tmp_path: Path) -> None:
    data = draw_faces(tmp_path / "faces", {"Training": 28, "PublicTest": 14, "val": 7})
    save_votes(data, tmp_path / "votes.csv")
    head, *rows = [line.split(",") for line in (tmp_path / "votes.csv").read_text().splitlines()]
    of_happy = next(row[2:] for row in rows if "/happy/" in row[1])
    for row in rows:
        if row[:1] == ["PublicTest"] and "/sad/" in row[1]:
            row[2:] = of_happy
    rows = [row for row in rows if row[0] != "val"]
    (tmp_path / "votes.csv").write_text("\n".join(",".join(row) for row in [head, *rows]))
    notices: list[str] = []

    def labels(weight: float, *merges: str, **splits: str) -> list[str]:
        options = TrainOptions(
            data=data,
            output=tmp_path / "out",
            ferplus=tmp_path / "votes.csv",
            ferplus_labels="mixed",
            label_weight=weight,
            notify=notices.append,
            **splits,  # type: ignore[arg-type]
        )
        read = read_training_data(options, merges)
        return [read.dataset.classes[label] for label in read.calibration.labels]

    assert labels(0.5).count("sad") == labels(0.5).count("happy") == 2
    assert (labels(0.15).count("sad"), labels(0.15).count("happy")) == (0, 4)
    merges = ("good=happy,surprise", "bad=sad,angry")
    assert (labels(0.15, *merges).count("good"), labels(0.15, *merges).count("bad")) == (6, 2)
    assert not any("calibration" in line for line in notices)
    # Votes that are missing are no reason to lose a training at its end.
    assert labels(0.15, val_split="val").count("sad") == 1
    assert "calibration" in notices[-1]


def test_an_interrupted_training_leaves_calibrated_weights(bars_folder: Path, tmp_path: Path) -> None:
    def stop(_report: EpochReport) -> None:
        raise KeyboardInterrupt

    options = {"model": "mini-xception", "batch_size": 28, "accelerator": "cpu", "threads": 1, "on_epoch": stop}
    with pytest.raises(KeyboardInterrupt):
        edgekit.train(data=bars_folder, output=tmp_path, epochs=2, **options)
    checkpoint = load_checkpoint(tmp_path / "best.safetensors")
    assert checkpoint.contract.temperature == checkpoint.training["calibration"]["temperature"] != 1
