"""Training on classes of very different size: balanced sampling, and class shares."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.models.data import ImageSet
from edgekit.preprocess import FloatArray


def class_shares(labels: NDArray[np.int64], classes: int) -> FloatArray:
    """Return P(label), float32 (classes,): the share of each class among the labels; labels below 0 are not counted."""
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    shares: FloatArray = (counts / max(1, counts.sum())).astype(np.float32)
    return shares


def class_prior(part: ImageSet, classes: int) -> FloatArray:
    """Return the mean training target, float32 (classes,): of the target distributions, or else of the labels."""
    if part.targets is None:
        return class_shares(part.labels, classes)
    mean: FloatArray = part.targets.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the image indices of one epoch, with equally many of each class: int64 (N,), N = number of labels.

    Within a class no image is repeated before all its images were used. If the number of labels is not divisible by
    the number of classes, random classes get one image more. Images without a label (-1) are used once each.
    """
    unlabelled = torch.nonzero(labels < 0).flatten()
    count = len(labels) - len(unlabelled)
    present = torch.unique(labels[labels >= 0])
    quotas = torch.full((len(present),), count // len(present))
    extra = torch.randperm(len(present), generator=generator)[: count % len(present)]
    quotas[extra] += 1
    drawn = [unlabelled]
    for label, quota in zip(present.tolist(), quotas.tolist(), strict=True):
        members = torch.nonzero(labels == label).flatten()
        passes = -(-quota // len(members))
        order = torch.cat([torch.randperm(len(members), generator=generator) for _ in range(passes)])
        drawn.append(members[order[:quota]])
    return torch.cat(drawn)[torch.randperm(len(labels), generator=generator)]
