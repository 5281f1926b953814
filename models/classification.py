"""Training a classifier on images with labels, or with distributions in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import Augmentation, augment, draw
from edgekit.models.data.balance import balanced_order, class_weights
from edgekit.models.evaluate import TorchClassifier, evaluate
from edgekit.models.grouped import set_training_progress
from edgekit.models.recipes import Recipe
from edgekit.models.registry import create_model
from edgekit.models.training import StepLoss, Task, Validation

Balance = Literal["none", "loss", "sampler"]


@dataclass(frozen=True)
class _Examples:
    """On the net's device: uint8 (N, C, H, W), int64 (N,), float32 (N, classes), float32 (classes,)."""

    images: Tensor
    labels: Tensor
    targets: Tensor | None
    class_weights: Tensor | None


class ClassificationTask(Task):
    """A net of the registry, cross-entropy, and the centre crop of a validation split."""

    def __init__(
        self, contract: Contract, recipe: Recipe, training: ImageSet, validation: ImageSet, balance: Balance = "none"
    ) -> None:
        """Name the net and its data.

        Args:
            contract: Describes the net to be: architecture, labels, preprocessing, data set.
            recipe: Its augmentation and label smoothing are used here.
            training: What is learned from; its targets take the labels' place in the loss.
            validation: What the best epoch is chosen by.
            balance: Make rare classes count as much as common ones: "loss" by weight, "sampler" by drawing every class
                equally often.
        """
        self._contract = contract
        self._augmentation: Augmentation = recipe.plain_augmentation
        self._label_smoothing = recipe.label_smoothing
        self._training = training
        self._validation = validation
        self._balance: Balance = balance
        self._device = torch.device("cpu")

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels and balance."""
        return {
            "architecture": self._contract.architecture,
            "labels": list(self._contract.labels),
            "balance": self._balance,
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return a new net."""
        labels = torch.from_numpy(self._training.labels.copy())
        targets, weighted = self._training.targets, self._balance == "loss"
        self._device = device
        self._examples = _Examples(
            torch.from_numpy(self._training.images.copy()).permute(0, 3, 1, 2).contiguous().to(device),
            labels.to(device),
            None if targets is None else torch.from_numpy(targets.copy()).to(device),
            class_weights(labels, len(self._contract.labels)).to(device) if weighted else None,
        )
        return create_model(self._contract.architecture, len(self._contract.labels))

    def order(self, generator: torch.Generator) -> Tensor:
        """Return all images once, or as the balance asks."""
        if self._balance == "sampler":
            return balanced_order(self._examples.labels.cpu(), generator)
        return torch.randperm(len(self._training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the augmentation's random numbers."""
        return draw(count, generator)

    def start_epoch(self, net: nn.Module, progress: float) -> None:
        """Let learned groups drop their connections."""
        set_training_progress(net, progress)

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the cross-entropy of augmented images."""
        images = augment(self._examples.images[indices], numbers, self._augmentation)
        images = images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        labels, targets = self._examples.labels[indices], self._examples.targets
        logits = net(images)
        # Distributions already say how sure the labels are.
        truth, smoothing = (labels, self._label_smoothing) if targets is None else (targets[indices], 0.0)
        losses = F.cross_entropy(
            logits.float(), truth, self._examples.class_weights, reduction="none", label_smoothing=smoothing
        )
        return StepLoss(losses.mean(), (logits.argmax(dim=1) == labels).sum())

    def validate(self, net: nn.Module) -> Validation:
        """Return loss and accuracy on the centre crop."""
        result = evaluate(TorchClassifier(net, self._contract, self._device), self._validation, "center-crop")
        return Validation(result.loss, result.accuracy)

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write a checkpoint with the net's contract."""
        save_checkpoint(path, Checkpoint(self._contract, net.state_dict(), training))
