"""Loss of a student: KL divergence from the teacher, cross-entropy with the labels, distance of embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from edgekit.errors import InputError
from edgekit.models.distill.teachers import Teacher


@dataclass(frozen=True)
class LossWeights:
    """Weights of KL divergence from the teacher, cross-entropy with the labels, and cosine distance of embeddings."""

    kl: float
    ce: float
    cosine: float

    def __post_init__(self) -> None:
        for name, weight in (("kl", self.kl), ("ce", self.ce), ("cosine", self.cosine)):
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"{name}-weight is {weight}: expected a number of at least 0")
        if not self.kl + self.ce + self.cosine > 0:
            raise InputError("all weights of the loss are 0: give at least one weight above 0")


def loss_weights(teacher: Teacher, kl: float | None, ce: float | None, cosine: float | None) -> LossWeights:
    """Return the loss weights; a weight that is None gets its default.

    With a classifier as teacher the defaults are 1 for the divergence and 0.1 for the cross-entropy with the labels,
    which corrects the teacher's errors. With a CLIP they are 1 for the divergence, 1 for the cosine distance and 0 for
    the labels, as in PromptKD (CVPR 2024), which uses unlabelled images.

    Raises:
        InputError: A weight is negative, all are 0, or the teacher has no embeddings to compare with.
    """
    if cosine and teacher.space is None:
        raise InputError(f"cosine-weight is {cosine}, but teacher '{teacher.name}' has no embeddings: leave it out")
    has_space = teacher.space is not None
    return LossWeights(
        kl=1.0 if kl is None else kl,
        ce=(0.0 if has_space else 0.1) if ce is None else ce,
        cosine=(1.0 if has_space else 0.0) if cosine is None else cosine,
    )


def kl_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return τ² KL(teacher ‖ student) of the softmaxes at temperature τ, in nats: (N,).

    The factor τ² makes the size of the gradients independent of τ (Hinton et al., arXiv 1503.02531, section 2).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def cosine_distance(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Return 1 minus the cosine similarity, (N,), of unit vectors (N, embed_dim)."""
    return 1 - (embeddings * teacher_embeddings).sum(dim=1)
