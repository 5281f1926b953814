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
from edgekit.models.distill.distillation import DistillationTask, LossWeights, student_contract
from edgekit.models.distill.targets import targets_of
from edgekit.models.evaluation.evaluate import evaluate, open_classifier
from edgekit.models.model_loading import InputValues
from edgekit.models.training.loop import BEST_NAME, STATE_NAME, train_job
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import TrainingJob
from tests.resuming import job_of, train_whole_and_resumed

Make = Callable[..., Any]
ONLY_KL = LossWeights(1, 0, 0)


def _job(
    data: DataSet,
    teacher: Any,
    recipe: Recipe,
    weights: LossWeights,
    temperature: float = 2.0,
    training: ImageSet | None = None,
) -> TrainingJob:
    training = training or data.splits["Training"]
    targets = targets_of(teacher, training.images, lambda _done, _total: None)
    contract = student_contract("mini-xception", teacher, data, "square", InputValues())
    task = DistillationTask(
        contract, recipe, training, data.splits["PublicTest"], teacher, weights, temperature, targets
    )
    return job_of(task, recipe, teacher=teacher.record())


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / STATE_NAME, weights_only=True)["net"]
    return state


def _last_logits(folder: Path, data: DataSet) -> Any:
    return evaluate(open_classifier(folder / BEST_NAME), data.splits["PrivateTest"], "center-crop").logits


@pytest.mark.parametrize(
    ("embeds", "weights"),
    [
        (False, ONLY_KL),
        pytest.param(True, ONLY_KL, marks=pytest.mark.slow),
        (True, LossWeights(0, 0, 1)),
    ],
)
def test_the_student_agrees_with_its_teacher_and_not_with_the_labels(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path, embeds: bool, weights: LossWeights
) -> None:
    teacher = bar_teacher(embeds=embeds)
    # The validation labels are the teacher's classes; the training labels stay the true ones.
    wrong = {name: dataclasses.replace(part, labels=teacher.named(part.images)) for name, part in bars.splits.items()}
    data = dataclasses.replace(bars, splits={**wrong, "Training": bars.splits["Training"]})
    recipe = dataclasses.replace(short, epochs=14, ema_decay=0.0, augmentation=Augmentation(crop_px=44))
    train_job(_job(data, teacher.teacher(), recipe, weights), tmp_path / "run")
    logits = _last_logits(tmp_path / "run", data)
    test = data.splits["PrivateTest"].images
    assert (logits.argmax(axis=1) == teacher.named(test)).mean() > 0.6
    assert (logits.argmax(axis=1) == bars.splits["PrivateTest"].labels).mean() < 0.3


def test_labels_count_if_they_have_weight(bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path) -> None:
    recipe = dataclasses.replace(short, epochs=10, ema_decay=0.0, augmentation=Augmentation(crop_px=44))
    weights = LossWeights(0, 1, 0)
    history = train_job(_job(bars, bar_teacher().teacher(), recipe, weights), tmp_path / "run")
    assert max(report.validation_accuracy for report in history) > 0.6


@pytest.mark.parametrize("embeds", [True, False])
def test_interrupted_training_resumes_bit_for_bit(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path, embeds: bool
) -> None:
    def job() -> TrainingJob:
        weights = LossWeights(1, 0.5, 1 if embeds else 0)
        return _job(bars, bar_teacher(embeds=embeds).teacher(), short, weights)

    train_whole_and_resumed(job, tmp_path, interrupted_after=6)  # in the middle of the second epoch


def test_another_teacher_or_other_targets_are_another_training(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path
) -> None:
    recipe, weights = dataclasses.replace(short, epochs=1), ONLY_KL
    train_job(_job(bars, bar_teacher().teacher(), recipe, weights), tmp_path / "run")
    other = _job(bars, bar_teacher(sha256="b" * 64).teacher(), recipe, weights)
    with pytest.raises(InputError, match="teacher_sha256 was 'aaa"):
        train_job(other, tmp_path / "run", resume=True)
    warmer = _job(bars, bar_teacher().teacher(), recipe, ONLY_KL, 4.0)
    with pytest.raises(InputError, match=r"temperature was 2.0, now it is 4.0"):
        train_job(warmer, tmp_path / "run", resume=True)


def test_the_checkpoint_records_the_teacher_and_the_class_vectors(
    bars: DataSet, bar_teacher: Make, short: Recipe, tmp_path: Path
) -> None:
    from edgekit.models.checkpoint import load_checkpoint

    teacher = bar_teacher(embeds=True).teacher()
    recipe = dataclasses.replace(short, epochs=1)
    train_job(_job(bars, teacher, recipe, LossWeights(1, 0, 1)), tmp_path / "run")
    checkpoint = load_checkpoint(tmp_path / "run" / BEST_NAME)
    assert checkpoint.contract.architecture == "mini-xception@12"
    assert checkpoint.training["teacher"] == teacher.record()
    assert checkpoint.training["distillation"]["weights"] == {"kl": 1, "ce": 0, "cosine": 1}
    assert np.array_equal(checkpoint.state["class_vectors"].numpy(), teacher.space.class_vectors)
    assert checkpoint.state["logit_scale"].item() == 8
