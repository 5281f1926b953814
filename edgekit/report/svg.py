"""SVG elements as escaped markup, and scales with round ticks. Colours and fonts come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH = 360
# A span of less has no round numbers that differ in a label.
_MIN_SPAN = 1e-12


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    from_px: float
    to_px: float

    def __call__(self, value: float) -> float:
        """Return the position of a value, limited to the ends of the scale."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.from_px + min(max(share, 0.0), 1.0) * (self.to_px - self.from_px)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round numbers from `low` to `high`, roughly `about` of them."""
    if not high - low > _MIN_SPAN:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [(first + index) * step for index in range(int(high / step + 1e-9) - first + 1)]


def number(value: float) -> str:
    """Return a number as a short text for an axis."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> Markup:
    """Return a line of text."""
    element = Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>')
    return element.format(x, y, css, anchor, content)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """Return a straight line."""
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(x1, y1, x2, y2, css)


def box(x: float, y: float, width: float, height: float, css: str, title: str = "") -> Markup:
    """Return a rectangle; browsers show its title as a tooltip."""
    element = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}">{}</rect>')
    tooltip = Markup("<title>{}</title>").format(title) if title else ""
    return element.format(x, y, max(width, 0.0), max(height, 0.0), css, tooltip)


def path(points: Sequence[tuple[float, float]], css: str) -> Markup:
    """Return a line through points, or a dot for a single point."""
    if len(points) == 1:
        return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="1.8" class="dot {}"/>').format(*points[0], css)
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline points="{}" class="curve {}"/>').format(steps, css)


def image(parts: Iterable[Markup], height: float, label: str) -> Markup:
    """Return a drawing that scales with the page; screen readers read `label`."""
    element = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>')
    return element.format(WIDTH, height, label, Markup().join(parts))
