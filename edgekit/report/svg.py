"""Small pieces of SVG: escaped text, rules, scales with round ticks. Colours and fonts are the page's style sheet's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 360


@dataclass(frozen=True)
class Scale:
    """A straight line from values to pixels."""

    low: float
    high: float
    from_px: float
    to_px: float

    def __call__(self, value: float) -> float:
        """Return the place of a value, held within the scale's ends."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.from_px + min(max(share, 0.0), 1.0) * (self.to_px - self.from_px)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round numbers from `low` to `high`, roughly `about` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [(first + index) * step for index in range(int(high / step + 1e-9) - first + 1)]


def number(value: float) -> str:
    """Return a number short enough for an axis."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """Return a line of text, escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def box(x: float, y: float, width: float, height: float, css: str, title: str = "") -> str:
    """Return a rectangle; a title is shown where a pointer rests."""
    inner = f"<title>{escape(title)}</title>" if title else ""
    width, height = max(width, 0.0), max(height, 0.0)
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{css}">{inner}</rect>'


def path(points: Sequence[tuple[float, float]], css: str) -> str:
    """Return a line through points; a single one becomes a dot."""
    if len(points) == 1:
        (x, y), *_ = points
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8" class="dot {css}"/>'
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{steps}" class="curve {css}"/>'


def image(parts: Sequence[str], height: float, label: str) -> str:
    """Return a drawing that scales with the page; `label` is what a screen reader says."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
