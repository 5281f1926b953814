"""A small net of depthwise separable convolutions, which begins at the full resolution of the input.

    conv 3x3 (24 channels) → 3 blocks of 48 channels → 4 of 96 → 4 of 192 → global average → linear

A block is a depthwise 3x3 convolution and a 1x1 convolution, the separable convolution of MobileNet (arXiv 1704.04861,
section 3.1). The first block of each width halves the resolution; the others add their input to their output.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_STEM_CHANNELS = 24
# Channels and number of blocks.
_STAGES = ((48, 3), (96, 4), (192, 4))


class SeparableNet(nn.Module):
    """Separable net: returns logits (N, num_classes) of float images (N, in_channels, 44, 44) or larger.

    184,087 parameters with 7 classes and three input channels.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, _STEM_CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(_STEM_CHANNELS), nn.ReLU()
        )
        self.blocks = nn.Sequential()
        channels = _STEM_CHANNELS
        for out_channels, blocks in _STAGES:
            for index in range(blocks):
                # The first block of a stage halves the resolution.
                self.blocks.append(_Block(channels, out_channels, stride=2 if index == 0 else 1))
                channels = out_channels
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        x = self.stem(images)  # (N, 3, 44, 44) → (N, 24, 44, 44)
        x = self.blocks(x)  # (N, 192, 6, 6)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))  # (N, num_classes)
        return logits


class _Block(nn.Module):
    """Separable convolution: (N, C, H, W) → (N, out_channels, H / stride, W / stride), rounded up."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
        )
        # With stride 1 the input has the shape of the output, because only the first block of a stage, with stride 2,
        # changes the number of channels.
        self.adds_input = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, after ReLU."""
        y = self.pointwise(self.depthwise(x))
        return F.relu(x + y if self.adds_input else y)
