"""EdgeCNN-G: the variant with grouped convolutions, which needs fewer multiplications than EdgeCNN.

According to the paper (arXiv 1909.13522) it is slower than EdgeCNN on boards with slow memory. Both convolutions of a
dense layer are grouped (4 and 8 groups) with a channel shuffle between them. Each convolution has its own BatchNorm, as
in CondenseNet (arXiv 1711.09224), in addition to that of the dense layer. The input channels of a group are either
fixed (consecutive channels) or learned. If they are learned, training starts with all connections and removes from each
group, in steps, the input channels with the smallest weights, until each of the G groups reads 1 / G of the channels.
`condensed` then converts each of them into a channel gather and a grouped convolution; the ONNX export does so.

With 7 classes the net has 419,687 parameters before and 104,327 after condensing.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.nets.edgecnn import EdgeCNN, EdgeCNNConfig

_SHUFFLE_GROUPS = 4
# CondenseNet drops connections during the first half of training.
_DROP_UNTIL = 0.5


class FixedGroupConv2d(nn.Module):
    """A grouped 3x3 convolution with a BatchNorm; each group reads consecutive input channels."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, groups=groups)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H, W)."""
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class GatherGroupConv2d(FixedGroupConv2d):
    """A condensed learned group convolution; its input channel i is channel `index[i]` of the tensor."""

    index: Tensor

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__(in_channels, out_channels, groups)
        self.register_buffer("index", torch.arange(in_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H, W)."""
        return super().forward(x.index_select(1, self.index))


class LearnedGroupConv2d(nn.Module):
    """A 3x3 convolution that learns the input channels of each group of outputs (CondenseNet, section 4.1)."""

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)
        # Whether a group of outputs reads an input channel. Not a float: averages of weights must not average it.
        self.register_buffer("mask", torch.ones(groups, in_channels, dtype=torch.bool))

    @property
    def inputs_per_group(self) -> int:
        """Number of input channels that a group reads after condensing."""
        return self.conv.in_channels // self.groups

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out_channels, H, W)."""
        weight = self.conv.weight * self._weight_mask()
        return self.norm(F.conv2d(x, weight, self.conv.bias, padding=1))  # type: ignore[no-any-return]

    def _weight_mask(self) -> Tensor:
        """Return the mask of the weights: every output of a group reads the same inputs."""
        rows = self.mask.repeat_interleave(self.conv.out_channels // self.groups, dim=0)  # (out, in)
        return rows[:, :, None, None]  # (out, in, 1, 1)

    @torch.no_grad()
    def drop_connections(self, kept_inputs: int) -> None:
        """Keep the `kept_inputs` inputs of each group with the largest sum of absolute weights, and drop the others.

        Dropped inputs stay dropped, also if fewer than `kept_inputs` are left.
        """
        weight = (self.conv.weight * self._weight_mask()).abs().sum(dim=(2, 3))  # (out, in)
        saliency = weight.view(self.groups, -1, self.conv.in_channels).sum(dim=1)  # (groups, in)
        count = min(kept_inputs, int(self.mask[0].sum()))  # all groups have equally many inputs left
        # Dropped inputs rank last, because saliencies are not negative.
        kept = saliency.masked_fill(~self.mask, -1.0).topk(count, dim=1).indices
        self.mask.zero_().scatter_(1, kept, True)

    @property
    def is_condensable(self) -> bool:
        """Whether each group reads only `inputs_per_group` input channels, as from half of the training on."""
        return int(self.mask.sum(dim=1).max()) == self.inputs_per_group

    @torch.no_grad()
    def condensed(self) -> GatherGroupConv2d:
        """Return the equivalent channel gather and grouped convolution, if `is_condensable`."""
        result = GatherGroupConv2d(self.conv.in_channels, self.conv.out_channels, self.groups)
        # The input channels that each group has kept, ascending: (groups, inputs per group).
        kept = self.mask.nonzero()[:, 1].view(self.groups, self.inputs_per_group)
        result.index.copy_(kept.flatten())
        outputs_per_group = self.conv.out_channels // self.groups
        for group in range(self.groups):
            outputs = slice(group * outputs_per_group, (group + 1) * outputs_per_group)
            result.conv.weight[outputs] = self.conv.weight[outputs][:, kept[group]]
        assert result.conv.bias is not None
        assert self.conv.bias is not None
        result.conv.bias.copy_(self.conv.bias)
        result.norm.load_state_dict(self.norm.state_dict())
        return result


def edgecnn_g(num_classes: int) -> EdgeCNN:
    """Return EdgeCNN-G with fixed groups: 104,327 parameters, 12.7 M multiply-accumulates with 7 classes."""
    return EdgeCNN(EdgeCNNConfig(num_classes), FixedGroupConv2d, _SHUFFLE_GROUPS)


def edgecnn_g_learned(num_classes: int) -> EdgeCNN:
    """Return EdgeCNN-G before condensing: 419,687 parameters with 7 classes."""
    return EdgeCNN(EdgeCNNConfig(num_classes), LearnedGroupConv2d, _SHUFFLE_GROUPS)


def edgecnn_g_condensed(num_classes: int) -> EdgeCNN:
    """Return EdgeCNN-G in its condensed form with random weights, for measuring cost."""
    return EdgeCNN(EdgeCNNConfig(num_classes), GatherGroupConv2d, _SHUFFLE_GROUPS)


def set_training_progress(net: nn.Module, progress: float) -> None:
    """Drop connections of every learned group convolution in `net` according to the training's `progress`, 0..1.

    The first half of training has `groups` equal parts. At the start of each part but the first one, a group loses
    `inputs_per_group` of its input channels, so in the last part it has `inputs_per_group` left.
    """
    for module in net.modules():
        if isinstance(module, LearnedGroupConv2d):
            part = int(progress / _DROP_UNTIL * module.groups)  # counted from 0; larger in the second half
            steps_done = min(part, module.groups - 1)
            module.drop_connections(module.conv.in_channels - steps_done * module.inputs_per_group)


def condensed(net: nn.Module) -> nn.Module:
    """Return a copy of a net whose condensable learned group convolutions are condensed.

    In eval mode the copy returns the same logits. A net without such convolutions is returned itself.
    """
    if not any(isinstance(module, LearnedGroupConv2d) and module.is_condensable for module in net.modules()):
        return net
    result = copy.deepcopy(net)
    for parent in list(result.modules()):  # a list, because the loop replaces modules
        for name, module in parent.named_children():
            if isinstance(module, LearnedGroupConv2d) and module.is_condensable:
                setattr(parent, name, module.condensed().train(module.training))
    return result
