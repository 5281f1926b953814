"""Augmentation that imitates a camera: light, lens blur, low resolution, sensor noise and JPEG compression.

All operations work on batches of tensors and are matrix products or elementwise: on a CPU they cost a small part of a
training step of EdgeCNN. They are deterministic functions of the random numbers.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

# Random numbers per image that `photographed` uses.
COLUMNS = 9

_BEST_QUALITY = 90
_BLOCK_PX = 8
# Table K.1 of the JPEG standard (ITU-T T.81): quantisation of the luminance at quality 50.
_QUANTIZATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
# Places in the table of noise at which the part of an image can start.
_NOISE_STARTS = 1 << 18
# Values of sigma between 0 and the largest one.
_BLURS = 16


@dataclass(frozen=True)
class Camera:
    """Strengths of the operations; each image draws its own values below them, and 0 switches an operation off.

    Blur, resolution, noise and compression draw the square of a uniform number, so that mild values are frequent.

    - `probability`: share of the images that the operations change; the others stay plain.
    - `framing_shift` (fraction of the image's side), `framing_scale` (fraction): how far a detector's box may be off.
    - `blur_px`: largest sigma of a Gaussian blur.
    - `least_resolution`: lowest resolution, as a fraction of the image's; the image is scaled down and up again.
    - `noise`: largest standard deviation of Gaussian noise, as a fraction of white.
    - `least_quality`: lowest JPEG quality; the highest is 90. All channels use the luminance table.
    - `gamma`: exponents between 1 / (1 + gamma) and 1 + gamma; `gain` (fraction): factor of all pixels; `shading`
      (fraction): linear gradient of the light in a random direction, from one border of the image to the other.
    """

    probability: float
    framing_shift: float = 0.0
    framing_scale: float = 0.0
    blur_px: float = 0.0
    least_resolution: float = 0.0
    noise: float = 0.0
    least_quality: int = 0
    gamma: float = 0.0
    gain: float = 0.0
    shading: float = 0.0

    def scaled(self, ratio: float) -> Camera:
        """Return the settings for images whose side is `ratio` times as long."""
        return replace(self, blur_px=self.blur_px * ratio)


def photographed(images: Tensor, numbers: Tensor, camera: Camera) -> Tensor:
    """Return images as a camera would take them; their framing is unchanged.

    Args:
        images: uint8 (N, C, S, S).
        numbers: Random numbers (N, 9), uniform in [0, 1).
        camera: The operations and their strengths.

    Returns:
        float32 (N, C, S, S) in 0..1.
    """
    # `noise_start` is the place in a table of noise from which an image takes its part.
    exponent, gain, angle, shading, noise_start = numbers[:, :5].unbind(dim=1)
    # Squares of uniform numbers, so that mild values are frequent.
    blur, lost_resolution, noise_level, compression = numbers[:, 5:].square().unbind(dim=1)
    side = images.shape[-1]
    pixels = images.to(torch.float32).mul_(1 / 255)
    if camera.gamma:  # `2 * … - 1`, here and below: from [0, 1) to [-1, 1)
        exponents = (math.log(1 + camera.gamma) * (2 * exponent - 1)).exp()
        pixels = pixels.pow(exponents[:, None, None, None])
    if camera.gain or camera.shading:
        pixels = pixels * _light(side, 1 + camera.gain * (2 * gain - 1), angle, camera.shading * shading)
    if camera.blur_px or camera.least_resolution:
        table = _optics(side, camera.blur_px, camera.least_resolution, pixels.device)
        # Indices of the blur and of the resolution of each image, (N,).
        blur_number, resolution_number = (blur * table.shape[0]).long(), (lost_resolution * table.shape[1]).long()
        optics = table[blur_number, resolution_number][:, None]  # (N, 1, S, S)
        pixels = optics @ pixels @ optics.mT  # the same matrix for columns and rows
    if camera.noise:
        pixels = pixels + _noise(noise_start, pixels) * (camera.noise * noise_level)[:, None, None, None]
    if camera.least_quality:
        quality = _BEST_QUALITY - (_BEST_QUALITY - camera.least_quality) * compression
        pixels = _compressed(pixels.clamp_(0, 1), quality)
    return pixels.clamp_(0, 1)


def _light(side: int, gain: Tensor, angle: Tensor, shading: Tensor) -> Tensor:
    """Return the factor of each pixel, (N, 1, side, side): `gain`, and a gradient of ±`shading` in one direction.

    `angle` (N,) is a fraction of a full turn.
    """
    span = torch.linspace(-1, 1, side, device=gain.device)
    direction = 2 * math.pi * angle[:, None]
    across, down = torch.cos(direction) * span, torch.sin(direction) * span  # (N, side)
    gradient = (across[:, None, :] + down[:, :, None]) * shading[:, None, None]
    return ((1 + gradient) * gain[:, None, None])[:, None]


@functools.lru_cache(maxsize=8)
def _optics(side: int, blur_px: float, least_resolution: float, device: torch.device) -> Tensor:
    """Return matrices (blurs, resolutions, side, side) that blur one axis of an image, then reduce its resolution.

    The sigma of the blurs rises from 0 to `blur_px`. The resolution falls from `side` to the fraction
    `least_resolution` of `side`; 0: it stays full.
    """
    position = torch.arange(side)
    squared_distance = (position[:, None] - position).square()  # (side, side)
    sigmas = torch.linspace(0, blur_px, _BLURS if blur_px else 1)[:, None, None].clamp(min=0.01)  # no division by 0
    weights = torch.exp(squared_distance / (-2 * sigmas.square()))  # Gaussian
    blurs = weights / weights.sum(dim=2, keepdim=True)  # (blurs, side, side)
    # Scaling the unit matrix down and up again gives the matrix that does the same to one axis of an image.
    unit = torch.eye(side)[None, None]
    smallest_px = round(side * least_resolution) if least_resolution else side
    reductions = []
    for size_px in range(side, smallest_px - 1, -1):
        # Only the height is scaled, because the matrix is for one axis.
        smaller = F.interpolate(unit, (size_px, side), mode="bilinear", antialias=True, align_corners=False)
        reductions.append(F.interpolate(smaller, (side, side), mode="bilinear", align_corners=False)[0, 0])
    return (torch.stack(reductions) @ blurs[:, None]).to(device)


def _noise(start: Tensor, like: Tensor) -> Tensor:
    """Return standard normal noise of the shape of `like` (N, C, H, W): a part of a fixed table per image."""
    count = like[0].numel()
    table = _normal_values(count, like.device)
    first = (start * _NOISE_STARTS).long()  # (N,)
    return table[first[:, None] + torch.arange(count, device=like.device)].view_as(like)


@functools.lru_cache(maxsize=8)
def _normal_values(count: int, device: torch.device) -> Tensor:
    """Return a fixed table of standard normal numbers; `count` of them follow each of the `_NOISE_STARTS`."""
    return torch.randn(_NOISE_STARTS + count, generator=torch.Generator().manual_seed(0)).to(device)


def _compressed(pixels: Tensor, quality: Tensor) -> Tensor:
    """Return pixels (N, C, S, S) in 0..1 after a JPEG quantisation of 8x8 blocks at `quality` (N,), 1 to 100."""
    count, channels, side, _ = pixels.shape
    padding = -side % _BLOCK_PX  # up to a multiple of the block
    if padding:
        pixels = F.pad(pixels, (0, padding, 0, padding), mode="replicate")
    across = (side + padding) // _BLOCK_PX  # blocks in a row
    # (N, C, across, 8, across, 8) → (N, C, across, across, 8, 8)
    blocks = pixels.view(count, channels, across, _BLOCK_PX, across, _BLOCK_PX).transpose(3, 4)
    values = blocks.reshape(count, -1, _BLOCK_PX**2).mul(255).sub_(128)  # (N, blocks, 64)
    cosines, table = _jpeg_tables(pixels.device)
    # The scale of the table as in the Independent JPEG Group's library.
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    steps = ((table * percent[:, None] + 50) / 100).floor_().clamp_(1, 255)[:, None]  # (N, 1, 64)
    quantized = (values @ cosines.T).div_(steps).round_().mul_(steps)
    decoded = (quantized @ cosines).add_(128).mul_(1 / 255).view_as(blocks).transpose(3, 4)
    return decoded.reshape(pixels.shape)[..., :side, :side]


@functools.lru_cache(maxsize=8)
def _jpeg_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the cosine transform of a flattened block, (64, 64), and the quantisation of quality 50, (64,)."""
    index = torch.arange(_BLOCK_PX, dtype=torch.float64)
    # Orthonormal DCT-II of one axis: (frequency, position).
    cosines = torch.cos(math.pi / _BLOCK_PX * (index + 0.5) * index[:, None]) * math.sqrt(2 / _BLOCK_PX)
    cosines[0] /= math.sqrt(2)
    both_axes = torch.kron(cosines, cosines).to(torch.float32)
    quantization = torch.tensor(_QUANTIZATION, dtype=torch.float32).flatten()
    return both_axes.to(device), quantization.to(device)
