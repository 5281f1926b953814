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
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def raised_loss(net: nn.Module, radius: float) -> Iterator[None]:
    """Move the weights of `net` by `radius` along their gradients, and back to the same values afterwards.

    In between, passes leave the running statistics of BatchNorm unchanged, because they belong to the weights.
    """
    weights = [(each, each.grad) for each in net.parameters() if each.grad is not None]
    before = [each.detach().clone() for each, _ in weights]
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in norms]
    with torch.no_grad():
        length = torch.linalg.vector_norm(torch.stack([gradient.norm() for _, gradient in weights]))
        for each, gradient in weights:
            each.add_(gradient * (radius / length.clamp_min(1e-12)))
    for module in norms:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum
        with torch.no_grad():
            for (each, _), value in zip(weights, before, strict=True):
                each.copy_(value)
