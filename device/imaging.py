"""Reading, checking and resizing images with OpenCV."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.preprocess import ImageU8

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def resize(image: ImageU8, size_wh: tuple[int, int]) -> ImageU8:
    """Return `image` resized to (width, height), by area averaging to fewer pixels, else bilinearly."""
    height, width = image.shape[:2]
    shrinks = size_wh[0] * size_wh[1] < width * height
    resized = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def read_image(path: Path) -> ImageU8:
    """Return an image file as uint8 (H, W) if it is stored in gray, else (H, W, 3) B, G, R.

    Raises:
        InputError: The file does not exist or cannot be decoded.
    """
    require_file(path, "image")
    return decode_image(path.read_bytes(), str(path))


def decode_image(data: bytes, name: str) -> ImageU8:
    """Return an encoded image as `read_image` does; `name` is its name in messages.

    Raises:
        InputError: The bytes are not an image, or the image is damaged or too large.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR) if _is_whole(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(
            f"image '{name}' cannot be decoded: the file is damaged, not an image, or larger than 2^27 pixels"
        )
    return np.asarray(image, np.uint8)


def check_image(image: ImageU8) -> None:
    """Check an image array that the user has passed.

    Raises:
        InputError: The image is not uint8 (H, W) or (H, W, 3), or has no pixels.
    """
    is_image = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size > 0
    if not is_image or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        shape = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"an image is {shape}: pass a uint8 array (height, width, 3), or (height, width) for gray")


def as_frame(image: ImageU8) -> ImageU8:
    """Return an image as uint8 (H, W, 3) B, G, R; a gray one gets three equal channels."""
    if image.ndim == 2:
        return np.repeat(image[:, :, np.newaxis], 3, axis=2)
    return image


def _is_whole(data: bytes) -> bool:
    """Return False for an empty file and for a truncated or damaged PNG.

    Other formats are left to the decoder. A damaged PNG is not, because libpng would print messages of its own.
    """
    if not data.startswith(_PNG_SIGNATURE):
        return bool(data)
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        # A chunk: length, kind, body, CRC-32 of kind and body (PNG specification, section 5.3).
        length = int.from_bytes(data[position : position + 4], "big")
        body = memoryview(data)[position + 4 : position + 8 + length]
        if zlib.crc32(body) != int.from_bytes(data[position + 8 + length : position + 12 + length], "big"):
            return False
        if bytes(body[:4]) == b"IEND":
            return True
        position += 12 + length
    return False
