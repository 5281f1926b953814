"""Mixup (arXiv 1710.09412): each image of a batch is mixed with another one, and its loss in the same proportion.

The partner of an example is the one before it in the batch, whose order is random; with several processes, the one
before it in the process's share.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def draw_shares(count: int, alpha: float, generator: torch.Generator) -> Tensor:
    """Return each example's share of its mixed image: float32 (count, 1), of the distribution Beta(alpha, alpha)."""
    # In double precision, because small values of alpha draw values close to 0.
    gammas = torch._standard_gamma(torch.full((count, 2), alpha, dtype=torch.float64), generator=generator)
    return (gammas[:, :1] / gammas.sum(dim=1, keepdim=True)).to(torch.float32)


def partners(indices: Tensor) -> Tensor:
    """Return the examples (n,) that the examples at `indices` (n,) are mixed with."""
    return indices.roll(1)


def mix_images(images: Tensor, shares: Tensor) -> Tensor:
    """Return images (n, C, H, W) mixed with their partners."""
    shares = shares[:, None, None, None]
    return images * shares + images.roll(1, dims=0) * (1 - shares)


def mix_losses(loss: Callable[[Tensor], Tensor], indices: Tensor, shares: Tensor) -> Tensor:
    """Return the loss (n,) of mixed images, where `loss` returns the loss (n,) with the labels of given examples."""
    return shares * loss(indices) + (1 - shares) * loss(partners(indices))


def main_examples(indices: Tensor, shares: Tensor) -> Tensor:
    """Return the example (n,) that has the larger share of each mixed image."""
    return torch.where(shares >= 0.5, indices, partners(indices))
