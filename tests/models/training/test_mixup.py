"""Mixup mixes images and their losses in the drawn shares, and a training with it resumes bit for bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.models.data import DataSet
from edgekit.models.data.augment import Augmentation
from edgekit.models.data.camera import Camera
from edgekit.models.distill.run import distill
from edgekit.models.model_loading import contract_for
from edgekit.models.training.classification import ClassificationTask
from edgekit.models.training.mixup import draw_shares
from edgekit.models.training.options import MIN_MIXUP_ALPHA, TrainingOptions
from edgekit.models.training.recipes import Finish, Recipe
from edgekit.models.training.task import TrainingJob
from tests.resuming import train_whole_and_resumed

STILL = Augmentation(crop_px=48, flip=False)
RECIPE = Recipe(epochs=2, augmentation=STILL, batch_size=14, label_smoothing=0.2, mixup_alpha=0.5)


def _task(data: DataSet, recipe: Recipe = RECIPE, balance: str = "none") -> ClassificationTask:
    contract = contract_for("mini-xception", data.classes, data.name, data.is_gray)
    parts = data.splits["Training"], data.splits["PublicTest"]
    task = ClassificationTask(contract, recipe, *parts, balance=balance)  # type: ignore[arg-type]
    task.build(torch.device("cpu"))
    return task


def test_shares_have_the_beta_distribution() -> None:
    for alpha in (0.01, 0.5, 4.0):
        shares = draw_shares(20_000, alpha, torch.Generator().manual_seed(0))
        assert shares.shape == (20_000, 1)
        assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
        assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_photographed_images_are_mixed(bars: DataSet) -> None:
    augmentation = dataclasses.replace(STILL, camera=Camera(probability=1))
    mixed, plain = (
        _task(bars, dataclasses.replace(RECIPE, augmentation=augmentation, mixup_alpha=alpha)) for alpha in (0.5, 0.0)
    )
    indices = torch.tensor([3, 10, 25])
    numbers = mixed.draw(3, torch.Generator().manual_seed(0))
    shares = numbers[:, -1:, None, None]
    images = plain.augmented(indices, numbers[:, :-1])
    expected = images * shares + images.roll(1, dims=0) * (1 - shares)
    torch.testing.assert_close(mixed.augmented(indices, numbers), expected)


@pytest.mark.parametrize(("with_targets", "balance"), [(False, "none"), (False, "loss"), (True, "none")])
def test_images_and_losses_are_mixed_in_the_same_shares(bars: DataSet, with_targets: bool, balance: str) -> None:
    if with_targets:
        drawn = np.random.default_rng(0).dirichlet(np.ones(7), 56).astype(np.float32)
        training = dataclasses.replace(bars.splits["Training"], targets=drawn)
        bars = dataclasses.replace(bars, splits={**bars.splits, "Training": training})
    task = _task(bars, balance=balance)
    indices = torch.tensor([3, 10, 25])
    numbers = task.draw(3, torch.Generator().manual_seed(0))
    shares = numbers[:, -1].tolist()
    assert all(0 < share < 1 for share in shares)
    images = torch.from_numpy(bars.splits["Training"].images[indices]).permute(0, 3, 1, 2) / 255
    shown = []

    class Net(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            shown.append(images)
            return logits

    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    result = task.loss(Net(), indices, numbers)
    plain = [task.label_loss(logits, indices, task._class_weights), 0]
    plain[1] = task.label_loss(logits, indices[[2, 0, 1]], task._class_weights)
    for row, share in enumerate(shares):
        expected = images[row] * share + images[row - 1] * (1 - share)
        assert torch.allclose(shown[0][row, :1], expected, atol=1e-6)
    assert len(shown) == 1, "one pass"
    mixed = [share * float(plain[0][row]) + (1 - share) * float(plain[1][row]) for row, share in enumerate(shares)]
    assert float(result.loss) == pytest.approx(sum(mixed) / 3, rel=1e-5)
    main = [int(indices[row] if share >= 0.5 else indices[row - 1]) for row, share in enumerate(shares)]
    correct = logits.argmax(dim=1).numpy() == bars.splits["Training"].labels[main]
    assert int(result.correct) == correct.sum()


def test_the_finish_has_no_mixup(bars: DataSet) -> None:
    task = _task(bars, dataclasses.replace(RECIPE, finish=Finish(0.5, 0.1, STILL)))
    columns = []
    for epoch in range(2):
        task.start_epoch(nn.Identity(), epoch)
        columns.append(task.draw(4, torch.Generator()).shape[1])
    assert columns == [12, 11]


def test_interrupted_training_resumes_bit_for_bit(bars: DataSet, tmp_path: Path) -> None:
    def job() -> TrainingJob:
        return TrainingJob(_task(bars), RECIPE, {}, accelerator="cpu")

    train_whole_and_resumed(job, tmp_path, interrupted_after=6)  # in the middle of the second epoch


def test_cached_outputs_of_a_teacher_are_refused(bars_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="add on-the-fly, or leave mixup-alpha out"):
        distill(teachers=["x"], data=bars_folder, output=tmp_path / "run", mixup_alpha=0.5)


@pytest.mark.parametrize("alpha", [1e-6, 0.009, -0.2, 10.5])
def test_a_share_that_underflows_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=r"expected 0 \(no mixup\), or 0\.01 to 10"):
        TrainingOptions(data="x", output="y", mixup_alpha=alpha)


def test_shares_of_the_smallest_alpha_are_those_of_one_image() -> None:
    TrainingOptions(data="x", output="y", mixup_alpha=MIN_MIXUP_ALPHA)
    shares = draw_shares(50_000, MIN_MIXUP_ALPHA, torch.Generator().manual_seed(0))
    assert not (shares == 0.5).any()  # 0.5 means that both draws underflowed
