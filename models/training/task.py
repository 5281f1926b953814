"""What the training loop trains: the interface `Task`, and `ClassificationTask`, a registry net with cross-entropy.

A saved net is calibrated: the temperature that fits the validation images is folded into its last layer or scale.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.data import ImageSet
from edgekit.models.data.augment import Augmentation, augment, draw
from edgekit.models.data.disk import is_on_disk
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.evaluation.evaluate import Evaluation, TorchClassifier, evaluate, fit_temperature
from edgekit.models.model_loading import build_net, load_weights
from edgekit.models.nets.embedding_net import LOGIT_SCALE
from edgekit.models.nets.grouped import set_training_progress
from edgekit.models.nets.registry import class_dimensions, create_model, plain_name
from edgekit.models.training.init_weights import InitialWeights
from edgekit.models.training.options import Accelerator
from edgekit.models.training.recipes import Balance, Recipe
from edgekit.models.training.record import Calibration, TrainingRecord
from edgekit.preprocess import ImageU8

# With fewer validation images the temperature fits their noise.
MIN_CALIBRATION_IMAGES = 20


class StepLoss(NamedTuple):
    """Result of one process's share of a batch, both scalars: mean loss, and number of correct predictions."""

    loss: Tensor
    correct: Tensor


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

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the loss of the examples at `indices` with their random `numbers`, both on the net's device."""

    def validate(self, net: nn.Module) -> Evaluation:
        """Return the predictions for the validation split."""

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
    """Return images (N, H, W, C) as a tensor (N, C, H, W) on `device`; of images in a file, a view of the file."""
    if is_on_disk(images):
        return torch.from_numpy(images).permute(0, 3, 1, 2)
    return torch.tensor(images, device=device).permute(0, 3, 1, 2).contiguous()  # (N, H, W, C) → (N, C, H, W)


@dataclass
class NetTask(Task):
    """Base class of trainings of a registry net, without a loss; validation uses the labels and the centre crop.

    Attributes:
        contract: Architecture, labels, preprocessing and data set of the net.
        recipe: The recipe; each of its stages sets the augmentation and the label smoothing.
        training: The training images.
        validation: The images that select the best epoch.
        initial: Weights to start from; None: random ones.
        balance: "sampler" draws each class equally often; None: the recipe's.
        calibration: Images that the temperature of a saved net is fitted on; None: it is not calibrated.
    """

    contract: Contract
    recipe: Recipe
    training: ImageSet
    validation: ImageSet
    _: KW_ONLY
    initial: InitialWeights | None = None
    balance: Balance | None = None
    calibration: ImageSet | None = None

    def __post_init__(self) -> None:
        self.device = torch.device("cpu")
        self.examples: Examples  # set by `build`
        self._latest: Evaluation | None = None  # the result of the last call of `validate`
        # Until `start_epoch` sets those of the epoch's stage.
        self._augmentation = self._scaled(self.recipe.plain_augmentation)  # for the size of the net's images
        self._label_smoothing = self.recipe.label_smoothing
        self.balance = self.balance or self.recipe.balance

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels, subject, fit, balance, and the checksum of the initial weights.

        A training can only be resumed with equal values.
        """
        contract = self.contract
        return {
            "architecture": contract.architecture,
            "labels": list(contract.labels),
            "initial_sha256": self.initial and self.initial.sha256,
            "subject": contract.subject,
            "fit": contract.crop.fit,
            "balance": self.balance,
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return a new net and copy the training images to `device`."""
        self.device = device
        self.examples = on_device(self.training, device)
        net = create_model(self.contract.architecture, len(self.contract.labels))
        if self.initial is not None:
            load_weights(net, self.initial.merged_into(net.state_dict()), self.contract.architecture)
        return net

    def order(self, generator: torch.Generator) -> Tensor:
        """Return a random permutation of all images, or an order with balanced classes."""
        if self.balance == "sampler":
            return balanced_order(self.examples.labels.cpu(), generator)
        return torch.randperm(len(self.training), generator=generator)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return the augmentation's random numbers."""
        return draw(count, generator, self._augmentation)

    def start_epoch(self, net: nn.Module, epoch: int) -> None:
        """Apply the recipe's stage, and drop connections of learned group convolutions."""
        stage, _ = self.recipe.stage(epoch)
        self._augmentation = self._scaled(stage.plain_augmentation)
        self._label_smoothing = stage.label_smoothing
        set_training_progress(net, epoch / self.recipe.epochs)

    def _scaled(self, augmentation: Augmentation) -> Augmentation:
        """Return the augmentation for the contract's images; recipes are made for those of 48 pixels."""
        crop = self.contract.crop
        return augmentation if crop.resize_hw[0] == SIDE_PX else augmentation.scaled(crop.center_crop_hw[0])

    def validate(self, net: nn.Module) -> Evaluation:
        """Return the predictions for the centre crops of the validation images."""
        self._latest = evaluate(TorchClassifier(net, self.contract, self.device), self.validation, "center-crop")
        return self._latest

    def save(self, path: Path, net: nn.Module, training: Mapping[str, Any]) -> None:
        """Write a checkpoint with the net's contract, calibrated if there are images for it.

        The net must be the one of the last call of `validate`, whose result is used again.
        """
        checkpoint = Checkpoint(self.contract, net.state_dict(), training)
        if self.calibration is not None:
            # The same images (the same object): their predictions are known.
            evaluation = self._latest if self.calibration is self.validation else None
            checkpoint = calibrated(checkpoint, self.calibration, self.device, evaluation)
        save_checkpoint(path, checkpoint)

    def augmented(self, indices: Tensor, numbers: Tensor) -> Tensor:
        """Return augmented images in 0..1: float32 (n, 3, h, w), channels_last."""
        pixels = self.examples.images[indices.to(self.examples.images.device)].to(self.device)
        images = augment(pixels, numbers, self._augmentation)  # (n, 1 or 3, h, w)
        return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def normalised(self, images: Tensor) -> Tensor:
        """Return images (n, 3, h, w) in 0..1 as the net takes them, see `edgekit.contract.InputSpec`."""
        spec = self.contract.input
        takes_0_to_1 = spec.scale == 1 / 255 and set(spec.mean) == {0.0} and set(spec.std) == {1.0}
        if takes_0_to_1:
            return images
        mean = torch.tensor(spec.mean, device=images.device).view(1, -1, 1, 1)
        std = torch.tensor(spec.std, device=images.device).view(1, -1, 1, 1)
        return images.mul(255 * spec.scale).sub_(mean).div_(std)  # `scale` is a factor of pixels 0..255

    def label_loss(self, logits: Tensor, indices: Tensor) -> Tensor:
        """Return the cross-entropy (n,) with the targets, or with the smoothed labels where there are no targets."""
        if self.examples.targets is not None:
            return F.cross_entropy(logits, self.examples.targets[indices], reduction="none")
        labels = self.examples.labels[indices]
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=self._label_smoothing)


class ClassificationTask(NetTask):
    """Training with cross-entropy to the labels, or to distributions over the classes (targets)."""

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the cross-entropy of augmented images."""
        logits = net(self.normalised(self.augmented(indices, numbers))).float()  # (n, classes)
        correct = logits.argmax(dim=1) == self.examples.labels[indices]
        return StepLoss(self.label_loss(logits, indices).mean(), correct.sum())


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the image indices of one epoch, with equally many of each class: int64 (N,), N = number of labels.

    Within a class no image is repeated before all its images were used. If the number of labels is not divisible by
    the number of classes, random classes get one image more.
    """
    present = torch.unique(labels)
    quotas = torch.full((len(present),), len(labels) // len(present))
    extra = torch.randperm(len(present), generator=generator)[: len(labels) % len(present)]
    quotas[extra] += 1
    drawn = []
    for label, quota in zip(present.tolist(), quotas.tolist(), strict=True):
        members = torch.nonzero(labels == label).flatten()
        passes = math.ceil(quota / len(members))
        order = torch.cat([torch.randperm(len(members), generator=generator) for _ in range(passes)])
        drawn.append(members[order[:quota]])
    return torch.cat(drawn)[torch.randperm(len(labels), generator=generator)]


def calibrated(
    checkpoint: Checkpoint,
    validation: ImageSet,
    device: torch.device | None = None,
    known: Evaluation | None = None,
) -> Checkpoint:
    """Return a checkpoint whose logits are divided by a temperature, fitted on the validation images.

    The tensors of the last layer are divided, or in an embedding space the scale of the cosines. No prediction changes.
    The contract records the temperature. `known` is the evaluation on these images, if there is one already.

    The checkpoint itself is returned if there are fewer than 20 validation images, if all or none of them are
    classified correctly (then no temperature is best), or if the net does not end in a linear layer.
    """
    if len(validation) < MIN_CALIBRATION_IMAGES:
        return checkpoint
    before = known or _evaluated(checkpoint, validation, device)
    if before.correct in (0, before.total):
        return checkpoint
    temperature = fit_temperature(before.logits, before.truths)
    state = dict(checkpoint.state)
    for name in _scaled_tensors(checkpoint.contract.architecture):
        state[name] = state[name] / temperature
    # Check on some images that this has divided the logits, which is so only if the net ends in a linear layer.
    few = validation.subset(np.arange(MIN_CALIBRATION_IMAGES))
    after = _evaluated(replace(checkpoint, state=state), few, device).logits
    if not np.allclose(after, before.logits[: len(few)] / temperature, rtol=1e-3, atol=1e-3):
        return checkpoint
    scaled = replace(before, logits=before.logits / np.float32(temperature))
    errors = before.calibration.expected_error, scaled.calibration.expected_error
    record = Calibration(temperature, error_before=errors[0], error_after=errors[1])
    contract = replace(checkpoint.contract, temperature=temperature)
    return Checkpoint(contract, state, {**checkpoint.training, "calibration": asdict(record)})


def _scaled_tensors(architecture: str) -> Collection[str]:
    """Return the names of the tensors to which the logits are proportional."""
    return (LOGIT_SCALE,) if plain_name(architecture) != architecture else class_dimensions(architecture)


def _evaluated(checkpoint: Checkpoint, images: ImageSet, device: torch.device | None) -> Evaluation:
    """Return the predictions of a checkpoint for the centre crops of images."""
    return evaluate(TorchClassifier(build_net(checkpoint), checkpoint.contract, device), images, "center-crop")
