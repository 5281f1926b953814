"""Interface between the training loop and what it trains: `Task` (net, examples, loss) and `TrainingJob`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from edgekit.models.data import ImageSet
from edgekit.models.data.disk import is_on_disk
from edgekit.models.training.options import Accelerator
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.record import TrainingRecord
from edgekit.preprocess import ImageU8


class StepLoss(NamedTuple):
    """Result of one process's share of a batch, both scalars: mean loss, and number of correct predictions."""

    loss: Tensor
    correct: Tensor


class Validation(NamedTuple):
    """Result on the validation split: mean loss, and accuracy 0..1."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Examples:
    """`images` uint8 (N, C, H, W), `labels` int64 (N,), `targets` float32 (N, classes) where the split has them."""

    images: Tensor
    labels: Tensor
    targets: Tensor | None


class Task(Protocol):
    """A net, its examples and its loss. The loop owns everything else: steps, weight averaging, files."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings that a resumed training must share with the interrupted one."""

    def build(self, device: torch.device) -> nn.Module:
        """Return the net, initialised from torch's global generator, and copy the examples to `device`."""

    def learned(self, net: nn.Module) -> nn.Module:
        """Return the trained part of the net, which is averaged and saved for resuming; the rest is frozen."""
        return net

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the example indices of one epoch in training order: int64 (n,), on the CPU."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers of a batch of `count` examples, one row per example, on the CPU."""

    def start_epoch(self, net: nn.Module, epoch: int) -> None:
        """Prepare for an epoch, counted from 0."""
        del net, epoch

    def prefetch(self, batches: Sequence[Tensor]) -> None:
        """Prepare for the batches of an epoch: indices (n,) of this process's examples, in the order of `loss`."""
        del batches

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the loss of the examples at `indices` with their random `numbers`, both on the net's device."""

    def validate(self, net: nn.Module) -> Validation:
        """Return loss and accuracy on the validation split."""

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write the trained net; `training` is the record of the training."""


@dataclass(frozen=True)
class TrainingJob:
    """A task with recipe, record and machine settings; equal jobs on equal machines give equal weights.

    `record` goes into the checkpoint, and its `seed` and `precision` apply.
    """

    task: Task
    recipe: Recipe
    record: TrainingRecord
    accelerator: Accelerator = "auto"


def on_device(part: ImageSet, device: torch.device) -> Examples:
    """Return a copy of a split on `device`; images in a file stay there."""
    return Examples(
        _on_device(part.images, device),
        torch.tensor(part.labels, device=device),
        None if part.targets is None else torch.tensor(part.targets, device=device),
    )


def _on_device(images: ImageU8, device: torch.device) -> Tensor:
    if is_on_disk(images):
        return torch.from_numpy(images).permute(0, 3, 1, 2)
    return torch.tensor(images, device=device).permute(0, 3, 1, 2).contiguous()  # (N, H, W, C) → (N, C, H, W)
