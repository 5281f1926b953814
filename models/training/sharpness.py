"""Sharpness-aware minimisation (SAM, Foret et al. 2021, arXiv 2010.01412).

A step follows the gradient at w + r g / |g|, not the gradient g at the weights w itself (equations 2 and 3, where the
radius r is called rho). The net then learns weights with a low loss in their whole neighbourhood. A step needs two
passes over the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def raised_loss(net: nn.Module, radius: float) -> Iterator[None]:
    """Move the weights of `net` by `radius` along their gradients, and back to the same values afterwards.

    The running statistics of BatchNorm get their values back too, because they belong to the weights. An infinite
    gradient, which fp16's loss scale causes, makes all passes in between NaN.
    """
    weights = [(each, each.grad) for each in net.parameters() if each.grad is not None]
    before = [(each, each.detach().clone()) for each in (*(weight for weight, _ in weights), *net.buffers())]
    with torch.no_grad():
        length = torch.linalg.vector_norm(torch.stack([gradient.norm() for _, gradient in weights]))
        for weight, gradient in weights:
            weight.add_(gradient * (radius / length.clamp_min(1e-12)))
    try:
        yield
    finally:
        with torch.no_grad():
            for each, value in before:
                each.copy_(value)
