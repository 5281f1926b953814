"""A classifier with merged classes: the probability of a merged class is the sum of its members' probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Logits are clamped to at most this far below the image's largest one: in float32, 1 + exp(-80) equals 1.
_MAX_GAP = 80.0


class MergedClasses(nn.Module):
    """Net with merged classes: the logit of a new class is log Σ exp of its members' logits in the old net.

    The softmax of the new logits is exactly the sum of the members' probabilities, because the new logits differ from
    their logarithms by one constant per image. The module contains no multiplication, so quantisation leaves it in
    float32, and ncnn supports each of its operations.
    """

    def __init__(self, net: nn.Module, sizes: Sequence[int]) -> None:
        """Wrap `net`, whose classes are ordered by new class; `sizes` has the number of members of each new class."""
        super().__init__()
        self.net = net
        self._sizes = list(sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, new classes)."""
        logits: Tensor = self.net(images)  # (N, old classes)
        # ncnn's logsumexp does not subtract the maximum, so large logits would overflow.
        shifted = (logits - _row_maximum(logits)).clamp_min(-_MAX_GAP)
        parts = torch.split(shifted, self._sizes, dim=1)
        return torch.cat([part if part.shape[1] == 1 else part.logsumexp(dim=1, keepdim=True) for part in parts], dim=1)


def _row_maximum(values: Tensor) -> Tensor:
    """Return each row's maximum, (N, 1), by comparing halves: pnnx does not convert a maximum reduction."""
    while (count := values.shape[1]) > 1:
        half = count // 2
        halves = torch.split(values, [half, half, count % 2] if count % 2 else [half, half], dim=1)
        larger = torch.maximum(halves[0], halves[1])
        values = torch.cat([larger, halves[2]], dim=1) if count % 2 else larger
    return values
