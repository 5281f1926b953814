"""Small nets of others, unchanged and without pretrained weights: what a user would otherwise take off the shelf.

They are made for pictures of 224 pixels and halve them five times; of 44 pixels 2 x 2 are left at the end.
"""

from __future__ import annotations

from torch import nn

from edgekit.errors import InputError


def mobilenetv2(num_classes: int) -> nn.Module:
    """Return torchvision's MobileNetV2 (arXiv 1801.04381): 2,232,839 parameters with 7 classes."""
    return _from_torchvision("mobilenet_v2", num_classes)


def mobilenetv3_small(num_classes: int) -> nn.Module:
    """Return torchvision's small MobileNetV3 (arXiv 1905.02244): 1,525,031 parameters with 7 classes."""
    return _from_torchvision("mobilenet_v3_small", num_classes)


def shufflenetv2_x05(num_classes: int) -> nn.Module:
    """Return torchvision's ShuffleNetV2 of half width (arXiv 1807.11164): 348,967 parameters with 7 classes."""
    return _from_torchvision("shufflenet_v2_x0_5", num_classes)


def _from_torchvision(name: str, num_classes: int) -> nn.Module:
    # Here, since edgekit's own nets should not wait for it.
    try:
        from torchvision.models import get_model
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torchvision":
            raise
        raise InputError(f"net {name} is torchvision's, which is missing: pip install 'edgekit[train]'") from error
    net: nn.Module = get_model(name, weights=None, num_classes=num_classes)
    return net
