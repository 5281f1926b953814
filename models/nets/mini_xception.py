"""Mini-Xception: a small expression net of depthwise separable convolutions (arXiv 1710.07557, section III).

    conv 3x3 → conv 3x3 → 4 residual modules of 16, 32, 64 and 128 channels → conv 3x3 to the classes → global average

Each module halves the resolution: it is the sum of two separable convolutions with a max pool, and of a 1x1 convolution
of stride 2. There is no fully connected layer: the last convolution returns one map per class, whose mean is the logit.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_STEM_CHANNELS = 8
_MODULE_CHANNELS = (16, 32, 64, 128)


class MiniXception(nn.Module):
    """Mini-Xception: returns logits (N, num_classes) of float images (N, in_channels, 44, 44) or larger.

    57,095 parameters with 7 classes and three input channels, 56,951 with one, as published.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_with_norm(nn.Conv2d(in_channels, _STEM_CHANNELS, 3, bias=False)),
            nn.ReLU(),
            *_with_norm(nn.Conv2d(_STEM_CHANNELS, _STEM_CHANNELS, 3, bias=False)),
            nn.ReLU(),
        )
        self.stages = nn.Sequential()
        channels = _STEM_CHANNELS
        for out_channels in _MODULE_CHANNELS:
            self.stages.append(_ResidualModule(channels, out_channels))
            channels = out_channels
        self.classifier = nn.Conv2d(channels, num_classes, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, num_classes)."""
        x = self.stem(images)  # (N, 3, 44, 44) → (N, 8, 40, 40)
        x = self.stages(x)  # (N, 128, 3, 3)
        maps: Tensor = self.classifier(x)  # (N, num_classes, 3, 3)
        return maps.mean(dim=(2, 3))  # (N, num_classes)


class _ResidualModule(nn.Module):
    """Residual module: (N, C, H, W) → (N, out_channels, H / 2, W / 2), with H / 2 and W / 2 rounded up."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(*_with_norm(nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False)))
        self.body = nn.Sequential(
            *_with_norm(*_separable(in_channels, out_channels)),
            nn.ReLU(),
            *_with_norm(*_separable(out_channels, out_channels)),
            nn.MaxPool2d(3, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the 1x1 convolution (shortcut) and the separable convolutions (body)."""
        total: Tensor = self._shortcut(x) + self.body(x)
        return total

    def _shortcut(self, x: Tensor) -> Tensor:
        """Return the 1x1 convolution of stride 2, normalised."""
        if not self.training:
            shortcut: Tensor = self.shortcut(x)
            return shortcut
        # The same convolution without a stride. With the stride, the backward pass of torch 2.13 writes out of bounds
        # and crashes, for channels_last tensors of 8 channels and an odd batch size on two CPU threads.
        convolution, norm = self.shortcut
        assert isinstance(convolution, nn.Conv2d)
        normed: Tensor = norm(F.conv2d(x[..., ::2, ::2], convolution.weight))
        return normed


def _separable(in_channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    """Return a depthwise 3x3 convolution and the 1x1 convolution after it."""
    return (
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
    )


def _with_norm(*convolutions: nn.Module) -> tuple[nn.Module, ...]:
    """Return the convolutions, followed by a BatchNorm of their output."""
    channels = convolutions[-1].out_channels
    assert isinstance(channels, int)
    return (*convolutions, nn.BatchNorm2d(channels))
