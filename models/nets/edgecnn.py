"""EdgeCNN: a densely connected net for small inputs (arXiv 1909.13522), and the base of its variants.

A 3x3 stem is followed by three blocks of dense layers. Each dense layer appends `growth` channels to its input. Between
blocks there is only pooling:

    stem 3x3 → max pool 3/2/1 → 4 dense layers → average pool 2 → 4 dense layers → average pool 2
             → 7 dense layers → ReLU → average pool 5 → linear

A dense layer normalises after its convolutions, not before them: [x, BN(conv(ReLU(BN(conv(x)))))].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

INPUT_SIZE_PX = 44

# Creates a convolution of a dense layer: (in_channels, out_channels, groups) → module. EdgeCNN ignores the groups.
ConvFactory = Callable[[int, int, int], nn.Module]

_EXPAND_GROUPS = 4
_REDUCE_GROUPS = 8


@dataclass(frozen=True)
class EdgeCNNConfig:
    """Hyper-parameters; the defaults are those of the published net (418,487 parameters with 7 classes).

    `growth` is k in the paper: the number of channels that a dense layer appends. The first convolution of a dense
    layer has `bottleneck_factor * growth` output channels.
    """

    num_classes: int
    growth: int = 8
    bottleneck_factor: int = 4
    stem_channels: int = 32
    layers_per_block: tuple[int, ...] = (4, 4, 7)
    in_channels: int = 3


class EdgeCNN(nn.Module):
    """EdgeCNN: returns logits (N, num_classes) of float images (N, in_channels, 44, 44)."""

    def __init__(self, config: EdgeCNNConfig, make_conv: ConvFactory | None = None, shuffle_groups: int = 1) -> None:
        """Create the net with random weights.

        Args:
            config: Hyper-parameters.
            make_conv: Creates the convolutions of the dense layers; default: 3x3 without groups.
            shuffle_groups: Groups of the channel shuffle between the two convolutions of a dense layer; 1: no shuffle.
        """
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(config.in_channels, config.stem_channels, 3, padding=1)
        self.stem_pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks = nn.ModuleList()
        channels, bottleneck = config.stem_channels, config.bottleneck_factor * config.growth
        for layers in config.layers_per_block:
            block = nn.Sequential()
            for _ in range(layers):
                block.append(DenseLayer(channels, bottleneck, config.growth, make_conv or _plain_conv, shuffle_groups))
                channels += config.growth
            self.blocks.append(block)
        self.transition = nn.AvgPool2d(2)
        # The last feature map has 5 x 5 pixels; of 6 x 6, at 48 px, the last row and column are not used.
        self.head_pool = nn.AvgPool2d(5)
        self.classifier = nn.Linear(channels, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the last layer: (N, 152) for the published net."""
        x = self.head_pool(torch.relu(self.feature_map(images)))  # (N, 152, 5, 5) → (N, 152, 1, 1)
        flat: Tensor = x.flatten(1)  # (N, 152)
        return flat

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the output of the last block: (N, 152, 5, 5) for the published net, at 48 px (N, 152, 6, 6)."""
        x: Tensor = self.stem_pool(self.stem(images))  # (N, 3, 44, 44) → (N, 32, 22, 22)
        for index, block in enumerate(self.blocks):
            if index > 0:
                x = self.transition(x)  # (N, 64, 11, 11), then (N, 96, 5, 5)
            x = block(x)  # adds growth * layers channels
        return x


class DenseLayer(nn.Module):
    """The paper's composite layer: appends `growth` channels to its input, (N, C, H, W) → (N, C + growth, H, W)."""

    def __init__(
        self, in_channels: int, bottleneck: int, growth: int, make_conv: ConvFactory, shuffle_groups: int
    ) -> None:
        """Create two convolutions, to `bottleneck` and then to `growth` channels; see `EdgeCNN` for the others."""
        super().__init__()
        self.expand = make_conv(in_channels, bottleneck, _EXPAND_GROUPS)
        self.expand_norm = nn.BatchNorm2d(bottleneck)
        self.shuffle = nn.ChannelShuffle(shuffle_groups) if shuffle_groups > 1 else nn.Identity()
        self.reduce = make_conv(bottleneck, growth, _REDUCE_GROUPS)
        self.reduce_norm = nn.BatchNorm2d(growth)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with the new channels appended."""
        new = torch.relu(self.expand_norm(self.expand(x)))
        new = self.reduce_norm(self.reduce(self.shuffle(new)))
        return torch.cat([x, new], dim=1)


def edgecnn(num_classes: int) -> EdgeCNN:
    """Return the published net: 418,487 parameters, 48.8 M multiply-accumulates with 7 classes."""
    return EdgeCNN(EdgeCNNConfig(num_classes))


def edgecnn_wide(num_classes: int) -> EdgeCNN:
    """Return the authors' wider net (growth 16): 1,388,807 parameters, 142.5 M multiply-accumulates with 7 classes."""
    return EdgeCNN(EdgeCNNConfig(num_classes, growth=16))


def _plain_conv(in_channels: int, out_channels: int, groups: int) -> nn.Module:
    """Return a 3x3 convolution without groups."""
    del groups
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
