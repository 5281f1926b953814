"""Training and `edgekit run` read the same pixels from each format: a table of files and their expected pixels."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgekit.device.imaging import decode_image
from edgekit.device.sources import open_source
from edgekit.errors import InputError
from edgekit.models.data.readers import load_dataset
from edgekit.preprocess import ImageU8
from tests.device.conftest import OLD_OPENCV

SIDE_PX = 16
_SMOOTH = np.linspace(0, 255, SIDE_PX)
# A smooth image: lossy formats change it only slightly, and its eight orientations are different.
RGB: ImageU8 = np.stack(
    [np.tile(_SMOOTH, (SIDE_PX, 1)), np.tile(_SMOOTH[:, None], SIDE_PX), np.outer(_SMOOTH, _SMOOTH) / 255], axis=2
).astype(np.uint8)
GRAY: ImageU8 = RGB[..., 2]
ALPHA: ImageU8 = np.rot90(RGB[..., 0]).copy()
BILEVEL: ImageU8 = np.where(GRAY > 80, 255, 0).astype(np.uint8)
COMPOSITED: ImageU8 = np.rint(RGB * (ALPHA / 255)[..., None] + 255 - ALPHA[..., None]).astype(np.uint8)
COMPOSITED_GRAY: ImageU8 = np.rint(GRAY * (ALPHA / 255) + 255 - ALPHA).astype(np.uint8)
PALETTE = Image.fromarray(RGB).quantize(64)
PALETTE_RGB: ImageU8 = np.asarray(PALETTE.convert("RGB"))
OTHER = Image.fromarray(255 - RGB)


def pillow(image: Image.Image, format: str, orientation: int = 1, **options: Any) -> bytes:
    if orientation > 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def opencv(image: NDArray[Any], suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def bmp_of_32_bits(image: ImageU8) -> bytes:
    """Return a BMP with colour masks, in which the fourth byte of each pixel is unused."""
    height, width = image.shape[:2]
    pixels = np.zeros((height, width, 4), np.uint8)
    pixels[..., :3] = image[::-1, :, ::-1]
    masks = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 3, pixels.nbytes, 2835, 2835, 0, 0)
    start = 14 + len(header) + len(masks)
    return struct.pack("<2sIII", b"BM", start + pixels.nbytes, 0, start) + header + masks + pixels.tobytes()


def turned(image: ImageU8, orientation: int) -> ImageU8:
    """Return an image rotated and flipped like `PIL.ImageOps.exif_transpose`."""
    methods = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return np.asarray(Image.fromarray(image).transpose(methods[orientation]))


rgb, gray, alpha = Image.fromarray(RGB), Image.fromarray(GRAY), Image.fromarray(ALPHA)
rgba = Image.merge("RGBA", (*rgb.split(), alpha))
WIDE = RGB.astype(np.uint16) * 257
WIDE_RGBA = np.dstack([WIDE[..., ::-1], ALPHA.astype(np.uint16) * 257])
# The second image of each animation differs from the first.
ANIMATED = {"save_all": True, "append_images": [OTHER]}

# The file name, its bytes, the expected RGB or gray pixels, and the largest difference of a lossy format.
TABLE: list[tuple[str, bytes, ImageU8, int]] = [
    ("rgb.png", pillow(rgb, "PNG"), RGB, 0),
    ("gray.png", pillow(gray, "PNG"), GRAY, 0),
    ("alpha.png", pillow(rgba, "PNG"), COMPOSITED, 0),
    ("gray-alpha.png", pillow(Image.merge("LA", (gray, alpha)), "PNG"), COMPOSITED_GRAY, 0),
    ("palette.png", pillow(PALETTE, "PNG"), PALETTE_RGB, 0),
    ("one-bit.png", pillow(Image.fromarray(BILEVEL).convert("1"), "PNG"), BILEVEL, 0),
    ("rgb16.png", opencv(WIDE[..., ::-1], ".png"), RGB, 0),
    ("gray16.png", opencv(WIDE[..., 2], ".png"), GRAY, 0),
    ("alpha16.png", opencv(WIDE_RGBA, ".png"), COMPOSITED, 0),
    ("animated.png", pillow(rgb, "PNG", **ANIMATED), RGB, 0),
    ("rgb.jpg", pillow(rgb, "JPEG", quality=98, subsampling=0), RGB, 4),
    ("gray.jpg", pillow(gray, "JPEG", quality=98), GRAY, 4),
    ("cmyk.jpg", pillow(rgb.convert("CMYK"), "JPEG", quality=98, subsampling=0), RGB, 8),
    ("rgb.webp", pillow(rgb, "WEBP", lossless=True), RGB, 0),
    ("alpha.webp", pillow(rgba, "WEBP", lossless=True, exact=True), COMPOSITED, 0),
    ("animated.webp", pillow(rgb, "WEBP", lossless=True, **ANIMATED), RGB, 0),
    ("palette.gif", pillow(PALETTE, "GIF"), PALETTE_RGB, 0),
    ("gray.gif", pillow(gray, "GIF"), GRAY, 0),
    ("animated.gif", pillow(PALETTE, "GIF", save_all=True, append_images=[OTHER.quantize(64)]), PALETTE_RGB, 0),
    ("gif-by-content.jpg", pillow(PALETTE, "GIF"), PALETTE_RGB, 0),
    ("rgb.tiff", pillow(rgb, "TIFF"), RGB, 0),
    ("alpha.tiff", pillow(rgba, "TIFF"), COMPOSITED, 1),
    ("cmyk.tif", pillow(rgb.convert("CMYK"), "TIFF"), RGB, 8),
    ("gray16.tiff", opencv(WIDE[..., 2], ".tiff"), GRAY, 0),
    ("one-bit.tiff", pillow(Image.fromarray(BILEVEL).convert("1"), "TIFF", compression="group4"), BILEVEL, 0),
    ("pages.tiff", pillow(rgb, "TIFF", **ANIMATED), RGB, 0),
    ("rgb.bmp", pillow(rgb, "BMP"), RGB, 0),
    ("palette.bmp", pillow(PALETTE, "BMP"), PALETTE_RGB, 0),
    ("unused-fourth-byte.bmp", bmp_of_32_bits(RGB), RGB, 0),
    ("rgb.ppm", pillow(rgb, "PPM"), RGB, 0),
    ("gray16.pgm", opencv(WIDE[..., 2], ".pgm"), GRAY, 0),
    *((f"turned-{n}.jpg", pillow(rgb, "JPEG", n, quality=98, subsampling=0), turned(RGB, n), 4) for n in range(2, 9)),
    ("turned-6.tiff", pillow(rgb, "TIFF", 6), turned(RGB, 6), 0),
    ("turned-alpha.tiff", pillow(rgba, "TIFF", 6), turned(COMPOSITED, 6), 1),
]


@pytest.mark.parametrize(
    ("name", "data", "expected", "tolerance"),
    [
        pytest.param(*row, id=row[0], marks=[OLD_OPENCV] if re.search("gif|animated.webp", row[0]) else [])
        for row in TABLE
    ],
)
def test_a_format_gives_its_pixels_to_training_and_to_run(
    tmp_path: Path, name: str, data: bytes, expected: ImageU8, tolerance: int
) -> None:
    path = tmp_path / "some class" / name
    path.parent.mkdir()
    path.write_bytes(data)
    trained = load_dataset(tmp_path, SIDE_PX).split("all").images[0]
    with open_source(str(path), notify=pytest.fail) as source:
        (frame,) = source
    shown = frame.image_bgr[..., ::-1]
    assert np.array_equal(np.broadcast_to(trained, shown.shape), shown)
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=2)
    assert np.abs(shown.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("float.tiff", opencv(GRAY.astype(np.float32), ".tiff")),
        ("phone.jpg", b"\0\0\0\x18ftypheic" + bytes(40)),
        ("cut.gif", pillow(PALETTE, "GIF")[:30]),
        ("empty.png", b""),
        ("text.webp", b"hello"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(name: str, data: bytes) -> None:
    with pytest.raises(InputError) as raised:
        decode_image(data, name)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)
