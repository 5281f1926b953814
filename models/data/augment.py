"""Augmentation of batches of uint8 tensors, ten times as fast as augmentation image by image.

The random numbers of a batch are drawn first, from one generator, and applying them is deterministic. Several processes
can therefore draw the numbers of the global batch and each apply its share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.models.data.camera import COLUMNS as CAMERA_COLUMNS
from edgekit.models.data.camera import Camera, photographed

# Columns of the random numbers of an image; each number is uniform in [0, 1).
_TOP, _LEFT, _MIRROR, _ROTATION, _ZOOM_OR_AREA, _ASPECT_RATIO, _CONTRAST, _BRIGHTNESS = range(8)
_HAS_CUTOUT, _CUTOUT_ROW, _CUTOUT_COLUMN = range(8, 11)
_COLUMNS = 11
# With a camera, this column follows, and after it the camera's own.
_IS_PHOTOGRAPHED = 11


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images; ranges are symmetric, and 0 switches an operation off.

    - `crop_px`: side of the random crop.
    - `flip`: mirror half of the images.
    - `rotation_deg`, `scale` (fraction): random affine map.
    - `brightness` (fraction of white), `contrast` (fraction): random offset and gain of the pixel values.
    - `cutout_px`: side of a square of zeros, in a `cutout_probability` of the images (Cutout, arXiv 1708.04552).
    - `resized`: random resized crops in place of the random crop and the affine map.
    - `camera`: what a camera and a detector do to a part of the images; None: nothing.
    """

    crop_px: int
    flip: bool = True
    rotation_deg: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    cutout_px: int = 0
    cutout_probability: float = 0.0
    resized: ResizedCrop | None = None
    camera: Camera | None = None

    def scaled(self, crop_px: int) -> Augmentation:
        """Return the augmentation for crops of another side, with cutout and blur in proportion."""
        ratio = crop_px / self.crop_px
        camera = self.camera and self.camera.scaled(ratio)
        return replace(self, crop_px=crop_px, cutout_px=round(self.cutout_px * ratio), camera=camera)

    @property
    def is_affine(self) -> bool:
        """Whether images are resampled, and not only cropped."""
        return bool(self.rotation_deg or self.scale)


def draw(count: int, generator: torch.Generator, augmentation: Augmentation) -> Tensor:
    """Return the random numbers of `count` images: float32 (count, 11), uniform in [0, 1); 21 columns with a camera."""
    numbers = torch.rand(count, _COLUMNS, generator=generator)
    if augmentation.camera is None:
        return numbers
    return torch.cat([numbers, torch.rand(count, 1 + CAMERA_COLUMNS, generator=generator)], dim=1)


def augment(images: Tensor, numbers: Tensor, augmentation: Augmentation) -> Tensor:
    """Return augmented images.

    Args:
        images: uint8 (N, C, H, W).
        numbers: Random numbers from `draw`: (N, 11), with `augmentation.camera` (N, 21).
        augmentation: The operations and their ranges.

    Returns:
        float32 (N, C, crop_px, crop_px) in 0..1.
    """
    columns = numbers.unbind(dim=1)
    if augmentation.resized:
        of_crop = numbers[:, (_ZOOM_OR_AREA, _ASPECT_RATIO, _LEFT, _TOP, _MIRROR)]  # the columns of `draw_crops`
        pixels = resized_crops(images, of_crop, augmentation.resized, augmentation.crop_px)
    elif augmentation.is_affine:
        pixels = _affine_crop(_fractions(images), columns, augmentation)
    else:
        pixels = _fractions(_crop(images, columns, augmentation))
    if augmentation.camera:
        # The crops of some images are replaced by crops of the images as a camera would take them.
        chosen = torch.nonzero(columns[_IS_PHOTOGRAPHED] < augmentation.camera.probability).flatten()
        if len(chosen):
            pixels[chosen] = _photographed_crop(images[chosen], numbers[chosen], augmentation, augmentation.camera)
    if augmentation.brightness or augmentation.contrast:
        gain = 1 + augmentation.contrast * _minus_1_to_1(columns[_CONTRAST])
        offset = augmentation.brightness * _minus_1_to_1(columns[_BRIGHTNESS])
        pixels = pixels.mul_(gain[:, None, None, None]).add_(offset[:, None, None, None]).clamp_(0, 1)
    if augmentation.cutout_px:
        pixels = _cutout(pixels, columns, augmentation)
    return pixels


def _fractions(images: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in 0..1."""
    return images.to(torch.float32).mul_(1 / 255)


def _photographed_crop(images: Tensor, numbers: Tensor, augmentation: Augmentation, camera: Camera) -> Tensor:
    """Return crops of photographed images, from a box that is as far off as a detector's."""
    pixels = photographed(images, numbers[:, _IS_PHOTOGRAPHED + 1 :], camera)
    framed = replace(augmentation, scale=augmentation.scale + camera.framing_scale)
    return _affine_crop(pixels, numbers.unbind(dim=1), framed, camera.framing_shift)


def _minus_1_to_1(uniform: Tensor) -> Tensor:
    """Return numbers in [0, 1) mapped to [-1, 1)."""
    return uniform * 2 - 1


def flips(columns: tuple[Tensor, ...], augmentation: Augmentation) -> Tensor:
    """Return which images are mirrored, bool (N,); `columns` are those of the numbers from `draw`."""
    return (columns[_MIRROR] < 0.5) & augmentation.flip


def _crop(images: Tensor, columns: tuple[Tensor, ...], augmentation: Augmentation) -> Tensor:
    """Return random crops of images (N, C, H, W), some mirrored, without resampling: (N, C, side, side).

    Each image has a crop of its own, so the pixels are gathered by their positions in the flattened image.
    """
    count, channels, height, width = images.shape
    side = augmentation.crop_px
    top = (columns[_TOP] * (height - side + 1)).long()  # (N,)
    left = (columns[_LEFT] * (width - side + 1)).long()
    span = torch.arange(side, device=images.device)
    is_mirrored = flips(columns, augmentation)[:, None]  # (N, 1)
    rows = top[:, None] + span  # (N, side)
    image_columns = left[:, None] + torch.where(is_mirrored, side - 1 - span, span)  # (N, side)
    positions = rows[:, :, None] * width + image_columns[:, None, :]  # (N, side, side), in the flattened image
    of_all_channels = positions.view(count, 1, side * side).expand(-1, channels, -1)  # (N, C, side * side)
    return images.reshape(count, channels, -1).gather(2, of_all_channels).view(count, channels, side, side)


def _affine_crop(
    pixels: Tensor, columns: tuple[Tensor, ...], augmentation: Augmentation, beyond: float = 0.0
) -> Tensor:
    """Return crops (N, C, side, side) that are randomly rotated, zoomed, shifted and mirrored, with bilinear sampling.

    `pixels` is (N, C, H, W). `columns` are the columns of the random numbers from `draw`, (N,) each. A crop may be
    shifted over the border by at most `beyond`, a fraction of the image's side; there, the pixels of the border are
    repeated.
    """
    _, _, height, width = pixels.shape
    side = augmentation.crop_px
    angle = math.radians(augmentation.rotation_deg) * _minus_1_to_1(columns[_ROTATION])
    zoom = 1 + augmentation.scale * _minus_1_to_1(columns[_ZOOM_OR_AREA])  # above 1, the crop shows more of the image
    mirror = torch.where(flips(columns, augmentation), -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    x_ratio, y_ratio = side / width, side / height
    # Shifts of the crop's centre, in units of half the image's side.
    shift_x = _minus_1_to_1(columns[_LEFT]) * (1 - x_ratio + 2 * beyond)
    shift_y = _minus_1_to_1(columns[_TOP]) * (1 - y_ratio + 2 * beyond)
    # The rows of the affine matrix from a position in the crop to the position in the image; see `_sampling_grid`.
    to_x = [cos * mirror * x_ratio, -sin * x_ratio, shift_x]
    to_y = [sin * mirror * y_ratio, cos * y_ratio, shift_y]
    grid = _sampling_grid(to_x, to_y, side)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _sampling_grid(to_x: list[Tensor], to_y: list[Tensor], side_px: int) -> Tensor:
    """Return where to sample the images: coordinates x, y in -1..1 for each pixel of a crop, (N, side, side, 2).

    For coordinates u, v in the crop, also -1..1, x = to_x[0] u + to_x[1] v + to_x[2], and y likewise; see affine_grid.
    """
    theta = torch.stack([torch.stack(to_x, dim=1), torch.stack(to_y, dim=1)], dim=1)  # (N, 2, 3)
    return F.affine_grid(theta, [len(theta), 1, side_px, side_px], align_corners=False)


def _cutout(pixels: Tensor, columns: tuple[Tensor, ...], augmentation: Augmentation) -> Tensor:
    """Return pixels (N, C, side, side) of which some have a square of zeros, which may reach over the border."""
    side, half = augmentation.crop_px, augmentation.cutout_px / 2
    span = torch.arange(side, device=pixels.device)
    centre_row, centre_column = columns[_CUTOUT_ROW] * side, columns[_CUTOUT_COLUMN] * side  # (N,)
    covers_row = (span - centre_row[:, None]).abs() < half  # (N, side)
    covers_column = (span - centre_column[:, None]).abs() < half  # (N, side)
    has_cutout = columns[_HAS_CUTOUT] < augmentation.cutout_probability  # (N,)
    hole = covers_row[:, :, None] & covers_column[:, None, :] & has_cutout[:, None, None]  # (N, side, side)
    return pixels.masked_fill_(hole[:, None], 0.0)


@dataclass(frozen=True)
class ResizedCrop:
    """Crops of at least `min_area` of the image, with an aspect ratio of at most `max_ratio`; half are mirrored."""

    min_area: float = 0.08
    max_ratio: float = 4 / 3


def draw_crops(count: int, generator: torch.Generator) -> Tensor:
    """Return the random numbers of `count` images: float32 (count, 5), uniform in [0, 1).

    The columns are area, aspect ratio, horizontal position, vertical position, and mirroring.
    """
    return torch.rand(count, 5, generator=generator)


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
    area, ratio, across, down, mirror = numbers.unbind(dim=1)  # (N,) each, see `draw_crops`
    area_px = (crop.min_area + (1 - crop.min_area) * area) * height * width
    aspect = torch.exp(math.log(crop.max_ratio) * (2 * ratio - 1))
    # Width and height of each crop, as fractions of the image.
    part_w = (torch.sqrt(area_px * aspect) / width).clamp(max=1)
    part_h = (torch.sqrt(area_px / aspect) / height).clamp(max=1)
    sign = torch.where(mirror < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(part_w)
    to_x = [sign * part_w, zero, _minus_1_to_1(across) * (1 - part_w)]
    to_y = [zero, part_h, _minus_1_to_1(down) * (1 - part_h)]
    grid = _sampling_grid(to_x, to_y, size_px)
    cut = F.grid_sample(_fractions(images), grid, mode="bicubic", padding_mode="border", align_corners=False)
    return cut.clamp_(0, 1)  # bicubic interpolation overshoots at edges
