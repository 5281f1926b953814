"""Reading, checking and resizing images with OpenCV.

Training, evaluation and the runtime read every image file with these functions, so that all get the same pixels: of a
file with several images the first, upright according to its EXIF orientation (unless it is transparent), 8 bits per
channel, transparent parts on white. The file's content decides its format, not its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputError
from edgekit.files import require_file
from edgekit.preprocess import AnyImage, ImageU8
from edgekit.text import counted

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff", ".gif")
# Formats of phones and browsers that OpenCV's packages do not decode.
UNREAD_SUFFIXES = (".heic", ".heif", ".avif")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Offset of the colour type in the first chunk.
_PNG_COLOUR_TYPE = 25
_JPEG_SIGNATURE = b"\xff\xd8"
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
_WHITE = 255
_OPAQUE = 255  # the largest alpha
_BLOCK_ROWS = 64


def resize(image: ImageU8, size_wh: tuple[int, int]) -> ImageU8:
    """Return `image` resized to (width, height), by area averaging to fewer pixels, else bilinearly."""
    height, width = image.shape[:2]
    shrinks = size_wh[0] * size_wh[1] < width * height
    resized = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def at_most(image: ImageU8, side_px: int) -> ImageU8:
    """Return an image resized so that neither side is longer than `side_px`; a smaller one is returned unchanged."""
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return image
    return resize(image, (max(round(width * scale), 1), max(round(height * scale), 1)))


def sharpness(gray: ImageU8) -> float:
    """Return the variance of the Laplacian of an image (H, W): of the same picture, a blurred one has less."""
    return float(cv2.Laplacian(gray, cv2.CV_64F).var())


def read_image(path: Path) -> ImageU8:
    """Return an image file as uint8 (H, W) if it is stored in gray, else (H, W, 3) B, G, R.

    Raises:
        InputError: The file does not exist, or cannot be read or decoded, see `decode_image`.
    """
    require_file(path, "image")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"image '{path}' cannot be read: {error.strerror or error}") from error
    return decode_image(data, str(path))


def report_unread(names: Iterable[PurePath], notify: Callable[[str], None]) -> None:
    """Call `notify` with one line if some of the files `names` are images of a format that is not read."""
    unread = [name for name in names if name.suffix.lower() in UNREAD_SUFFIXES and not name.name.startswith(".")]
    if unread:
        found = counted(len(unread), "HEIC or AVIF image is", "HEIC or AVIF images are")
        notify(f"{found} not read, such as '{unread[0]}': convert them to JPEG or PNG")


def decode_image(data: bytes, name: str) -> ImageU8:
    """Return an encoded image as `read_image` does; `name` is its name in messages.

    Raises:
        InputError: The bytes are not an image, or the image is damaged, too large, or of a format that the installed
            OpenCV does not read.
    """
    image = None
    if data and _may_be_transparent(data):
        image = _transparent(data)
    if data and image is None:
        image = _decoded(data, cv2.IMREAD_ANYCOLOR)
    if image is None:
        raise InputError(
            f"image '{name}' cannot be decoded: it is damaged, not an image, larger than 2^27 pixels, or of a format "
            f"that OpenCV {cv2.__version__} does not read (such as HEIC and AVIF): convert it to JPEG or PNG"
        )
    return image


def _transparent(data: bytes) -> ImageU8 | None:
    """Return an encoded image with an alpha channel on white; None if it has no such channel."""
    stored = _decoded(data, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 3 or stored.shape[2] != 4:
        return None
    if data.startswith(b"BM") and not stored[..., 3].any():
        return None  # a BMP: many programs leave the fourth byte of a pixel unused, and write 0
    # libtiff multiplies the colours of 8 bits with their alpha.
    premultiplied = data.startswith(_TIFF_SIGNATURES) and stored.dtype == np.uint8
    return _on_white(stored, premultiplied)


def check_image(image: AnyImage) -> ImageU8:
    """Return an image array that the user has passed, checked.

    Raises:
        InputError: The image is not uint8 (H, W) or (H, W, 3), or has no pixels.
    """
    is_uint8 = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size > 0
    if not is_uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        shape = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"an image is {shape}: pass a uint8 array (height, width, 3), or (height, width) for gray")
    return image


def as_frame(image: ImageU8) -> ImageU8:
    """Return an image as uint8 (H, W, 3) B, G, R; a gray one gets three equal channels."""
    if image.ndim == 2:
        return np.repeat(image[:, :, np.newaxis], 3, axis=2)
    return image


def _decoded(data: bytes, flags: int) -> NDArray[Any] | None:
    """Return the decoded pixels, or None; `flags` as in `cv2.imdecode`."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _may_be_transparent(data: bytes) -> bool:
    """Return False for what cannot be transparent, so that it is decoded once: JPEG, PNM, and PNG without alpha."""
    if data.startswith(_PNG_SIGNATURE):
        # Bit 2 of the colour type is alpha; a chunk tRNS before the pixels makes colours transparent (PNG, 11.2.2).
        return bool(data[_PNG_COLOUR_TYPE] & 4) or b"tRNS" in data[: data.find(b"IDAT")]
    return not data.startswith((_JPEG_SIGNATURE, b"P2", b"P3", b"P5", b"P6"))


def _on_white(image_bgra: NDArray[Any], premultiplied: bool) -> ImageU8:
    """Return an image (H, W, 4) of 8 or 16 bits as uint8 (H, W, 3), its transparent parts on white.

    With `premultiplied`, the colours of the image are already multiplied with their alpha.
    """
    composited: ImageU8 = np.empty((*image_bgra.shape[:2], 3), np.uint8)
    # In blocks, because the numbers of a whole image of 25 megapixels would take more than a gigabyte.
    for top in range(0, len(image_bgra), _BLOCK_ROWS):
        rows = slice(top, top + _BLOCK_ROWS)
        # Of 16 bits the lower 8 are dropped, of 8 bits none.
        levels = image_bgra[rows].astype(np.uint32) >> 8 * (image_bgra.dtype.itemsize - 1)
        colours, alpha = levels[..., :3], levels[..., 3:]  # (rows, W, 3) and (rows, W, 1), 0 to 255
        # (colour * alpha + white * (opaque - alpha)) / opaque
        weighted = colours * _OPAQUE if premultiplied else colours * alpha
        total = weighted + _WHITE * (_OPAQUE - alpha)
        composited[rows] = (total + _OPAQUE // 2) // _OPAQUE  # rounded to the nearest level
    return composited


def opencv_text(text: str) -> str:
    """Return a file name or an address for OpenCV, which crashes the process if a text is not UTF-8.

    Raises:
        InputError: `text` is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"'{text}' is not UTF-8, which OpenCV requires: rename the file or folder") from error
    return text
