"""Convolutions with more branches in training, which are merged into one 3x3 convolution afterwards.

As in ACNet (arXiv 1908.03930) and DBB (arXiv 2103.13425): a 3x3 convolution is trained together with parallel 1x1, 1x3
and 3x1 convolutions, each with a BatchNorm. All of them are linear in inference, so their sum is one 3x3 convolution.
The gains of the BatchNorms start at zero: a net with branches starts as the net without them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.nets.edgecnn import EdgeCNN, EdgeCNNConfig

BRANCHED, MERGED = "edgecnn-branched", "edgecnn"

_KERNELS_HW = ((1, 1), (1, 3), (3, 1))


class BranchedConv2d(nn.Module):
    """The sum of a 3x3 convolution and of smaller convolutions with BatchNorm, all on the same input."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        del groups
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.branches = nn.ModuleList(_branch(in_channels, out_channels, kernel_hw) for kernel_hw in _KERNELS_HW)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H, W)."""
        result: Tensor = self.conv(x)
        for branch in self.branches:
            result = result + branch(x)
        return result

    @torch.no_grad()
    def merged(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the equivalent 3x3 convolution, computed in double precision."""
        assert self.conv.bias is not None
        weight, bias = self.conv.weight.double(), self.conv.bias.double()
        for branch in self.branches:
            assert isinstance(branch, nn.Sequential)
            conv, norm = branch
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            above, left = ((3 - side) // 2 for side in conv.kernel_size)
            weight = weight + F.pad(conv.weight.double() * scale[:, None, None, None], (left, left, above, above))
            bias = bias + norm.bias.double() - norm.running_mean.double() * scale
        return weight.float(), bias.float()


def _branch(in_channels: int, out_channels: int, kernel_hw: tuple[int, int]) -> nn.Sequential:
    padding = (kernel_hw[0] // 2, kernel_hw[1] // 2)
    norm = nn.BatchNorm2d(out_channels)
    nn.init.zeros_(norm.weight)
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_hw, padding=padding, bias=False), norm)


def edgecnn_branched(num_classes: int) -> EdgeCNN:
    """Return EdgeCNN with branches for training; merged, it is `edgecnn`."""
    return EdgeCNN(EdgeCNNConfig(num_classes), BranchedConv2d)


def merged_name(architecture: str) -> str:
    """Return the architecture of a net after its branches are merged; others are returned unchanged.

    >>> merged_name("edgecnn-branched@512")
    'edgecnn@512'
    """
    return architecture.replace(BRANCHED, MERGED)


def merged_state(net: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a net with its branches merged: that of the architecture `merged_name`."""
    state = dict(net.state_dict())
    for name, module in net.named_modules():
        if isinstance(module, BranchedConv2d):
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
            state[f"{name}.weight"], state[f"{name}.bias"] = module.merged()
    return state


def branched_state(state: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a merged net under the names of `net`, whose branches are not among them."""
    renamed = {
        f"{name}.{kind}": f"{name}.conv.{kind}"
        for name, module in net.named_modules()
        if isinstance(module, BranchedConv2d)
        for kind in ("weight", "bias")
    }
    return {renamed.get(name, name): value for name, value in state.items()}
