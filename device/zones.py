"""Zones: named polygons of the frame. Faces count in them, and a model of whole images classifies each by itself."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edgekit.device.region import Region
from edgekit.errors import InputError

_LEAST_CORNERS = 3
# Twice the area of a triangle, as a share of the frame; more than the error of float numbers.
_LEAST_AREA = 1e-12
_FORM = "write NAME=x,y,x,y,x,y with at least three corners"


@dataclass(frozen=True)
class Zone:
    """A named polygon; a box belongs to the zone in which its centre lies.

    Example:
        >>> door = Zone("door", ((0.1, 0.2), (0.4, 0.2), (0.4, 0.9), (0.1, 0.9)))
        >>> edgekit.stream(camera="auto", zones=[door])

    Attributes:
        name: Letters, digits, - and _.
        corners: At least three points x, y, as fractions of the frame's width and height.
    """

    name: str
    corners: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise InputError(f"zone name '{self.name}' is not of letters, digits, - and _: choose another name")
        if len(self.corners) < _LEAST_CORNERS:
            raise InputError(f"zone '{self.name}' has {len(self.corners)} of at least three corners: {_FORM}")
        for x, y in self.corners:
            # In this form it refuses NaN, too.
            if not (0 <= x <= 1 and 0 <= y <= 1):
                raise InputError(
                    f"zone '{self.name}' has a corner at {x:g},{y:g}, outside the frame: give fractions from 0 to 1"
                )
        if self._is_line():
            raise InputError(f"zone '{self.name}' is a line: move one of its corners")

    @property
    def box(self) -> Region:
        """The rectangle around the zone."""
        xs, ys = zip(*self.corners, strict=True)
        return Region(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point, as fractions of the frame, lies in the zone."""
        # A line from the point to the right crosses the edges of the polygon an odd number of times.
        crossings = 0
        for (x0, y0), (x1, y1) in self._edges():
            is_at_height_of_point = (y0 > y) != (y1 > y)  # one end is above the point, the other is not
            if not is_at_height_of_point:
                continue
            edge_x = x0 + (y - y0) / (y1 - y0) * (x1 - x0)
            if edge_x > x:
                crossings += 1
        return crossings % 2 == 1

    def _is_line(self) -> bool:
        """Return whether all corners are on one line, so that no point lies in the zone."""
        x0, y0 = self.corners[0]
        # The corner that is farthest from the first one gives the direction of the line.
        far_x, far_y = max(self.corners, key=lambda corner: math.dist(corner, (x0, y0)))
        # Each is twice the area of the triangle of the two and another corner.
        areas = [(far_x - x0) * (y - y0) - (far_y - y0) * (x - x0) for x, y in self.corners]
        return max(map(abs, areas)) < _LEAST_AREA

    def _edges(self) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
        """Return the two ends of each edge; the last edge leads back to the first corner."""
        return zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True)

    def __str__(self) -> str:
        return f"{self.name}=" + ",".join(f"{x:g},{y:g}" for x, y in self.corners)


def parse_zone(text: str) -> Zone:
    """Return the zone for the text `NAME=x,y,x,y,…`.

    Raises:
        InputError: The text is not of this form, or not a zone.
    """
    name, _, points = text.partition("=")
    try:
        # A text without "=" fails here, because its empty `points` are no number.
        values = [float(value) for value in points.split(",")]
        # `strict`: an odd number of values is a ValueError.
        corners = tuple(zip(values[::2], values[1::2], strict=True))
    except ValueError as error:
        raise InputError(f"zone '{text}' is not a name and pairs of numbers: {_FORM}") from error
    return Zone(name, corners)


def check_zones(zones: Iterable[Zone]) -> None:
    """Raise InputError if two zones have one name."""
    counts = Counter(zone.name for zone in zones)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"two zones are called '{twice[0]}': give each its own name")


def check_sizes(zones: Iterable[Zone], frame_wh: tuple[int, int]) -> None:
    """Raise InputError if a zone is less than one pixel wide or high in a frame of this size."""
    frame_w, frame_h = frame_wh
    for zone in zones:
        width_px, height_px = zone.box.width * frame_w, zone.box.height * frame_h
        if min(width_px, height_px) < 1:
            size = f"{round(width_px, 2):g}x{round(height_px, 2):g} pixels"
            raise InputError(
                f"zone '{zone.name}' is {size} in the frame of {frame_w}x{frame_h}: make it at least one pixel wide "
                "and high"
            )
