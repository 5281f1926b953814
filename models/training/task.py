"""What a training is: a task, which is a net with examples and a loss, and everything else that decides its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from edgekit.models.training.distributed import Accelerator, Precision
from edgekit.models.training.recipes import Recipe


class StepLoss(NamedTuple):
    """Of one process's share of a batch: the mean loss, and how many answers were right, both scalars."""

    loss: Tensor
    correct: Tensor


class Validation(NamedTuple):
    """Of a whole validation split: mean loss, and accuracy 0..1."""

    loss: float
    accuracy: float


class Task(Protocol):
    """What is trained: a net, examples and a loss. The loop knows none of them; it owns steps, averages and files."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what of the task must be equal for a resumed training to be the same training."""

    def build(self, device: torch.device) -> nn.Module:
        """Return the net, its initial values drawn from torch's global generator, and move the examples to `device`."""

    def learned(self, net: nn.Module) -> nn.Module:
        """Return the part of the net that is trained, averaged and kept for resuming; the rest never changes."""
        return net

    def order(self, generator: torch.Generator) -> Tensor:
        """Return the examples of one epoch in the order they are shown, as indices int64 (n,) on the CPU."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the random numbers of a batch on the CPU, one row an example."""

    def start_epoch(self, net: nn.Module, epoch: int) -> None:
        """Called before an epoch, counted from 0."""

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the loss of the examples at `indices` with the random numbers `numbers`, both on the net's device."""

    def validate(self, net: nn.Module) -> Validation:
        """Return how good the net is on what was held back."""

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write what users of the trained net need; `training` says how it was made."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything a training needs; equal jobs on equal machines give equal weights.

    `provenance` lands in the checkpoint (checksum of the data, versions).
    """

    task: Task
    recipe: Recipe
    provenance: Mapping[str, Any]
    seed: int = 0
    precision: Precision = "fp32"
    accelerator: Accelerator = "auto"

    def fingerprint(self) -> dict[str, Any]:
        """Return what must be equal for a resumed training to be the same training."""
        return {
            **self.task.fingerprint(),
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "precision": self.precision,
            **{name: self.provenance.get(name) for name in ("data_sha256", "training_split", "validation")},
        }
