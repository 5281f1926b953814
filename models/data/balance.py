"""Two answers to classes of very different size: weigh the loss, or draw each class equally often."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return a weight for each class, inverse to its number of images: float32 (classes,), with mean 1 over the images.

    A class of n_c of n images has n / (k n_c), with k classes that occur; one that does not occur has 0.
    """
    counts = torch.bincount(labels, minlength=classes)
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0).to(torch.float32)


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images of one epoch, as many as there are labels, so that each class comes equally often: int64 (N,).

    Within a class no image comes again before all others have come; what does not divide evenly goes to classes drawn.
    """
    count = len(labels)
    present = torch.unique(labels)
    quotas = torch.full((len(present),), count // len(present))
    extra = torch.randperm(len(present), generator=generator)[: count % len(present)]
    quotas[extra] += 1
    drawn = []
    for label, quota in zip(present.tolist(), quotas.tolist(), strict=True):
        members = torch.nonzero(labels == label).flatten()
        passes = -(-quota // len(members))
        order = torch.cat([torch.randperm(len(members), generator=generator) for _ in range(passes)])
        drawn.append(members[order[:quota]])
    return torch.cat(drawn)[torch.randperm(count, generator=generator)]
