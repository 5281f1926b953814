"""Small nets of others, unchanged and without pretrained weights: what a user would otherwise take off the shelf.

They are made for pictures of 224 pixels and halve them five times; of 44 pixels 2 x 2 are left at the end.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.models.nets.edgecnn import INPUT_SIZE_PX

TIMM_PREFIX = "timm/"


def mobilenetv2(num_classes: int) -> nn.Module:
    """Return torchvision's MobileNetV2 (arXiv 1801.04381): 2,232,839 parameters with 7 classes."""
    return _from_torchvision("mobilenet_v2", num_classes)


def mobilenetv3_small(num_classes: int) -> nn.Module:
    """Return torchvision's small MobileNetV3 (arXiv 1905.02244): 1,525,031 parameters with 7 classes."""
    return _from_torchvision("mobilenet_v3_small", num_classes)


def shufflenetv2_x05(num_classes: int) -> nn.Module:
    """Return torchvision's ShuffleNetV2 of half width (arXiv 1807.11164): 348,967 parameters with 7 classes."""
    return _from_torchvision("shufflenet_v2_x0_5", num_classes)


def from_timm(name: str, num_classes: int) -> nn.Module:
    """Return a net of timm's by its name there.

    Raises:
        InputError: timm has none of that name or is not installed, or the net does not take pictures of 44 pixels.
    """
    timm = _library("timm", name)
    if not timm.is_model(name):
        raise InputError(f"timm has no net '{name}': timm.list_models() in Python lists them")
    net: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    try:
        with torch.no_grad():
            shape = net.eval()(torch.zeros(1, 3, INPUT_SIZE_PX, INPUT_SIZE_PX)).shape
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"timm's {name} does not take pictures of {INPUT_SIZE_PX} pixels: {reason}") from error
    if shape != (1, num_classes):
        raise InputError(f"timm's {name} is no classifier: it gives {list(shape)}")
    return net.train()


def _from_torchvision(name: str, num_classes: int) -> nn.Module:
    net: nn.Module = _library("torchvision.models", name).get_model(name, weights=None, num_classes=num_classes)
    return net


def _library(module: str, net_name: str) -> Any:
    """Import what a net comes from only when it is asked for: edgekit's own nets should not wait for it."""
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise InputError(f"net {net_name} is {library}'s, which is missing: pip install 'edgekit[train]'") from error
