"""A teacher and FER+ votes together: what ten people and a net say of an image's label.

The votes know what people saw, the net knows the image; neither is independent of the other. A product of powers holds
both: softmax(a log p_teacher + b (log P(label | votes) - log P(label))), with a, b < 1 for what they share.
`benchmarks/models/votes.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.models.distill.teachers import TeacherOutputs
from edgekit.preprocess import FloatArray


@dataclass(frozen=True)
class VotePowers:
    """The powers a and b; 0.7 and 0.5 gave the lowest cross-entropy on FER-2013's PublicTest (docs/results.md)."""

    teacher: float = 0.7
    votes: float = 0.5

    def __post_init__(self) -> None:
        for name, power in (("teacher", self.teacher), ("votes", self.votes)):
            if not 0 <= power <= 10:
                raise InputError(f"--{name}-power is {power}: expected 0 to 10")


def with_votes(
    answers: TeacherOutputs, posteriors: FloatArray, prior: FloatArray, powers: VotePowers
) -> TeacherOutputs:
    """Return the answers with what votes say put in.

    Args:
        answers: The teacher's, `logits` (N, classes).
        posteriors: P(label | votes), float (N, classes); a row of zeros where nobody was asked.
        prior: P(label) without votes, float (classes,).
        powers: How much each counts.

    Returns:
        The answers with logits that are log probabilities up to a constant an image.
    """
    logits = answers.logits.astype(np.float64)
    logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
    told = np.log(np.maximum(posteriors, 1e-12)) - np.log(np.maximum(prior, 1e-12))
    asked = posteriors.any(axis=1, keepdims=True)
    both = np.where(asked, powers.teacher * logits + powers.votes * told, logits)
    return replace(answers, logits=both.astype(np.float32))


def class_shares(labels: NDArray[np.int64], classes: int) -> FloatArray:
    """Return P(label), (classes,), of labels; those below 0 are unknown."""
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    shares: FloatArray = (counts / max(1, counts.sum())).astype(np.float32)
    return shares
