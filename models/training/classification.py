"""Training of a registry net on augmented images: `NetTask`, and `ClassificationTask` with cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from edgekit.contract import Contract
from edgekit.models.checkpoints.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import Augmentation, augment, draw
from edgekit.models.data.balance import balanced_order
from edgekit.models.data.disk import is_on_disk
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.evaluation.evaluate import TorchClassifier, evaluate
from edgekit.models.model_loading import load_weights
from edgekit.models.nets.grouped import set_training_progress
from edgekit.models.nets.registry import create_model
from edgekit.models.training.init_weights import InitialWeights
from edgekit.models.training.recipes import Balance, Recipe
from edgekit.models.training.task import Examples, StepLoss, Task, Validation, on_device

# Processes that read images from the disk: two keep ahead of a CPU's training.
_WORKERS = 2


class NetTask(Task):
    """Base class of trainings of a registry net, without a loss; validation uses the labels and the centre crop."""

    examples: Examples

    def __init__(
        self,
        contract: Contract,
        recipe: Recipe,
        training: ImageSet,
        validation: ImageSet,
        initial: InitialWeights | None = None,
        balance: Balance | None = None,
    ) -> None:
        """Set net and data.

        Args:
            contract: Architecture, labels, preprocessing and data set of the net.
            recipe: The recipe; each of its stages sets the augmentation and the label smoothing.
            training: The training images.
            validation: The images that select the best epoch.
            initial: Weights to start from; None: random ones.
            balance: "sampler" draws each class equally often; None: the recipe's.
        """
        self.contract = contract
        self.device = torch.device("cpu")
        self._recipe = recipe
        self._augmentation = self._scaled(recipe.plain_augmentation)
        self._label_smoothing = recipe.label_smoothing
        self._training = training
        self._validation = validation
        self._initial = initial
        self._balance: Balance = balance or recipe.balance
        self._loaded: Iterator[Tensor] | None = None

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels, subject, fit, balance, and the checksum of the initial weights."""
        contract = self.contract
        return {
            "architecture": contract.architecture,
            "labels": list(contract.labels),
            "initial_sha256": self._initial and self._initial.sha256,
            "subject": contract.subject,
            "fit": contract.crop.fit,
            "balance": self._balance,
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return a new net and copy the training images to `device`."""
        self.device = device
        self.examples = on_device(self._training, device)
        net = create_model(self.contract.architecture, len(self.contract.labels))
        if self._initial is not None:
            load_weights(net, self._initial.merged_into(net.state_dict()), self.contract.architecture)
        return net

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random permutation of all images, or an order with balanced classes."""
        if self._balance == "sampler":
            return balanced_order(self.examples.labels.cpu(), generator)
        return torch.randperm(len(self._training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the augmentation's random numbers."""
        return draw(count, generator, self._augmentation)

    def start_epoch(self, net: nn.Module, epoch: int) -> None:
        """Apply the recipe's stage, and drop connections of learned group convolutions."""
        stage, _ = self._recipe.stage(epoch)
        self._augmentation = self._scaled(stage.plain_augmentation)
        self._label_smoothing = stage.label_smoothing
        set_training_progress(net, epoch / self._recipe.epochs)

    def prefetch(self, batches: Sequence[Tensor]) -> None:
        """Start worker processes that read the batches of an epoch, where the images are on disk."""
        if is_on_disk(self._training.images):
            loader: DataLoader[Tensor] = DataLoader(
                self.examples.images,  # type: ignore[arg-type] # a worker indexes it with a whole batch
                batch_size=None,
                sampler=[batch.tolist() for batch in batches],
                num_workers=_WORKERS,
                generator=torch.Generator(),  # the global one, from which dropout draws, stays unchanged
            )
            self._loaded = iter(loader)

    def _scaled(self, augmentation: Augmentation) -> Augmentation:
        """Return the augmentation for the contract's images; recipes are made for those of 48 pixels."""
        crop = self.contract.crop
        return augmentation if crop.resize_hw[0] == SIDE_PX else augmentation.scaled(crop.center_crop_hw[0])

    def validate(self, net: nn.Module) -> Validation:
        """Return loss and accuracy on the centre crop."""
        result = evaluate(TorchClassifier(net, self.contract, self.device), self._validation, "center-crop")
        return Validation(result.loss, result.accuracy)

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write a checkpoint with the net's contract."""
        save_checkpoint(path, Checkpoint(self.contract, net.state_dict(), training))

    def augmented(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return augmented images in 0..1: float32 (n, 3, h, w), channels_last."""
        pixels = self.examples.images[indices] if self._loaded is None else next(self._loaded).to(self.device)
        images = augment(pixels, numbers, self._augmentation)  # (n, 1 or 3, h, w)
        return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def normalised(self, images: Tensor) -> Tensor:
        """Return images (n, 3, h, w) in 0..1 as the net takes them, see `edgekit.contract.InputSpec`."""
        spec = self.contract.input
        if spec.scale == 1 / 255 and not any(spec.mean) and set(spec.std) == {1.0}:
            return images
        mean, std = (torch.tensor(values, device=images.device).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
        return images.mul(255 * spec.scale).sub_(mean).div_(std)

    def label_loss(self, logits: Tensor, indices: Tensor) -> Tensor:
        """Return the cross-entropy (n,) with the targets, or with the smoothed labels where there are no targets.

        Images without a label (-1, or a target row of zeros) have loss 0.
        """
        if self.examples.targets is not None:
            return F.cross_entropy(logits, self.examples.targets[indices], reduction="none")
        return F.cross_entropy(
            logits,
            self.examples.labels[indices],
            reduction="none",
            ignore_index=-1,
            label_smoothing=self._label_smoothing,
        )


class ClassificationTask(NetTask):
    """Training with cross-entropy to the labels, or to distributions over the classes (targets)."""

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the cross-entropy of augmented images."""
        logits = net(self.normalised(self.augmented(indices, numbers))).float()  # (n, classes)
        correct = logits.argmax(dim=1) == self.examples.labels[indices]
        return StepLoss(self.label_loss(logits, indices).mean(), correct.sum())
