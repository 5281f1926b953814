"""Patch embedding by the trunk of an EdgeCNN: the image tower of a small CLIP that starts from a trained net.

    images (N, 3, 48, 48) → trunk → feature map (N, 152, 6, 6) → 1x1 convolution → tokens (N, width, 6, 6)

The trunk is everything below EdgeCNN's average pool. It is always in eval mode: its BatchNorms use the statistics of
the training that it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.errors import InputError
from edgekit.files import sha256_of
from edgekit.models.checkpoints.checkpoint import load_checkpoint
from edgekit.models.model_loading import check_weights
from edgekit.models.nets.edgecnn import EdgeCNN
from edgekit.models.nets.registry import create_model

# Nets with EdgeCNN's form, by their names in the registry.
TRUNKS = ("edgecnn", "edgecnn-wide", "edgecnn-g")
# Pixels per token: EdgeCNN halves height and width three times.
TRUNK_STRIDE_PX = 8
_LAST_LAYER = "classifier."


@dataclass(frozen=True)
class TrunkWeights:
    """Weights of a trunk under EdgeCNN's names, its architecture, and labels and SHA-256 of the net they come from."""

    architecture: str
    state: Mapping[str, Tensor]
    labels: tuple[str, ...]
    sha256: str


class TrunkPatches(nn.Module):
    """Patch embedding: an EdgeCNN without its pooling and last layer, and a linear projection to the tower's width."""

    def __init__(self, architecture: str, width: int) -> None:
        """Create the module with random weights.

        Raises:
            InputError: The architecture is not one of `TRUNKS`.
        """
        super().__init__()
        self.trunk = _net(architecture).eval()
        self.channels = self.trunk.classifier.in_features
        del self.trunk.classifier
        self.project = nn.Conv2d(self.channels, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens (N, width, H/8, W/8) of images (N, 3, H, W) in 0..1, or of the trunk's feature maps."""
        maps = images if images.shape[1] == self.channels else self.feature_maps(images)
        tokens: Tensor = self.project(maps)
        return tokens

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the trunk's feature maps (N, channels, H/8, W/8) of images (N, 3, H, W) in 0..1."""
        return torch.relu(self.trunk.feature_map(images))

    def train(self, mode: bool = True) -> TrunkPatches:
        """Set the mode of the projection; the trunk stays in eval mode."""
        super().train(mode)
        self.trunk.eval()
        return self


def trunk_channels(architecture: str) -> int:
    """Return the number of channels of a trunk's feature maps: 152 for "edgecnn".

    Raises:
        InputError: The architecture is not one of `TRUNKS`.
    """
    with torch.device("meta"):
        return _net(architecture).classifier.in_features


def require_trunk(architecture: str) -> None:
    """Check that a net can be a trunk.

    Raises:
        InputError: It is not one of `TRUNKS`.
    """
    if architecture not in TRUNKS:
        raise InputError(f"trunk '{architecture}' is not an EdgeCNN: expected one of {', '.join(TRUNKS)}")


def read_trunk(path: Path) -> TrunkWeights:
    """Return the trunk of a checkpoint.

    Raises:
        InputError: The file is not a checkpoint, its net is not one of `TRUNKS`, or a tensor has another shape.
    """
    checkpoint = load_checkpoint(path)
    try:
        require_trunk(checkpoint.contract.architecture)
        check_weights(checkpoint)
    except InputError as error:
        raise InputError(f"trunk '{path}': {error}") from error
    state = {name: tensor for name, tensor in checkpoint.state.items() if not name.startswith(_LAST_LAYER)}
    contract = checkpoint.contract
    return TrunkWeights(contract.architecture, state, contract.labels, sha256_of(path))


def _net(architecture: str) -> EdgeCNN:
    require_trunk(architecture)
    net = create_model(architecture, 1)
    assert isinstance(net, EdgeCNN)
    return net
