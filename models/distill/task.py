"""Distillation as a task of the training loop: loss of a student, and what it learns from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract, Fit
from edgekit.errors import InputError
from edgekit.models.data import DataSet, ImageSet
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, subject_of
from edgekit.models.model_loading import contract_for
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import embedding_name
from edgekit.models.pretrained import InputValues
from edgekit.models.training.classification import NetTask
from edgekit.models.training.init_weights import InitialWeights
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import StepLoss


@dataclass(frozen=True)
class LossWeights:
    """Weights of KL divergence from the teacher, cross-entropy with the labels, and cosine distance of embeddings."""

    kl: float
    ce: float
    cosine: float

    def __post_init__(self) -> None:
        if not self.kl + self.ce + self.cosine > 0:
            raise InputError("all weights of the loss are 0: give at least one weight above 0")


def loss_weights(teacher: Teacher, kl: float | None, ce: float | None, cosine: float | None) -> LossWeights:
    """Return the loss weights; a weight that is None gets its default.

    With a classifier as teacher the defaults are 1 for the divergence and 0.1 for the cross-entropy with the labels,
    which corrects the teacher's errors. With a CLIP they are 1 for the divergence, 1 for the cosine distance and 0 for
    the labels, as in PromptKD (CVPR 2024), which uses unlabelled images.

    Raises:
        InputError: All weights are 0, or the teacher has no embeddings to compare with.
    """
    if cosine and teacher.space is None:
        raise InputError(f"cosine-weight is {cosine}, but teacher '{teacher.name}' has no embeddings: leave it out")
    has_space = teacher.space is not None
    return LossWeights(
        kl=1.0 if kl is None else kl,
        ce=(0.0 if has_space else 0.1) if ce is None else ce,
        cosine=(1.0 if has_space else 0.0) if cosine is None else cosine,
    )


@dataclass(frozen=True)
class DistillationConfig:
    """Settings that determine the result of a distillation.

    Attributes:
        weights: Weights of the parts of the loss.
        temperature: τ of both softmaxes.
        unlabelled: Checksum of the images without labels; None: all images have labels.
        votes: Whether FER+ votes were combined with the targets.
    """

    weights: LossWeights
    temperature: float = 2.0
    unlabelled: str | None = None
    votes: bool = False


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
        targets: TeacherOutputs,
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
            targets: The teacher's outputs for all of `training`.
            initial: The student's initial weights; None: random.
        """
        super().__init__(contract, recipe, training, validation, initial)
        self._teacher = teacher
        self._config = config
        self._targets = targets

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels, teacher and distillation settings."""
        settings = {"teacher_sha256": self._teacher.sha256, **asdict(self._config)}
        return {**super().fingerprint(), "distillation": settings}

    def build(self, device: torch.device) -> nn.Module:
        """Return a new student; in an embedding space its class vectors are the teacher's."""
        net, space, embeddings = super().build(device), self._teacher.space, self._targets.embeddings
        self._logits = torch.from_numpy(self._targets.logits).to(device)  # (N, classes)
        self._embeddings = None if embeddings is None else torch.from_numpy(embeddings).to(device)  # (N, embed_dim)
        if space is not None:
            assert isinstance(net, EmbeddingNet)
            net.set_classes(torch.from_numpy(space.class_vectors), space.logit_scale)
            self._scaled_vectors = (net.logit_scale * net.class_vectors).to(device)
        return net

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the weighted sum of the losses on augmented images.

        A prediction is correct if it equals the label, or the teacher's class for an image without label.
        """
        images, weights = self.normalised(self.augmented(indices, numbers)), self._config.weights
        targets = self._logits[indices]
        if self._embeddings is None:
            embeddings, logits = None, net(images).float()
        else:
            embeddings = net(images, embeddings_only=True).float()
            logits = embeddings @ self._scaled_vectors.T
        loss = logits.new_zeros(len(indices))
        if weights.kl:
            loss = loss + weights.kl * kl_divergence(logits, targets, self._config.temperature)
        if weights.ce:
            loss = loss + weights.ce * self.label_loss(logits, indices)
        if weights.cosine and embeddings is not None and self._embeddings is not None:
            loss = loss + weights.cosine * (1 - (embeddings * self._embeddings[indices]).sum(dim=1))
        labels = self.examples.labels[indices]
        truth = torch.where(labels < 0, targets.argmax(dim=1), labels)
        return StepLoss(loss.mean(), (logits.argmax(dim=1) == truth).sum())


def kl_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return τ² KL(teacher ‖ student) of the softmaxes at temperature τ, in nats: (N,).

    The factor τ² makes the size of the gradients independent of τ (Hinton et al., arXiv 1503.02531, section 2).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def student_contract(name: str, teacher: Teacher, dataset: DataSet, fit: Fit, values: InputValues) -> Contract:
    """Return the contract of a teacher's student, with the input of `values`, for images that were read with `fit`.

    The architecture is `name`, or `name@WIDTH` in the teacher's embedding space.

    Raises:
        InputError: `name` already has an embedding space, or as for `contract_for` and `subject_of`.
    """
    architecture = name if teacher.space is None else embedding_name(name, teacher.space.embed_dim)
    contract = contract_for(architecture, dataset.classes, dataset.name, dataset.is_gray, fit, values=values)
    return replace(contract, subject=subject_of(teacher), label_map=dataset.label_map)
