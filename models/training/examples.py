"""A split's images and labels on the device a net is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.models.data import ImageSet


@dataclass(frozen=True)
class Examples:
    """`images` uint8 (N, C, H, W), `labels` int64 (N,), `targets` float32 (N, classes) where the split has them."""

    images: Tensor
    labels: Tensor
    targets: Tensor | None


def on_device(part: ImageSet, device: torch.device) -> Examples:
    """Return a copy of a split."""
    return Examples(
        torch.tensor(part.images, device=device).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(part.labels, device=device),
        None if part.targets is None else torch.tensor(part.targets, device=device),
    )
