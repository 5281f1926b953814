"""Training and `edgekit run` read the same pixels from each format: a table of files and their expected pixels."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgekit.device.sources import open_source
from edgekit.models.data.readers import load_dataset
from edgekit.preprocess import ImageU8

# As in Debian 13.
OLD_OPENCV = pytest.mark.skipif(cv2.__version__ < "4.12", reason="this OpenCV reads neither GIF nor moving WebP")
SIDE_PX = 16
_SMOOTH = np.linspace(0, 255, SIDE_PX)
# A smooth image: lossy formats change it only slightly, and its eight orientations are different.
RGB: ImageU8 = np.stack(
    [np.tile(_SMOOTH, (SIDE_PX, 1)), np.tile(_SMOOTH[:, None], SIDE_PX), np.outer(_SMOOTH, _SMOOTH) / 255], axis=2
).astype(np.uint8)
GRAY: ImageU8 = RGB[..., 2]
ALPHA: ImageU8 = np.rot90(RGB[..., 0]).copy()
COMPOSITED: ImageU8 = np.rint(RGB * (ALPHA / 255)[..., None] + 255 - ALPHA[..., None]).astype(np.uint8)
COMPOSITED_GRAY: ImageU8 = np.rint(GRAY * (ALPHA / 255) + 255 - ALPHA).astype(np.uint8)
PALETTE = Image.fromarray(RGB).quantize(64)
PALETTE_RGB: ImageU8 = np.asarray(PALETTE.convert("RGB"))
OTHER = Image.fromarray(255 - RGB)


def pillow(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def opencv(image: NDArray[Any], suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1])


def turned(orientation: int) -> bytes:
    """Return a JPEG with an orientation of EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return pillow(rgb, "JPEG", exif=exif, quality=98, subsampling=0)


def upright(jpeg: bytes) -> ImageU8:
    """Return the pixels as Pillow shows them."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg))))


rgb, gray, alpha = Image.fromarray(RGB), Image.fromarray(GRAY), Image.fromarray(ALPHA)
rgba = Image.merge("RGBA", (*rgb.split(), alpha))
WIDE = RGB.astype(np.uint16) * 257
# The second image of each animation differs from the first.
ANIMATED = {"save_all": True, "append_images": [OTHER]}

# The file name, its bytes, the expected RGB or gray pixels, and the largest difference of a lossy format.
TABLE: list[tuple[str, bytes, ImageU8, int]] = [
    ("rgb.png", pillow(rgb, "PNG"), RGB, 0),
    ("gray.png", pillow(gray, "PNG"), GRAY, 0),
    ("alpha.png", pillow(rgba, "PNG"), COMPOSITED, 0),
    ("gray-alpha.png", pillow(Image.merge("LA", (gray, alpha)), "PNG"), COMPOSITED_GRAY, 0),
    ("palette.png", pillow(PALETTE, "PNG"), PALETTE_RGB, 0),
    ("rgb16.png", opencv(WIDE[..., ::-1], ".png"), RGB, 0),
    ("gray16.png", opencv(WIDE[..., 2], ".png"), GRAY, 0),
    ("rgb.jpg", pillow(rgb, "JPEG", quality=98, subsampling=0), RGB, 4),
    ("gray.jpg", pillow(gray, "JPEG", quality=98), GRAY, 4),
    ("cmyk.jpg", pillow(rgb.convert("CMYK"), "JPEG", quality=98, subsampling=0), RGB, 8),
    ("rgb.webp", pillow(rgb, "WEBP", lossless=True), RGB, 0),
    ("alpha.webp", pillow(rgba, "WEBP", lossless=True, exact=True), COMPOSITED, 0),
    ("animated.webp", pillow(rgb, "WEBP", lossless=True, **ANIMATED), RGB, 0),
    ("palette.gif", pillow(PALETTE, "GIF"), PALETTE_RGB, 0),
    ("animated.gif", pillow(PALETTE, "GIF", save_all=True, append_images=[OTHER.quantize(64)]), PALETTE_RGB, 0),
    ("rgb.tiff", pillow(rgb, "TIFF"), RGB, 0),
    ("alpha.tiff", pillow(rgba, "TIFF"), COMPOSITED, 1),
    ("rgb.bmp", pillow(rgb, "BMP"), RGB, 0),
    ("rgb.ppm", pillow(rgb, "PPM"), RGB, 0),
    *((f"turned-{n}.jpg", turned(n), upright(turned(n)), 1) for n in range(2, 9)),
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
