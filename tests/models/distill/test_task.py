"""Students learn the outputs of their teacher instead of the labels; trainings resume bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.errors import InputError
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.augment import Augmentation
from edgekit.models.data.unlabelled import with_unlabelled
from edgekit.models.distill.cache import agreement, distillation_targets
from edgekit.models.distill.losses import LossWeights
from edgekit.models.distill.task import DistillationConfig, DistillationTask, student_architecture
from edgekit.models.evaluation.evaluate import evaluate, open_classifier
from edgekit.models.model_loading import contract_for
from edgekit.models.training.loop import BEST_NAME, STATE_NAME, train_job
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import TrainingJob
from tests.resuming import train_whole_and_resumed

Make = Callable[..., Any]
ONLY_KL = LossWeights(1, 0, 0)


def _job(
    data: DataSet,
    teacher: Any,
    recipe: Recipe,
    config: DistillationConfig,
    cache: Path,
    training: ImageSet | None = None,
) -> TrainingJob:
    training = training or data.splits["Training"]
    targets = distillation_targets(teacher, training.images, config.views, cache) if config.views else None
    architecture = student_architecture("mini-xception", teacher)
    contract = contract_for(architecture, data.classes, data.name, data.is_gray)
    task = DistillationTask(contract, recipe, training, data.splits["PublicTest"], teacher, config, targets)
    return TrainingJob(task, recipe, {"teacher": teacher.record()}, accelerator="cpu")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / STATE_NAME, weights_only=True)["net"]
    return state


def _last_logits(folder: Path, data: DataSet) -> Any:
    return evaluate(open_classifier(folder / BEST_NAME), data.splits["PrivateTest"], "center-crop").logits


@pytest.mark.parametrize(
    ("embeds", "views", "weights"),
    [
        (False, "center-flip", ONLY_KL),
        pytest.param(True, "center", ONLY_KL, marks=pytest.mark.slow),
        (True, "center", LossWeights(0, 0, 1)),
        pytest.param(False, None, ONLY_KL, marks=pytest.mark.slow),
    ],
)
def test_the_student_agrees_with_its_teacher_and_not_with_the_labels(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path, embeds: bool, views: Any, weights: LossWeights
) -> None:
    teacher = bar_teacher(embeds=embeds)
    # The validation labels are the teacher's classes; the training labels stay the true ones.
    wrong = {name: dataclasses.replace(part, labels=teacher.named(part.images)) for name, part in bars.splits.items()}
    data = dataclasses.replace(bars, splits={**wrong, "Training": bars.splits["Training"]})
    recipe = dataclasses.replace(short, epochs=14, ema_decay=0.0, augmentation=Augmentation(crop_px=44))
    train_job(
        _job(data, teacher.teacher(), recipe, DistillationConfig(weights, 2.0, views), tmp_path / "c"), tmp_path / "run"
    )
    logits = _last_logits(tmp_path / "run", data)
    test = data.splits["PrivateTest"].images
    assert agreement(logits, np.eye(7, dtype=np.float32)[teacher.named(test)]) > 0.6
    assert (logits.argmax(axis=1) == bars.splits["PrivateTest"].labels).mean() < 0.3


def test_on_the_fly_the_teacher_sees_the_crops_that_the_student_sees(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path
) -> None:
    bars_teacher, seen = bar_teacher(), []

    def predict(crops: Any) -> Any:
        seen.append(crops)
        return bars_teacher.predict(crops)

    recipe = dataclasses.replace(short, epochs=2)
    teacher = dataclasses.replace(bars_teacher.teacher(), predict=predict)
    train_job(_job(bars, teacher, recipe, DistillationConfig(ONLY_KL, views=None), tmp_path / "c"), tmp_path / "run")
    assert {crops.shape for crops in seen} == {(14, 44, 44, 1)}
    assert len(seen) == 2 * 4
    # 25 positions and two orientations: few crops occur twice.
    assert len({crop.tobytes() for crops in seen for crop in crops}) > 0.8 * 2 * 56
    assert not (tmp_path / "c").exists()


def test_with_mixup_the_teacher_sees_the_mixed_images(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path
) -> None:
    seen = []

    def predict(crops: Any) -> Any:
        seen.append(crops)
        return bar_teacher().predict(crops)

    recipe = dataclasses.replace(short, epochs=1, augmentation=Augmentation(crop_px=48, flip=False), mixup_alpha=2.0)
    teacher = dataclasses.replace(bar_teacher().teacher(), predict=predict)
    config = DistillationConfig(LossWeights(1, 0.5, 0), views=None)
    train_job(_job(bars, teacher, recipe, config, tmp_path / "c"), tmp_path / "run")
    plain = {image.tobytes() for image in bars.splits["Training"].images}
    mixed = [crop.tobytes() not in plain for crops in seen for crop in crops]
    assert sum(mixed) > 0.9 * len(mixed)


def test_a_recipe_with_a_sampler_draws_each_class_equally_often(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path
) -> None:
    few = bars.splits["Training"].subset(np.flatnonzero(bars.splits["Training"].labels != 1)[:20])
    data = dataclasses.replace(bars, splits={**bars.splits, "Training": few.subset(np.r_[0:20, [2] * 15])})
    recipe = dataclasses.replace(short, balance="sampler")
    task = _job(data, bar_teacher().teacher(), recipe, DistillationConfig(ONLY_KL), tmp_path).task
    task.build(torch.device("cpu"))
    labels = data.splits["Training"].labels[task.order(torch.Generator().manual_seed(0)).numpy()]
    counts = np.bincount(labels)
    assert counts[counts > 0].max() - counts[counts > 0].min() <= 1


def test_labels_count_if_they_have_weight(bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(short, epochs=14, ema_decay=0.0, augmentation=Augmentation(crop_px=44))
    config = DistillationConfig(LossWeights(0, 1, 0))
    history = train_job(_job(bars, bar_teacher().teacher(), recipe, config, tmp_path / "c"), tmp_path / "run")
    assert max(report.validation_accuracy for report in history) > 0.6


@pytest.mark.parametrize(("embeds", "views"), [(True, "center-flip"), (False, None)])
def test_interrupted_training_resumes_bit_for_bit(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path, embeds: bool, views: Any
) -> None:
    def job() -> TrainingJob:
        config = DistillationConfig(LossWeights(1, 0.5, 1 if embeds else 0), 2.0, views)
        return _job(bars, bar_teacher(embeds=embeds).teacher(), short, config, tmp_path / "cache")

    train_whole_and_resumed(job, tmp_path, interrupted_after=6)  # in the middle of the second epoch


def test_another_teacher_or_other_targets_are_another_training(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path
) -> None:
    recipe, config = dataclasses.replace(short, epochs=1), DistillationConfig(ONLY_KL)
    train_job(_job(bars, bar_teacher().teacher(), recipe, config, tmp_path / "c"), tmp_path / "run")
    other = _job(bars, bar_teacher(sha256="b" * 64).teacher(), recipe, config, tmp_path / "c")
    with pytest.raises(InputError, match="teacher_sha256 was 'aaa"):
        train_job(other, tmp_path / "run", resume=True)
    warmer = _job(bars, bar_teacher().teacher(), recipe, DistillationConfig(ONLY_KL, 4.0), tmp_path / "c")
    with pytest.raises(InputError, match=r"temperature was 2.0, now it is 4.0"):
        train_job(warmer, tmp_path / "run", resume=True)


def test_the_checkpoint_records_the_teacher_and_the_class_vectors(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path
) -> None:
    from edgekit.models.checkpoints.checkpoint import load_checkpoint

    teacher = bar_teacher(embeds=True).teacher()
    recipe = dataclasses.replace(short, epochs=1)
    train_job(_job(bars, teacher, recipe, DistillationConfig(LossWeights(1, 0, 1)), tmp_path / "c"), tmp_path / "run")
    checkpoint = load_checkpoint(tmp_path / "run" / BEST_NAME)
    assert checkpoint.contract.architecture == "mini-xception@12"
    assert checkpoint.training["teacher"] == teacher.record()
    assert checkpoint.training["distillation"]["weights"] == {"kl": 1, "ce": 0, "cosine": 1}
    assert np.array_equal(checkpoint.state["class_vectors"].numpy(), teacher.space.class_vectors)
    assert checkpoint.state["logit_scale"].item() == 8


@pytest.mark.slow
def test_images_without_labels_are_learned_from(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path
) -> None:
    teacher, few = bar_teacher(), bars.splits["Training"].subset(np.arange(2))
    training = with_unlabelled(few, bars.splits["Training"].images)
    data = dataclasses.replace(
        bars,
        splits={n: dataclasses.replace(p, labels=teacher.named(p.images)) for n, p in bars.splits.items()},
    )
    recipe = dataclasses.replace(short, epochs=14, ema_decay=0.0, augmentation=Augmentation(crop_px=44))
    config = DistillationConfig(LossWeights(1, 0.1, 0), unlabelled="e" * 64)
    history = train_job(_job(data, teacher.teacher(), recipe, config, tmp_path / "c", training), tmp_path / "run")
    assert max(report.validation_accuracy for report in history) > 0.6
