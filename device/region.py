"""The region of interest of a frame, and the size of the detector's input."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import InputError

if TYPE_CHECKING:
    from edgekit.contract import Contract

# Longer side of the detector's input if no smallest face is given.
DEFAULT_INPUT_SIZE_PX = 320
MIN_INPUT_SIZE_PX, MAX_INPUT_SIZE_PX = 32, 4096
# Size that a face needs in the detector's input: of 24 faces in four images and videos, YuNet at score 0.7 found 24
# when they were scaled to 24 px, 22 at 20 px, 11 at 16 px, 5 at 14 px. Haar's windows are 24 px wide.
_FACE_IN_INPUT_PX = 24
# YuNet halves its input five times: the sides must be multiples of 32.
_STEP_PX = 32
# A region in pixels with a shorter side is a mistake, such as fractions that exceed the frame (0,0,2,2).
_MIN_SIDE_PX = 8


@dataclass(frozen=True)
class Region:
    """Left, top, width and height in pixels, or as fractions of the frame if x + width and y + height are at most 1.

    A region in pixels is at least 8 pixels wide and high.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        """Check what can be checked without the size of the frame."""
        shorter_side = min(self.width, self.height)
        is_finite = all(math.isfinite(number) for number in (self.x, self.y, self.width, self.height))
        if not is_finite or self.x < 0 or self.y < 0 or shorter_side <= 0:
            raise InputError(f"region '{self}' is empty or starts outside the frame: give x,y >= 0 and w,h > 0")
        if not self._is_fractions and shorter_side < _MIN_SIDE_PX:
            raise InputError(
                f"region '{self}' is smaller than {_MIN_SIDE_PX}x{_MIN_SIDE_PX} pixels, and as fractions it exceeds "
                "the frame: give pixels, or fractions with x+w and y+h at most 1"
            )

    @property
    def _is_fractions(self) -> bool:
        """Whether the four numbers are fractions of the frame, not pixels."""
        return max(self.x + self.width, self.y + self.height) <= 1

    def xyxy(self, frame_wh: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the region as left, top, right, bottom in whole pixels of a frame.

        Raises:
            InputError: The region does not lie inside the frame.
        """
        frame_w, frame_h = frame_wh
        to_x, to_y = (frame_w, frame_h) if self._is_fractions else (1, 1)
        left, right = self.x * to_x, (self.x + self.width) * to_x
        top, bottom = self.y * to_y, (self.y + self.height) * to_y
        # Rounded to millionths first, because 0.4 + 0.2 is a little more than 0.6 and would give one pixel more.
        x0, y0 = math.floor(round(left, 6)), math.floor(round(top, 6))
        # At least one pixel, also for a width or height of almost 0 at the right or lower edge.
        x0, y0 = min(x0, frame_w - 1), min(y0, frame_h - 1)
        x1, y1 = max(math.ceil(round(right, 6)), x0 + 1), max(math.ceil(round(bottom, 6)), y0 + 1)
        if x1 > frame_w or y1 > frame_h:
            raise InputError(
                f"region {self} does not lie inside the frame of {frame_w}x{frame_h}: choose a smaller one"
            )
        return x0, y0, x1, y1

    def __str__(self) -> str:
        return ",".join(f"{value:g}" for value in (self.x, self.y, self.width, self.height))


def taught_region(contract: Contract) -> Region | None:
    """Return the region that a model was taught, see `Contract.region`; None: the whole frame."""
    if contract.region is None:
        return None
    x0, y0, x1, y1 = contract.region
    return Region(x0, y0, x1 - x0, y1 - y0)


def parse_region(text: str) -> Region:
    """Return the region for the text `x,y,w,h`.

    Raises:
        InputError: The text is not four numbers, or not a region.
    """
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"region '{text}' is not of the form x,y,w,h: write four numbers") from error
    return Region(x, y, width, height)


def detector_input_px(image_wh: tuple[int, int], min_face_px: float) -> int:
    """Return the longer side of the detector's input in which faces of `min_face_px` can still be found.

    The result is a multiple of 32, at most the image's longer side rounded up; 320 if `min_face_px` is 0.
    """
    if min_face_px <= 0:
        return DEFAULT_INPUT_SIZE_PX
    scale = min(_FACE_IN_INPUT_PX / min_face_px, 1)  # an enlarged image would have no more detail
    return math.ceil(max(image_wh) * scale / _STEP_PX) * _STEP_PX


def scaled_input_px(input_size_px: int, scale: float) -> int:
    """Return a detector's input size times `scale`, rounded to a multiple of 32; the size itself for 1."""
    # The given size need not be a multiple of 32.
    return input_size_px if scale == 1 else max(round(input_size_px * scale / _STEP_PX), 1) * _STEP_PX
