"""Training on classes of very different size: class weights for the loss, or balanced sampling."""

from __future__ import annotations

import torch
from torch import Tensor


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return a weight per class, inverse to its number of images: float32 (classes,), with mean 1 over the images.

    A class with n_c of n images has the weight n / (k n_c), where k is the number of classes with images. A class
    without images has the weight 0.
    """
    counts = torch.bincount(labels, minlength=classes)
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0).to(torch.float32)


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return the image indices of one epoch, with equally many of each class: int64 (N,), N = number of labels.

    Within a class no image is repeated before all its images were used. If N is not divisible by the number of classes,
    random classes get one image more.
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
