"""The evaluation protocols of prompt learning: images and classes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.clip.architecture import ClipConfig, Tower
from edgekit.models.clip.classifier import prompted_classifier, zero_shot_classifier
from edgekit.models.clip.descriptions import Descriptions, descriptions_for
from edgekit.models.clip.hicropl import PRESETS, PromptConfig, PromptedClip
from edgekit.models.clip.load import FrozenClip
from edgekit.models.clip.options import TaskName
from edgekit.models.clip.protocols import (
    Splits,
    Target,
    TaskData,
    check_evaluation,
    epochs_of,
    load_target,
    load_task_data,
    measure,
    preset_of,
)
from edgekit.models.data import EXPRESSIONS, DataSet
from edgekit.models.data.readers import load_dataset
from edgekit.models.evaluation.evaluate import evaluate
from tests.clips import random_clip

READ = partial(load_dataset, fit="clip")


@pytest.fixture(scope="module")
def clip() -> FrozenClip:
    return random_clip(ClipConfig(48, 16, Tower(64, 2, 1), Tower(64, 2, 1), 32), seed=1)


def prompted(clip: FrozenClip, classes: tuple[str, ...]) -> PromptedClip:
    torch.manual_seed(0)
    return PromptedClip(clip, PromptConfig(n_ctx=2, depth=2, cross_layer=1), descriptions_for(classes))


def load_data(bars: DataSet) -> TaskData:
    splits = {"train": bars.splits["Training"], "val": bars.splits["PublicTest"]}
    return TaskData(DataSet(bars.name, bars.classes, splits), bars.classes, "PublicTest", bars.splits["PrivateTest"])


def test_each_task_has_its_published_values() -> None:
    assert {task: preset_of(task) for task in get_args(TaskName)} == {
        "few-shot": PRESETS["few-shot"],
        "base-to-novel": PRESETS["few-shot"],
        "cross-dataset": PRESETS["cross-dataset"],
        "domain": PRESETS["cross-dataset"],
    }
    assert [epochs_of(task) for task in get_args(TaskName)] == [50, 50, 5, 5]


@pytest.mark.parametrize(("task", "count"), [("few-shot", 14), ("base-to-novel", 8)])
def test_a_task_trains_on_its_images_and_tests_on_the_whole_split(
    bars_folder: Path, task: TaskName, count: int
) -> None:
    data = load_task_data(bars_folder, task, 32, 2, 0, Splits(), READ)
    assert len(data.training) == count
    assert data.training.images.shape[1:] == (32, 32, 1)
    assert data.trained == (EXPRESSIONS[:4] if task == "base-to-novel" else EXPRESSIONS)
    assert set(data.training.labels) == set(data.validation.labels) == set(range(len(data.trained)))
    assert len(data.test) == 21
    assert len(data.validation) == count
    assert data.validation_name == "a few images of PublicTest"


def test_base_and_novel_classes_are_counted_among_themselves(clip: FrozenClip, bars_folder: Path) -> None:
    data = load_task_data(bars_folder, "base-to-novel", 48, 2, 0, Splits(), READ)
    test = data.test.subset(
        np.arange(21) != np.flatnonzero(data.test.labels == 4)[0]
    )  # for different counts of both halves
    data = replace(data, test=test)
    result = measure("base-to-novel", prompted(clip, data.trained), data, descriptions_for)
    base, novel = result.scores
    assert (base.images, novel.images) == (12, 8)
    for score, classes, kept in (
        (base, EXPRESSIONS[:4], test.labels < 4),
        (novel, EXPRESSIONS[4:], test.labels >= 4),
    ):
        part = test.subset(kept)
        part = replace(part, labels=part.labels - part.labels.min())
        plain = zero_shot_classifier(clip, descriptions_for(classes), "bars")
        assert score.zero_shot_accuracy == evaluate(plain, part, "center-crop").accuracy
    summary = result.summary
    assert summary["base"] == base.accuracy
    expected = 2 * base.accuracy * novel.accuracy / (base.accuracy + novel.accuracy) if novel.accuracy else 0
    assert summary["harmonic_mean"] == pytest.approx(expected)


def test_other_data_sets_are_measured_with_their_own_classes(clip: FrozenClip, bars: DataSet) -> None:
    data = load_data(bars)
    others = Target("pets", ("cat", "ape", "owl"), "test", bars.splits["PublicTest"].subset(np.arange(3)))
    result = measure("cross-dataset", prompted(clip, bars.classes), data, descriptions_for, [others, others])
    assert [score.name for score in result.scores] == ["fer2013", "pets test", "pets test"]
    assert [score.images for score in result.scores] == [21, 3, 3]
    assert result.summary["mean_of_targets"] == result.scores[1].accuracy


def test_shifted_copies_have_some_of_the_trained_classes_and_are_counted_among_these(
    clip: FrozenClip, bars: DataSet
) -> None:
    data = load_data(bars)
    net = prompted(clip, bars.classes)
    some = bars.splits["PrivateTest"].subset(np.flatnonzero(np.isin(bars.splits["PrivateTest"].labels, (3, 4))))
    shifted = Target("shifted", ("sad", "happy"), "test", replace(some, labels=(some.labels == 3).astype(np.int64)))
    calls: list[tuple[str, tuple[str, ...]]] = []

    def describe(classes: Sequence[str], *, dataset: str) -> Descriptions:
        calls.append((dataset, tuple(classes)))
        return descriptions_for(classes)

    result = measure("domain", net, data, describe, [shifted])
    assert calls == [("shifted", ("sad", "happy"))]
    own = prompted_classifier(net.with_classes(descriptions_for(("sad", "happy"))), "shifted", gray=True)
    assert result.scores[1].accuracy == evaluate(own, shifted.images, "center-crop").accuracy
    with pytest.raises(InputError, match="'shifted' has the class 'cat', which the training data does not have"):
        check_evaluation("domain", data, [replace(shifted, classes=("sad", "cat"))], descriptions_for, clip.config)


def test_targets_are_test_splits(bars_folder: Path, tmp_path: Path) -> None:
    target = load_target(bars_folder, 32, READ)
    assert (target.name, target.split, len(target.images)) == ("fer2013", "PrivateTest", 21)
    (tmp_path / "folders").mkdir()
    (bars_folder / "Training").rename(tmp_path / "folders/x")
    (bars_folder / "PublicTest").rename(tmp_path / "folders/y")
    with pytest.raises(InputError, match="no split named 'test': its splits are x, y"):
        load_target(tmp_path / "folders", 32, READ)


@pytest.mark.parametrize("splits", [Splits(), Splits(validation="test")], ids=["usual", "validated on test"])
def test_a_person_in_training_and_test_images_is_refused(bars_folder: Path, splits: Splits) -> None:
    for split in ("Training", "PrivateTest"):
        for file in sorted((bars_folder / split).rglob("*.png")):
            file.rename(file.with_name(f"person-{int(file.stem) % 5}_{file.name}"))
    with pytest.raises(InputError, match="is in the training and in the test images, as are 4 other persons"):
        load_task_data(bars_folder, "few-shot", 32, 8, 0, splits, READ)
