"""Targets of a student from FER+ votes and a teacher together: the shipped model `fer2013` was trained with them.

The votes give P(label | votes), fitted on the training split: it has no noise of a single annotator. `edgekit distill`
reads the file that `keep_targets` writes instead of computing the teacher's outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgekit.models.callbacks import of_stage
from edgekit.models.data import EXPRESSIONS
from edgekit.models.data.ferplus import COLUMNS, vote_counts
from edgekit.models.distill.distillation import TARGETS_NAME
from edgekit.models.distill.targets import targets_of, write_targets
from edgekit.models.distill.teachers import TeacherOptions, TeacherOutputs, open_teacher
from edgekit.models.training.options import DistillOptions
from edgekit.models.training.run import read_training_data
from edgekit.preprocess import FloatArray

# Exponents of teacher and FER+ votes with the lowest cross-entropy on PublicTest. Both are below 1, because information
# that both share would count twice.
TEACHER_POWER, VOTES_POWER = 0.7, 0.5
_WEIGHT_DECAY = 1e-4
_FIT_STEPS = 100


def keep_targets(output: Path, data: Path, ferplus: Path, teachers: Sequence[str]) -> None:
    """Write the targets of a distillation into its output folder, unless they are there."""
    if (output / TARGETS_NAME).exists():
        return
    options = DistillOptions(data=data, output=output, teachers=teachers)
    read = read_training_data(options)
    teacher = open_teacher(teachers, read.dataset.classes, TeacherOptions())
    images, labels = read.training.images, read.training.labels
    assert read.training_name is not None
    counts = vote_counts(read.dataset, ferplus, read.training_name)[read.training_name]
    outputs = targets_of(teacher, images, of_stage(None, ""))
    shares = (np.bincount(labels, minlength=len(EXPRESSIONS)) / len(labels)).astype(np.float32)
    combined = with_votes(outputs, posteriors(counts, labels), shares)
    write_targets(output / TARGETS_NAME, combined, teacher, images)


def with_votes(outputs: TeacherOutputs, posteriors: FloatArray, prior: FloatArray) -> TeacherOutputs:
    """Return the teacher's outputs combined with FER+ votes (ten people's votes per image).

    Votes and teacher are not independent, so their probabilities are combined as a product of powers:
    softmax(a log p_teacher + b (log P(label | votes) - log P(label))), with a, b < 1.

    Args:
        outputs: The teacher's outputs, `logits` (N, classes).
        posteriors: P(label | votes), float (N, classes); a row of zeros for an image without votes.
        prior: P(label), float (classes,).
    """
    logits = outputs.logits.astype(np.float64)
    logits -= np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    evidence = np.log(np.maximum(posteriors, 1e-12)) - np.log(np.maximum(prior, 1e-12))
    combined = np.where(posteriors.any(axis=-1, keepdims=True), TEACHER_POWER * logits + VOTES_POWER * evidence, logits)
    return replace(outputs, logits=combined.astype(np.float32))


def _features(counts: Tensor) -> Tensor:
    """Return features (N, 141) of votes (N, 10): shares, their square roots, logarithms, and products of pairs."""
    total = counts.sum(1, keepdim=True)
    shares = counts / total.clamp(min=1)
    roots = torch.sqrt(shares)
    upper = torch.triu_indices(len(COLUMNS), len(COLUMNS))
    pairs = [(part[:, :, None] * part[:, None, :])[:, upper[0], upper[1]] for part in (shares, roots)]
    return torch.cat([shares, roots, torch.log(counts + 0.5), (total == 0).float(), *pairs], 1)


def posteriors(counts: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return P(label | votes) of training images, (N, 7), by multinomial logistic regression on them."""
    threads = torch.get_num_threads()
    # On one thread, because rounding depends on the number of threads, and the checksum of the data must not.
    torch.set_num_threads(1)
    try:
        features = _features(torch.from_numpy(counts))
        mean, spread = features.mean(0), features.std(0) + 1e-6
        truth = torch.from_numpy(labels)
        weight = torch.zeros(len(mean), len(EXPRESSIONS), requires_grad=True)
        bias = torch.zeros(len(EXPRESSIONS), requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=_FIT_STEPS, line_search_fn="strong_wolfe")
        seen = (features - mean) / spread

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(seen @ weight + bias, truth) + _WEIGHT_DECAY * (weight**2).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return (seen @ weight + bias).softmax(1).numpy()
    finally:
        torch.set_num_threads(threads)
