"""The part of a frame that counts, and how large a detector has to see it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.device.detection import DEFAULT_INPUT_SIZE_PX
from edgekit.errors import InputError

# A face of so many pixels in the detector's picture is found: YuNet at score 0.7 found 24 of 24 faces of four pictures
# and clips scaled to 24 pixels, 22 scaled to 20, 11 to 16, 5 to 14. Haar's windows are 24 pixels wide.
_FACE_IN_INPUT_PX = 24
# The nets halve their picture five times.
_STEP_PX = 32


@dataclass(frozen=True)
class Region:
    """Left, top, width and height: pixels of the frame, or shares of it where none exceeds 1."""

    x: float
    y: float
    width: float
    height: float

    def xyxy(self, frame_wh: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the region as left, top, right, bottom in whole pixels of a frame.

        Raises:
            InputError: It does not lie inside the frame.
        """
        frame_w, frame_h = frame_wh
        shares = max(self.x + self.width, self.y + self.height) <= 1
        to_x, to_y = (frame_w, frame_h) if shares else (1, 1)
        x0, y0 = math.floor(self.x * to_x), math.floor(self.y * to_y)
        x1, y1 = math.ceil((self.x + self.width) * to_x), math.ceil((self.y + self.height) * to_y)
        if x1 > frame_w or y1 > frame_h:
            raise InputError(
                f"region {self} does not lie inside the frame of {frame_w}x{frame_h}: choose a smaller one"
            )
        return x0, y0, x1, y1

    def __str__(self) -> str:
        return ",".join(f"{value:g}" for value in (self.x, self.y, self.width, self.height))


def parse_region(text: str) -> Region:
    """Return the region that `x,y,w,h` names.

    Raises:
        InputError: It is not four numbers that make a region.
    """
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"region '{text}' is not of the form x,y,w,h: write four numbers") from error
    if not all(map(math.isfinite, (x, y, width, height))) or x < 0 or y < 0 or width <= 0 or height <= 0:
        raise InputError(f"region '{text}' is empty or starts outside the frame: give x,y >= 0 and w,h > 0")
    return Region(x, y, width, height)


def detector_input_px(picture_wh: tuple[int, int], min_face_px: float) -> int:
    """Return the longer side of a detector's picture in which faces of `min_face_px` can still be found.

    A multiple of 32, no larger than the picture needs; 320 where no least size is asked for (0).
    """
    if min_face_px <= 0:
        return DEFAULT_INPUT_SIZE_PX
    longer_px = max(picture_wh)
    return math.ceil(longer_px * min(_FACE_IN_INPUT_PX / min_face_px, 1) / _STEP_PX) * _STEP_PX


def scaled_input_px(input_size_px: int, share: float) -> int:
    """Return a share of a detector's input size, in whole steps of 32; the size itself for 1."""
    return input_size_px if share == 1 else max(round(input_size_px * share / _STEP_PX), 1) * _STEP_PX
