"""Training a small net on what a teacher says of images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.contract import Contract
from edgekit.errors import InputError
from edgekit.models.data import ImageSet
from edgekit.models.distill.cache import checked
from edgekit.models.distill.losses import LossWeights, cosine_distance, kl_divergence
from edgekit.models.distill.teachers import Teacher, TeacherOutputs
from edgekit.models.distill.views import Views
from edgekit.models.distill.votes import VotePowers
from edgekit.models.nets.embedding_net import EmbeddingNet
from edgekit.models.nets.registry import embedding_name
from edgekit.models.training.classification import NetTask
from edgekit.models.training.init_weights import InitialWeights
from edgekit.models.training.recipes import Recipe
from edgekit.models.training.task import StepLoss


@dataclass(frozen=True)
class DistillationConfig:
    """How is taught; without `views` the teacher sees each augmented crop itself.

    `unlabelled` tells which images without labels are among those learned from: a checksum of them, or None. `votes`
    says how the teacher's answers were put together with votes, if they were.
    """

    weights: LossWeights
    temperature: float = 2.0
    views: Views | None = "center-flip"
    unlabelled: str | None = None
    votes: VotePowers | None = None

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 1000:
            raise InputError(f"--temperature is {self.temperature}: expected 0.01 to 1000")


@dataclass(frozen=True)
class TeacherBatch:
    """Of a batch: the teacher's logits (N, classes) and unit vectors (N, embed_dim)."""

    logits: Tensor
    embeddings: Tensor | None


class DistillationTask(NetTask):
    """A student of the registry, in its teacher's embedding space if there is one; validation is by labels."""

    def __init__(
        self,
        contract: Contract,
        recipe: Recipe,
        training: ImageSet,
        validation: ImageSet,
        teacher: Teacher,
        config: DistillationConfig,
        answers: TeacherOutputs | None,
        initial: InitialWeights | None = None,
    ) -> None:
        """Name the student, its data and its teacher; see `NetTask`.

        Args:
            contract: Describes the student to be; see `student_architecture`.
            recipe: Its augmentation and label smoothing are used.
            training: What is learned from; labels of -1 are unknown.
            validation: What the best epoch is chosen by.
            teacher: Of the contract's labels.
            config: How it teaches.
            answers: The teacher's, to all of `training`; None to ask it under augmentation.
            initial: Where the student starts; None: at random.
        """
        super().__init__(contract, recipe, training, validation, initial)
        self._teacher = teacher
        self._lesson = config
        self._answers = answers

    def fingerprint(self) -> dict[str, Any]:
        """Return architecture, labels, teacher and how it teaches."""
        return {
            **super().fingerprint(),
            "distillation": {"teacher_sha256": self._teacher.sha256, **asdict(self._lesson)},
        }

    def build(self, device: torch.device) -> nn.Module:
        """Return a new student that knows its teacher's class vectors."""
        net, answers, space = super().build(device), self._answers, self._teacher.space
        self._said = None if answers is None else _on(device, answers)
        if space is not None:
            assert isinstance(net, EmbeddingNet)
            net.set_classes(torch.from_numpy(space.class_vectors), space.logit_scale)
            self._scaled_vectors = (net.logit_scale * net.class_vectors).to(device)
        return net

    def loss(self, net: nn.Module, indices: Tensor, numbers: Tensor) -> StepLoss:
        """Return the weighted loss of augmented images; "right" means as labelled, or as the teacher says."""
        images = self.augmented(indices, numbers)
        said, weights = self._taught(indices, images), self._lesson.weights
        if self._teacher.space is None:
            embeddings, logits = None, net(images).float()
        else:
            embeddings = net(images, embeddings_only=True).float()
            logits = embeddings @ self._scaled_vectors.T
        loss = logits.new_zeros(len(indices))
        if weights.kl:
            loss = loss + weights.kl * kl_divergence(logits, said.logits, self._lesson.temperature)
        if weights.ce:
            loss = loss + weights.ce * self.label_loss(logits, indices)
        if weights.cosine and embeddings is not None and said.embeddings is not None:
            loss = loss + weights.cosine * cosine_distance(embeddings, said.embeddings)
        labels = self.examples.labels[indices]
        truth = torch.where(labels < 0, said.logits.argmax(dim=1), labels)
        return StepLoss(loss.mean(), (logits.argmax(dim=1) == truth).sum())

    def _taught(self, indices: Tensor, images: Tensor) -> TeacherBatch:
        if self._said is not None:
            embeddings = self._said.embeddings
            return TeacherBatch(self._said.logits[indices], None if embeddings is None else embeddings[indices])
        images = images[:, : self.examples.images.shape[1]]  # gray ones again with one channel
        crops = images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return _on(self.device, checked(self._teacher, crops))


def student_architecture(name: str, teacher: Teacher) -> str:
    """Return what the student `name` of a teacher is called.

    Raises:
        InputError: The name says an embedding space already.
    """
    return name if teacher.space is None else embedding_name(name, teacher.space.embed_dim)


def _on(device: torch.device, answers: TeacherOutputs) -> TeacherBatch:
    embeddings = answers.embeddings
    return TeacherBatch(
        torch.from_numpy(answers.logits).to(device),
        None if embeddings is None else F.normalize(torch.from_numpy(embeddings).to(device), dim=1),
    )
