"""Optimisers, made of what a recipe says."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgekit.models.training.recipes import Recipe


def make_optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of all parameters of `net`.

    Weight decay is added to the gradient by SGD and Adam, and shrinks the weights themselves with AdamW, which leaves
    out gains, biases and scalars, as CLIP's authors do (arXiv 2103.00020).
    """
    parameters = list(net.parameters())
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            parameters, lr=recipe.max_lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay
        )
    if recipe.optimizer == "adamw":
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in parameters if parameter.ndim >= 2]},
            {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
        ]
        # Fused: one pass over the parameters, most of which are a small CLIP's vocabulary.
        return torch.optim.AdamW(
            groups, lr=recipe.max_lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        parameters,
        lr=recipe.max_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
