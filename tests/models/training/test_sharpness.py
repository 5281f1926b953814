"""Sharpness-aware minimisation: a step uses the gradient at the raised weights; nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.models.data import DataSet
from edgekit.models.data.augment import Augmentation
from edgekit.models.model_loading import contract_for
from edgekit.models.nets import registry
from edgekit.models.training.classification import ClassificationTask
from edgekit.models.training.loop import train_job
from edgekit.models.training.options import TrainingOptions
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.sharpness import raised_loss
from edgekit.models.training.task import TrainingJob
from tests.resuming import train_whole_and_resumed

# One batch per epoch and constant learning rate: an epoch is one step of plain gradient descent.
ONE_STEP = Recipe(
    epochs=1,
    augmentation=Augmentation(crop_px=48, flip=False),
    batch_size=56,
    max_lr=0.1,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
    schedule="paper",
    keep="last",
    sam_radius=0.5,
)


class _Net(nn.Sequential):
    def __init__(self, classes: int = 7) -> None:
        layers = (nn.Conv2d(3, 4, 7, 4), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(5), nn.Flatten())
        super().__init__(*layers, nn.Linear(4 * 5 * 5, classes))


@pytest.fixture(autouse=True)
def net_with_batchnorm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the net "small" to the registry."""
    monkeypatch.setitem(registry.NETS, "small", _Net)


def _job(data: DataSet, recipe: Recipe) -> TrainingJob:
    contract = contract_for("small", data.classes, data.name, data.is_gray)
    task = ClassificationTask(contract, recipe, data.splits["Training"], data.splits["PublicTest"])
    return TrainingJob(task, recipe, {}, accelerator="cpu")


def test_weights_move_by_the_radius_along_the_gradient_and_return_exactly() -> None:
    torch.manual_seed(0)
    net = _Net()
    net(torch.rand(4, 3, 48, 48)).square().sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gradients = torch.cat([each.grad.flatten() for each in net.parameters() if each.grad is not None])
    weights = torch.cat([each.detach().flatten() for each in net.parameters()])
    with raised_loss(net, 0.25):
        moved = torch.cat([each.detach().flatten() for each in net.parameters()]) - weights
        torch.testing.assert_close(moved, 0.25 * gradients / gradients.norm(), atol=1e-6, rtol=1e-4)
        net(torch.rand(4, 3, 48, 48) + 5)
    after = net.state_dict()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    net(torch.rand(4, 3, 48, 48) + 5)
    assert not torch.equal(before["1.running_mean"], net.state_dict()["1.running_mean"]), "statistics are frozen"


def test_infinite_gradients_leave_no_nan() -> None:
    net = _Net()
    images = torch.rand(4, 3, 48, 48)
    net(images).sum().backward()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    next(net.parameters()).grad.fill_(torch.inf)  # type: ignore[union-attr]  # as with a loss scale that is too large
    with raised_loss(net, 0.25):
        net(images)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_without_a_gradient_the_weights_stay() -> None:
    net = nn.Linear(2, 2)
    (net(torch.ones(1, 2)) * 0).sum().backward()
    before = net.weight.detach().clone()
    with raised_loss(net, 1.0):
        assert torch.equal(net.weight, before)


def test_a_step_follows_the_gradient_at_the_raised_weights(bars: DataSet, tmp_path: Path) -> None:
    job = _job(bars, ONE_STEP)
    torch.manual_seed(0)
    net = job.task.build(torch.device("cpu")).train()
    start = [each.detach().clone() for each in net.parameters()]
    generator = torch.Generator().manual_seed(0)
    order = job.task.order(generator)
    numbers = job.task.draw(len(order), generator)
    for _ in range(2):  # the gradient, then the gradient at the raised weights
        gradients = torch.autograd.grad(job.task.loss(net, order, numbers).loss, list(net.parameters()))
        length = torch.cat([each.flatten() for each in gradients]).norm()
        with torch.no_grad():
            for each, value, gradient in zip(net.parameters(), start, gradients, strict=True):
                each.copy_(value + ONE_STEP.sam_radius / length * gradient)
    train_job(_job(bars, ONE_STEP), tmp_path)
    trained = torch.load(tmp_path / "last.pt", weights_only=True)["net"]
    for (name, _), value, gradient in zip(net.named_parameters(), start, gradients, strict=True):
        torch.testing.assert_close(trained[name], value - ONE_STEP.max_lr * gradient, atol=1e-6, rtol=1e-3)


def test_interrupted_training_resumes_bit_for_bit(bars: DataSet, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, augmentation=Augmentation(crop_px=44), batch_size=14, sam_radius=0.1)
    train_whole_and_resumed(lambda: _job(bars, recipe), tmp_path, interrupted_after=6)


@pytest.mark.parametrize("radius", [-0.1, 10.5, float("nan")])
def test_a_radius_out_of_range_is_refused(radius: float) -> None:
    with pytest.raises(InputError, match="expected 0 to 10"):
        TrainingOptions(data="x", output="y", sam_radius=radius)
