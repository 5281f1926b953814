"""The part of a frame that counts, and how large a detector has to see it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.errors import InputError


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
            raise InputError(f"region {self} does not lie inside the frame of {frame_w}x{frame_h}: choose a smaller one")
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
