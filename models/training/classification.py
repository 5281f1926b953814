"""Training a classifier on images with labels, or with distributions in their place."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekit.contract import Contract
from edgekit.models.data import ImageSet
from edgekit.models.data.balance import balanced_order, class_weights
from edgekit.models.training.init_weights import InitialWeights
from edgekit.models.training.net_task import NetTask
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import StepLoss

Balance = Literal["none", "loss", "sampler"]


class ClassificationTask(NetTask):
    """Cross-entropy with the labels."""

    def __init__(
        self,
        contract: Contract,
        recipe: Recipe,
        training: ImageSet,
        validation: ImageSet,
        balance: Balance = "none",
        initial: InitialWeights | None = None,
    ) -> None:
        """Name the net and its data; see `NetTask`.

        `balance` makes rare classes count as much as common ones: "loss" by weight, "sampler" by drawing every class
        equally often.
        """
        super().__init__(contract, recipe, training, validation, initial)
        self._balance: Balance = balance
        self._class_weights: Tensor | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels and balance."""
        return {**super().fingerprint(), "balance": self._balance}

    def build(self, device: torch.device) -> nn.Module:
        """Return a new net."""
        net = super().build(device)
        if self._balance == "loss":
            self._class_weights = class_weights(self.examples.labels, len(self.contract.labels))
        return net

    def order(self, generator: torch.Generator) -> Tensor:
        """Return all images once, or as the balance asks."""
        if self._balance == "sampler":
            return balanced_order(self.examples.labels.cpu(), generator)
        return super().order(generator)

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the cross-entropy of augmented images."""
        logits = net(self.augmented(indices, numbers)).float()
        right = logits.argmax(dim=1) == self.examples.labels[indices]
        return StepLoss(self.label_loss(logits, indices, self._class_weights).mean(), right.sum())
