"""Distillation as a task of the training loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract, Fit
from edgekit.errors import InputError
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.data.augment import crop_number
from edgekit.models.data.fer2013 import SIDE_PX
from edgekit.models.distill.cache import finite_outputs
from edgekit.models.distill.losses import LossWeights, cosine_distance, kl_divergence
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, subject_of
from edgekit.models.distill.views import Views, training_crop_px
from edgekit.models.distill.votes import VotePowers
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import embedding_name
from edgekit.models.pretrained import InputValues
from edgekit.models.training.classification import NetTask
from edgekit.models.training.init_weights import InitialWeights
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import StepLoss


@dataclass(frozen=True)
class DistillationConfig:
    """Settings that determine the result of a distillation.

    Attributes:
        weights: Weights of the parts of the loss.
        temperature: τ of both softmaxes.
        views: Views whose teacher outputs are cached; None: the teacher classifies each augmented crop.
        unlabelled: Checksum of the images without labels; None: all images have labels.
        out_of_fold: Whether each image has the targets of the teachers that were trained without it.
        votes: Powers by which FER+ votes were combined with the targets; None: without votes.
    """

    weights: LossWeights
    temperature: float = 2.0
    views: Views | None = "center-flip"
    unlabelled: str | None = None
    votes: VotePowers | None = None
    out_of_fold: bool = False

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 1000:
            raise InputError(f"temperature is {self.temperature}: expected 0.01 to 1000")


@dataclass(frozen=True)
class TeacherBatch:
    """A teacher's outputs for a batch: logits (N, classes), and unit vectors (N, embed_dim) or None."""

    logits: Tensor
    embeddings: Tensor | None


class DistillationTask(NetTask):
    """Trains a registry net on a teacher's outputs, in the teacher's embedding space if the teacher has one.

    Validation uses the labels.
    """

    def __init__(
        self,
        contract: Contract,
        recipe: Recipe,
        training: ImageSet,
        validation: ImageSet,
        teacher: Teacher,
        config: DistillationConfig,
        targets: TeacherOutputs | None,
        initial: InitialWeights | None = None,
    ) -> None:
        """Create the task; see `NetTask`.

        Args:
            contract: Contract of the student; see `student_contract`.
            recipe: The recipe; the task uses its augmentation and label smoothing.
            training: Training images; images with label -1 are unlabelled.
            validation: Images that select the best epoch.
            teacher: A teacher for the contract's labels.
            config: Settings of the distillation.
            targets: The teacher's outputs for all of `training`; None: computed for each augmented batch.
            initial: The student's initial weights; None: random.
        """
        super().__init__(contract, recipe, training, validation, initial)
        self._teacher = teacher
        self._config = config
        self._targets = targets

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels, teacher and distillation settings, and the balance if there is one."""
        return {
            **super().fingerprint(),
            **({} if self._balance == "none" else {"balance": self._balance}),
            "distillation": {"teacher_sha256": self._teacher.sha256, **asdict(self._config)},
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return a new student; in an embedding space its class vectors are the teacher's."""
        net, targets, space = super().build(device), self._targets, self._teacher.space
        self._on_device = None if targets is None else _to_device(targets, device)
        if space is not None:
            assert isinstance(net, EmbeddingNet)
            net.set_classes(torch.from_numpy(space.class_vectors), space.logit_scale)
            self._scaled_vectors = (net.logit_scale * net.class_vectors).to(device)
        return net

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the weighted sum of the losses on augmented images.

        A prediction is correct if it equals the label, or the teacher's class for an image without label.
        """
        images = self.augmented(indices, numbers)
        teacher, weights = self._teacher_batch(indices, numbers, images), self._config.weights
        if self._teacher.space is None:
            embeddings, logits = None, net(self.normalised(images)).float()
        else:
            embeddings = net(self.normalised(images), embeddings_only=True).float()
            logits = embeddings @ self._scaled_vectors.T
        loss = logits.new_zeros(len(indices))
        if weights.kl:
            loss = loss + weights.kl * kl_divergence(logits, teacher.logits, self._config.temperature)
        if weights.ce:
            loss = loss + weights.ce * self.mixed_label_loss(logits, indices, numbers)
        if weights.cosine and embeddings is not None and teacher.embeddings is not None:
            loss = loss + weights.cosine * cosine_distance(embeddings, teacher.embeddings)
        labels = self.main_labels(indices, numbers)
        truth = torch.where(labels < 0, teacher.logits.argmax(dim=1), labels)
        return StepLoss(loss.mean(), (logits.argmax(dim=1) == truth).sum())

    def _teacher_batch(self, indices: Tensor, numbers: Tensor, images: Tensor) -> TeacherBatch:
        if self._on_device is not None and self._config.views == "all-crops":
            height, width = self.examples.images.shape[2:]
            return TeacherBatch(
                self._on_device.logits[indices, crop_number(numbers, (height, width), self._augmentation)], None
            )
        if self._on_device is not None:
            embeddings = self._on_device.embeddings
            return TeacherBatch(self._on_device.logits[indices], None if embeddings is None else embeddings[indices])
        images = images[:, : self.examples.images.shape[1]]  # a gray data set has one channel
        crops = images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # (N, C, H, W) → (N, H, W, C)
        return _to_device(finite_outputs(self._teacher, crops), self.device)


def check_views(views: Views | None, recipe: Recipe, teacher: Teacher) -> None:
    """Check that a teacher's outputs for `views` can be cached for the crops of `recipe`.

    Raises:
        InputError: The views are all crops, and the recipe does more than crop and flip, or the teacher has embeddings.
    """
    if views != "all-crops":
        return
    stages = [recipe.stage(epoch)[0].plain_augmentation for epoch in (0, recipe.epochs - 1)]
    if not all(stage.is_crop_and_flip and stage.crop_px == training_crop_px(SIDE_PX) for stage in stages):
        raise InputError(
            "views all-crops need a recipe that only crops and flips, such as fer2013-finish: change the recipe or "
            "leave views out"
        )
    if teacher.space is not None:
        raise InputError(
            f"views all-crops are for teachers without embeddings, unlike '{teacher.name}': leave views out"
        )


def student_architecture(name: str, teacher: Teacher) -> str:
    """Return the architecture of a teacher's student: `name`, or `name@WIDTH` in the teacher's embedding space.

    Raises:
        InputError: The name already has an embedding space.
    """
    return name if teacher.space is None else embedding_name(name, teacher.space.embed_dim)


def student_contract(name: str, teacher: Teacher, dataset: DataSet, fit: Fit, values: InputValues) -> Contract:
    """Return the contract of a teacher's student, with the input of `values`, for images that were read with `fit`.

    Raises:
        InputError: As for `student_architecture`, `contract_for` and `subject_of`.
    """
    architecture = student_architecture(name, teacher)
    contract = contract_for(architecture, dataset.classes, dataset.name, dataset.is_gray, fit, values=values)
    return replace(contract, subject=subject_of(teacher), label_map=dataset.label_map)


def _to_device(outputs: TeacherOutputs, device: torch.device) -> TeacherBatch:
    embeddings = outputs.embeddings
    return TeacherBatch(
        torch.from_numpy(outputs.logits).to(device),
        None if embeddings is None else F.normalize(torch.from_numpy(embeddings).to(device), dim=1),
    )
