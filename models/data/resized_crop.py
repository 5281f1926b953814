"""Random resized crops for batches of images, the augmentation of prompt learning."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ResizedCrop:
    """Crops of at least `min_area` of the image, with an aspect ratio of at most `max_ratio`; half are mirrored."""

    min_area: float = 0.08
    max_ratio: float = 4 / 3


def draw_crops(count: int, generator: torch.Generator) -> Tensor:
    """Return the random numbers of `count` images: float32 (count, 5), uniform in [0, 1)."""
    return torch.rand(count, 5, generator=generator)


def crop_parts(numbers: Tensor, crop: ResizedCrop, height: int, width: int) -> tuple[Tensor, ...]:
    """Return width and height of each crop as fractions of the image, its position across and down, and the mirror.

    All are (N,). A crop at position 0 touches the left or upper edge, one at position 1 the right or lower edge; it is
    mirrored if the last number is below 0.5.
    """
    area, ratio, across, down, mirror = numbers.unbind(dim=1)
    part = (crop.min_area + (1 - crop.min_area) * area) * height * width
    aspect = torch.exp(math.log(crop.max_ratio) * (2 * ratio - 1))
    part_w = (torch.sqrt(part * aspect) / width).clamp(max=1)
    part_h = (torch.sqrt(part / aspect) / height).clamp(max=1)
    return part_w, part_h, across, down, mirror


def resized_crops(images: Tensor, numbers: Tensor, crop: ResizedCrop, size_px: int) -> Tensor:
    """Return random crops of images, resized with bicubic interpolation.

    The area, the logarithm of the aspect ratio and the position are uniformly distributed. A crop that does not fit in
    the image is clipped to it.

    Args:
        images: uint8 (N, C, H, W).
        numbers: Random numbers (N, 5) from `draw_crops`.
        crop: Limits of area and aspect ratio.
        size_px: Height and width of the result.

    Returns:
        float32 (N, C, size_px, size_px) in 0..1.
    """
    height, width = images.shape[-2:]
    part_w, part_h, across, down, mirror = crop_parts(numbers, crop, height, width)
    sign = torch.where(mirror < 0.5, -1.0, 1.0)
    none = torch.zeros_like(part_w)
    # Maps output coordinates (-1..1) to input coordinates: see affine_grid.
    theta = torch.stack(
        [
            torch.stack([sign * part_w, none, (2 * across - 1) * (1 - part_w)], dim=1),
            torch.stack([none, part_h, (2 * down - 1) * (1 - part_h)], dim=1),
        ],
        dim=1,
    )  # (N, 2, 3)
    grid = F.affine_grid(theta, [len(images), 1, size_px, size_px], align_corners=False)
    pixels = images.to(torch.float32).mul_(1 / 255)
    cut = F.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return cut.clamp_(0, 1)  # bicubic interpolation overshoots at edges
