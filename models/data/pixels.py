"""Conversion of decoded images to the arrays of an `ImageSet`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np

from edgekit.contract import CropSpec, Fit
from edgekit.device.imaging import resize
from edgekit.preprocess import ImageU8, center_crop, fit_image

# How an image becomes square: a contract's `crop.fit`, or the preprocessing of CLIP's authors.
DataFit: TypeAlias = Fit | Literal["clip"]


def to_size(image: ImageU8, size_px: int, fit: DataFit = "square") -> ImageU8:
    """Return an image (H, W), (H, W, 1) or (H, W, 3) BGR as uint8 (size_px, size_px, 1 or 3 RGB).

    The pixels are those of `edgekit.preprocess.fit_image`, which the device computes too, except for "clip".
    """
    if fit == "clip":
        return to_clip_square(image, size_px)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    size_hw = (size_px, size_px)
    return fit_image(image, CropSpec(0.0, image.ndim == 2, size_hw, size_hw, fit), resize)


def to_clip_square(image: ImageU8, size_px: int) -> ImageU8:
    """Return the central square of an image, resized to uint8 (size_px, size_px, 1 or 3 RGB), as CLIP's authors do.

    The shorter side is resized to `size_px` (bicubic, antialiased) with the aspect ratio kept, then the centre is
    cropped. A CLIP in torch is trained and evaluated with these pixels. A device computes others: for an exported CLIP
    it resizes the central square as for every other model ("square"), and `edgekit.evaluate` and `edgekit.verify` read
    images for an exported file as the device does.
    """
    from PIL import Image

    if image.ndim == 3:
        image = image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image[..., ::-1])
    height, width = image.shape[:2]
    # As in torchvision's Resize and CenterCrop: the product comes first, so that a square stays one.
    size_wh = (size_px, int(size_px * height / width)) if width <= height else (int(size_px * width / height), size_px)
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


def stack(images: Iterable[ImageU8], gray: bool) -> ImageU8:
    """Return images of one size as one array (N, H, W, C), with one channel if `gray`, else three."""
    return np.stack([np.broadcast_to(image, (*image.shape[:2], 1 if gray else 3)) for image in images])
