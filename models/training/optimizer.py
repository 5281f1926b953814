"""Optimiser that a recipe describes, and the learning rates of a net's layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgekit.models.training.recipes import Recipe

_STAGES = 4


def make_optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimiser for all parameters of `net`.

    SGD and Adam add weight decay to the gradient. AdamW shrinks the weights directly, except for gains, biases and
    scalars, as in CLIP (arXiv 2103.00020).
    """
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            net.parameters(), lr=recipe.max_lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay
        )
    if recipe.optimizer == "adamw":
        learned = [each for each in net.parameters() if each.requires_grad]
        groups = [
            {"params": [each for each in learned if (each.ndim >= 2) == is_matrix], "weight_decay": decay}
            for decay, is_matrix in ((recipe.weight_decay, True), (0.0, False))
        ]
        # The fused kernel reads the parameters once, most of which are a small CLIP's token embedding.
        return torch.optim.AdamW(
            groups, lr=recipe.max_lr, betas=recipe.betas, eps=recipe.eps, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.SGD(
        net.parameters() if recipe.depth_decay == 1 and not recipe.frozen else _groups_by_depth(recipe, net),
        lr=recipe.max_lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )


def layer_rates(net: nn.Module, depth_decay: float, frozen: float = 0.0) -> list[tuple[nn.Module, float]]:
    """Return each layer of `net` that has parameters of its own, with its factor of the learning rate.

    The last layer has the factor 1. The layers before it are cut into four stages of equally many layers, from the
    input to the output, with the factors `depth_decay` to the powers 4, 3, 2 and 1. A
    share of `frozen` of these layers, from the input, has the factor 0.
    """
    *layers, last = (module for module in net.modules() if next(module.parameters(recurse=False), None) is not None)
    stages = [_STAGES - index * _STAGES // len(layers) for index in range(len(layers))]
    first = round(frozen * len(layers))
    rates = [0.0 if index < first else depth_decay**stage for index, stage in enumerate(stages)]
    return [*zip(layers, rates, strict=True), (last, 1.0)]


def freeze(net: nn.Module, depth_decay: float, keeps_statistics: bool = False, frozen: float = 0.0) -> None:
    """Freeze the layers of factor 0: their parameters get no gradient, their BatchNorms use the running statistics.

    `keeps_statistics`: all BatchNorms use the running statistics.
    """
    for module in net.modules() if keeps_statistics else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    for layer, rate in layer_rates(net, depth_decay, frozen):
        if rate == 0:
            layer.training = False  # not `eval`: a layer can contain others, also the last one
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(False)


def _groups_by_depth(recipe: Recipe, net: nn.Module) -> list[dict[str, Any]]:
    return [
        {"params": list(layer.parameters(recurse=False)), "rate": rate}
        for layer, rate in layer_rates(net, recipe.depth_decay, recipe.frozen)
        if rate > 0
    ]
