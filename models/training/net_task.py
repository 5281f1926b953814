"""What classification and distillation have in common: a net of the registry that learns from augmented images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_weights, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import augment, draw
from edgekit.models.evaluation.evaluate import TorchClassifier, evaluate
from edgekit.models.nets.grouped import set_training_progress
from edgekit.models.nets.registry import create_model
from edgekit.models.training.examples import Examples, on_device
from edgekit.models.training.init_weights import InitialWeights
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import Task, Validation


class NetTask(Task):
    """All but the loss; validation is by the labels, on the centre crop."""

    examples: Examples

    def __init__(
        self,
        contract: Contract,
        recipe: Recipe,
        training: ImageSet,
        validation: ImageSet,
        initial: InitialWeights | None = None,
    ) -> None:
        """Name the net and its data.

        Args:
            contract: Describes the net to be: architecture, labels, preprocessing, data set.
            recipe: Its augmentation and label smoothing are used, stage by stage.
            training: What is learned from.
            validation: What the best epoch is chosen by.
            initial: Where the net starts; None: at random.
        """
        self.contract = contract
        self.device = torch.device("cpu")
        self._recipe = recipe
        self._augmentation = recipe.plain_augmentation
        self._label_smoothing = recipe.label_smoothing
        self._training = training
        self._validation = validation
        self._initial = initial

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels and where the net starts."""
        initial = {} if self._initial is None else {"initial_sha256": self._initial.sha256}
        return {"architecture": self.contract.architecture, "labels": list(self.contract.labels), **initial}

    def build(self, device: torch.device) -> nn.Module:
        """Return a new net."""
        self.device = device
        self.examples = on_device(self._training, device)
        net = create_model(self.contract.architecture, len(self.contract.labels))
        if self._initial is not None:
            load_weights(net, {**net.state_dict(), **self._initial.state}, self.contract.architecture)
        return net

    def order(self, generator: torch.Generator) -> Tensor:
        """Return all images once."""
        return torch.randperm(len(self._training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the augmentation's random numbers."""
        return draw(count, generator)

    def start_epoch(self, net: nn.Module, epoch: int) -> None:
        """Take the augmentation of the recipe's stage, and let learned groups drop their connections."""
        stage, _ = self._recipe.stage(epoch)
        self._augmentation, self._label_smoothing = stage.plain_augmentation, stage.label_smoothing
        set_training_progress(net, epoch / self._recipe.epochs)

    def validate(self, net: nn.Module) -> Validation:
        """Return loss and accuracy on the centre crop."""
        result = evaluate(TorchClassifier(net, self.contract, self.device), self._validation, "center-crop")
        return Validation(result.loss, result.accuracy)

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write a checkpoint with the net's contract."""
        save_checkpoint(path, Checkpoint(self.contract, net.state_dict(), training))

    def augmented(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return augmented images in 0..1, (n, 3, h, w) in channels_last."""
        images = augment(self.examples.images[indices], numbers, self._augmentation)
        return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def label_loss(self, logits: Tensor, indices: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Return the cross-entropy with labels, or with targets in their place: (n,).

        Targets already say how sure the labels are and are not smoothed. Images without a label, -1 or a row of zeros,
        cost nothing.
        """
        if self.examples.targets is not None:
            return F.cross_entropy(logits, self.examples.targets[indices], class_weights, reduction="none")
        return F.cross_entropy(
            logits,
            self.examples.labels[indices],
            class_weights,
            reduction="none",
            ignore_index=-1,
            label_smoothing=self._label_smoothing,
        )
