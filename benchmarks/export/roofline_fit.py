"""Fit of a board's compute and bandwidth to published latencies, with leave-one-out errors (module)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.export.profiling.roofline import SPREAD

LEAST_ROWS = 3
LEAST_COVERAGE = 0.8
# Steps of 4 %, finer than the accuracy of the data.
_COMPUTE = np.geomspace(2e8, 4e11, 195)
_BANDWIDTH = np.geomspace(1e8, 1e11, 177)


@dataclass(frozen=True)
class Point:
    """Published latency of a net, and its `macs` and `moved_bytes` per layer, of equal length."""

    measured_ms: float
    macs: NDArray[np.float64]
    moved_bytes: NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """Result of a fit: compute (MACs/s) and bandwidth (bytes/s) with the smallest error.

    `errors` has, for each point, its latency divided by the latency that a fit to the other points predicts.
    """

    macs_per_s: float
    bytes_per_s: float
    errors: tuple[float, ...]

    @property
    def coverage(self) -> float:
        """Share of the points whose latency is inside the interval predicted from the other points."""
        return float(np.mean([1 / SPREAD <= error <= SPREAD for error in self.errors])) if self.errors else 0.0

    @property
    def typical_error(self) -> float:
        """Median factor (≥ 1) between a point's latency and its prediction from the other points."""
        return float(math.exp(np.median(np.abs(np.log(self.errors))))) if self.errors else math.nan

    @property
    def reason(self) -> str | None:
        """Reason why the fit gives no estimate; None if it gives one."""
        if len(self.errors) < LEAST_ROWS:
            return f"only {len(self.errors)} published nets, {LEAST_ROWS} are needed"
        if self.coverage < LEAST_COVERAGE:
            return (
                f"only {self.coverage:.0%} of {len(self.errors)} published nets lie inside the interval predicted from "
                f"the others, {LEAST_COVERAGE:.0%} are needed"
            )
        return None


def predicted_ms(point: Point, macs_per_s: float, bytes_per_s: float) -> float:
    """Return the latency in ms that the roofline predicts for a net."""
    return float(np.maximum(point.macs / macs_per_s, point.moved_bytes / bytes_per_s).sum() * 1e3)


def fit(points: Sequence[Point]) -> Fit:
    """Return the compute and bandwidth, on a grid, with the smallest squared error of the log latency.

    With fewer than `LEAST_ROWS` points, compute and bandwidth are NaN and `errors` is empty.
    """
    if len(points) < LEAST_ROWS:
        return Fit(math.nan, math.nan, ())
    measured = np.log([point.measured_ms for point in points])  # (points,)
    grid = np.log(np.stack([_over_grid(point) for point in points]))  # (points, compute, bandwidth)
    squared = (measured[:, None, None] - grid) ** 2
    total = squared.sum(axis=0)
    errors = []
    for index in range(len(points)):
        row, column = np.unravel_index((total - squared[index]).argmin(), total.shape)
        errors.append(math.exp(measured[index] - grid[index, row, column]))
    row, column = np.unravel_index(total.argmin(), total.shape)
    return Fit(float(_COMPUTE[row]), float(_BANDWIDTH[column]), tuple(errors))


def _over_grid(point: Point) -> NDArray[np.float64]:
    """Return a net's predicted latency in ms for each pair (compute, bandwidth) on the grid."""
    result = np.zeros((len(_COMPUTE), len(_BANDWIDTH)))
    for macs, moved in zip(point.macs, point.moved_bytes, strict=True):
        result += np.maximum((macs / _COMPUTE)[:, None], (moved / _BANDWIDTH)[None, :])
    return result * 1e3
