"""Conversion of decoded images to the arrays of an `ImageSet`."""

from __future__ import annotations

import numpy as np

from edgekit.contract import CropSpec
from edgekit.device.imaging import resize
from edgekit.models.data import ImageSet
from edgekit.preprocess import ImageU8, center_crop, fit_image


def to_size(image: ImageU8, size_px: int) -> ImageU8:
    """Return an image (H, W), (H, W, 1) or (H, W, 3) BGR, stretched to uint8 (size_px, size_px, 1 or 3 RGB)."""
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        same = image.shape == (size_px, size_px)
        return (image if same else resize(image, (size_px, size_px)))[..., np.newaxis]
    return fit_image(image, CropSpec(0.0, False, (size_px, size_px), (size_px, size_px), "stretch"), resize)


def to_central_square(image: ImageU8, size_px: int) -> ImageU8:
    """Return the central square of an image, resized to uint8 (size_px, size_px, 1 or 3 RGB), as CLIP's authors do.

    The shorter side is resized to `size_px` (bicubic, antialiased) with the aspect ratio kept, then the centre is
    cropped.
    """
    from PIL import Image

    if image.ndim == 3:
        image = image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image[..., ::-1])
    height, width = image.shape[:2]
    scale = size_px / min(height, width)
    # Rounded as in torchvision's Resize and CenterCrop.
    size_wh = (size_px, int(height * scale)) if width <= height else (int(width * scale), size_px)
    if size_wh != (width, height):
        image = np.asarray(Image.fromarray(image).resize(size_wh, Image.Resampling.BICUBIC), np.uint8)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    return np.ascontiguousarray(center_crop(image, (size_px, size_px)))


def single_channel_if_gray(image: ImageU8) -> ImageU8:
    """Return an image with three equal channels as (H, W, 1); others are unchanged."""
    if image.ndim == 3 and image.shape[-1] == 3 and bool((image[..., :1] == image[..., 1:]).all()):
        return image[..., :1]
    return image


def stack(entries: list[tuple[ImageU8, int]], gray: bool) -> ImageSet:
    """Return images of one size and their labels as an `ImageSet`, with one channel if `gray`, else three."""
    channels = 1 if gray else 3
    images = [np.broadcast_to(image, (*image.shape[:2], channels)) for image, _ in entries]
    return ImageSet(np.stack(images), np.array([label for _, label in entries], np.int64))
