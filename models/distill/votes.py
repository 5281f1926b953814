"""Distillation targets from a teacher and FER+ votes (ten people's votes per image).

Votes and teacher are not independent, so their probabilities are combined as a product of powers:
softmax(a log p_teacher + b (log P(label | votes) - log P(label))), with a, b < 1, because information that both share
would count twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgekit.errors import InputError
from edgekit.models.distill.teachers import TeacherOutputs
from edgekit.preprocess import FloatArray


@dataclass(frozen=True)
class VotePowers:
    """The exponents a and b.

    0.7 and 0.5 gave the lowest cross-entropy on PublicTest (docs/reference/results-training.md).
    """

    teacher: float = 0.7
    votes: float = 0.5

    def __post_init__(self) -> None:
        for name, power in (("teacher", self.teacher), ("votes", self.votes)):
            if not 0 <= power <= 10:
                raise InputError(f"--{name}-power is {power}: expected 0 to 10")


def with_votes(
    outputs: TeacherOutputs, posteriors: FloatArray, prior: FloatArray, powers: VotePowers
) -> TeacherOutputs:
    """Return the teacher's outputs combined with votes.

    Args:
        outputs: The teacher's outputs, `logits` (N, classes) or (N, views, classes).
        posteriors: P(label | votes), float (N, classes); a row of zeros for an image without votes.
        prior: P(label), float (classes,).
        powers: The exponents of teacher and votes.

    Returns:
        The outputs with logits that are log probabilities up to a constant per image.
    """
    logits = outputs.logits.astype(np.float64)
    logits -= np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    posteriors = posteriors.reshape(len(logits), *[1] * (logits.ndim - 2), -1)
    evidence = np.log(np.maximum(posteriors, 1e-12)) - np.log(np.maximum(prior, 1e-12))
    has_votes = posteriors.any(axis=-1, keepdims=True)
    combined = np.where(has_votes, powers.teacher * logits + powers.votes * evidence, logits)
    return replace(outputs, logits=combined.astype(np.float32))
