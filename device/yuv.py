"""YUV 4:2:0 images as cameras deliver them: a luma plane and two chroma planes of half its width and height.

A gray net needs the luma only, so B, G, R values are computed on demand. The conversion is ITU-R BT.601 in full range
(as JPEG: luma 0 to 255, edgekit's gray) or limited range (as video: luma 16 to 235).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from edgekit.errors import SourceError
from edgekit.preprocess import ImageU8

Layout: TypeAlias = Literal["i420", "nv12"]

ROTATION_CODES = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class Planes:
    """The planes of one image: uint8 luma (H, W), u and v (H/2, W/2); views into the camera's buffer."""

    raw_luma: ImageU8
    u: ImageU8
    v: ImageU8
    full_range: bool

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.raw_luma.shape[1], self.raw_luma.shape[0]

    @functools.cached_property
    def luma(self) -> ImageU8:
        """Full-range luma, uint8 (H, W); the camera's own plane if that is full-range."""
        return self.raw_luma if self.full_range else np.asarray(cv2.LUT(self.raw_luma, _LIMITED_TO_FULL), np.uint8)

    @functools.cached_property
    def bgr(self) -> ImageU8:
        """The image as uint8 (H, W, 3) B, G, R."""
        width, height = self.size_wh
        i420 = np.empty((height * 3 // 2, width), np.uint8)
        # OpenCV converts from limited range only.
        i420[:height] = cv2.LUT(self.raw_luma, _FULL_TO_LIMITED) if self.full_range else self.raw_luma
        for place, plane in enumerate((self.u, self.v)):
            chroma = cv2.LUT(plane, _FULL_TO_LIMITED_CHROMA) if self.full_range else plane
            quarter = height * width // 4
            i420[height:].reshape(-1)[place * quarter : (place + 1) * quarter] = np.asarray(chroma).reshape(-1)
        return np.asarray(cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420), np.uint8)

    def rotated(self, degrees: int) -> Planes:
        """Return the planes rotated clockwise by 0, 90, 180 or 270 degrees."""
        if degrees == 0:
            return self
        planes = (cv2.rotate(plane, ROTATION_CODES[degrees]) for plane in (self.raw_luma, self.u, self.v))
        luma, u, v = (np.asarray(plane, np.uint8) for plane in planes)
        return Planes(luma, u, v, self.full_range)


def split_planes(buffer: ImageU8, size_wh: tuple[int, int], stride: int, layout: Layout, full_range: bool) -> Planes:
    """Return the planes of a camera's buffer as views.

    Args:
        buffer: uint8 (bytes,): the rows of luma, then the rows of chroma.
        size_wh: Width and height in pixels, both even.
        stride: Bytes from one luma row to the next; the stride of separate u and v planes is half as large.
        layout: "i420": the u plane, then the v plane; "nv12": u and v interleaved.
        full_range: Whether luma is 0 for black and 255 for white.

    Raises:
        SourceError: The buffer is too small.
    """
    width, height = size_wh
    rows = height * 3 // 2
    if buffer.size < rows * stride or stride < width:
        raise SourceError(
            f"the camera delivers {buffer.size} bytes per image, too few for {width}x{height} in {layout} with rows "
            f"of {stride} bytes: choose another camera size"
        )
    whole = buffer[: rows * stride].reshape(rows, stride)
    luma, chroma = whole[:height, :width], whole[height:]
    if layout == "nv12":
        return Planes(luma, chroma[:, 0:width:2], chroma[:, 1:width:2], full_range)
    u, v = chroma.reshape(2, height // 2, stride // 2)[:, :, : width // 2]
    return Planes(luma, u, v, full_range)


def _table(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> ImageU8:
    return values.round().clip(0, 255).astype(np.uint8)


_LEVELS = np.arange(256, dtype=np.float64)
_LIMITED_TO_FULL = _table((_LEVELS - 16) * 255 / 219)
_FULL_TO_LIMITED = _table(16 + _LEVELS * 219 / 255)
_FULL_TO_LIMITED_CHROMA = _table(128 + (_LEVELS - 128) * 224 / 255)
