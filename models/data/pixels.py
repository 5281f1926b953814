"""From decoded pictures to the arrays of an `ImageSet`."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np

from edgekit.contract import CropSpec
from edgekit.device.imaging import decode_image, resize
from edgekit.errors import InputError
from edgekit.models.data import ImageSet
from edgekit.preprocess import ImageU8, center_crop, resize_image

# Three bytes each: 192 MiB.
_MAX_PIXELS = 64 << 20


def decode_bounded(data: bytes, name: str) -> ImageU8:
    """Return an encoded picture as `decode_image` does, unless its header says that it is no picture of a data set.

    Raises:
        InputError: The bytes are no picture, a broken one, or one of more than 67 million pixels, which is not decoded.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data)) as header:
                width, height = header.size
        except Image.DecompressionBombError as error:
            raise InputError(f"image '{name}' is far too large: at most {_MAX_PIXELS:,} pixels are read") from error
        except (OSError, ValueError, SyntaxError, TypeError, KeyError, OverflowError, struct.error):
            return decode_image(data, name)  # a form or a damage that OpenCV may read past
    if width * height > _MAX_PIXELS:
        raise InputError(f"image '{name}' is {width}x{height}: at most {_MAX_PIXELS:,} pixels are read")
    return decode_image(data, name)


def to_size(image: ImageU8, size_px: int) -> ImageU8:
    """Return a picture, (H, W), (H, W, 1) or (H, W, 3) B, G, R, as uint8 (size_px, size_px, 1 or 3 R, G, B)."""
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        same = image.shape == (size_px, size_px)
        return (image if same else resize(image, (size_px, size_px)))[..., np.newaxis]
    return resize_image(image, CropSpec(0.0, False, (size_px, size_px), (size_px, size_px)), resize)


def to_central_square(image: ImageU8, size_px: int) -> ImageU8:
    """Return a picture as `to_size` does, but its proportions kept and its middle cut out, as CLIP's authors do.

    The shorter side is resized, bicubic and antialiased; a picture of that size already stays as it is.
    """
    from PIL import Image

    if image.ndim == 3:
        image = image[..., 0] if image.shape[-1] == 1 else np.ascontiguousarray(image[..., ::-1])
    height, width = image.shape[:2]
    scale = size_px / min(height, width)
    # As torchvision's Resize and CenterCrop round.
    size_wh = (size_px, int(height * scale)) if width <= height else (int(width * scale), size_px)
    if size_wh != (width, height):
        image = np.asarray(Image.fromarray(image).resize(size_wh, Image.Resampling.BICUBIC), np.uint8)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    return np.ascontiguousarray(center_crop(image, (size_px, size_px)))


def single_channel_if_gray(image: ImageU8) -> ImageU8:
    """Return (H, W, 1) for a picture of three equal channels, others unchanged."""
    if image.ndim == 3 and image.shape[-1] == 3 and bool((image[..., :1] == image[..., 1:]).all()):
        return image[..., :1]
    return image


def stack(entries: list[tuple[ImageU8, int]], gray: bool) -> ImageSet:
    """Return pictures of one size and their labels as one set, of one channel if `gray`, else of three."""
    channels = 1 if gray else 3
    images = [np.broadcast_to(image, (*image.shape[:2], channels)) for image, _ in entries]
    return ImageSet(np.stack(images), np.array([label for _, label in entries], np.int64))
