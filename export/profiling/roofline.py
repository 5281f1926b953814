"""What a net would take on a board: a roofline for each layer, with figures found from published measurements.

A layer takes the longer of its arithmetic and its traffic: max(MACs / compute, bytes / bandwidth) (Williams, Waterman,
Patterson: Roofline, CACM 2009), a net the sum of its layers. Traffic is that of the graph as it stands, without reuse
in a cache: of the counts tried, the one that predicts published nets best.

`benchmarks/export/board_estimates.py` finds compute and bandwidth of each board, number of threads and precision, and how far
they are off on nets they were not found from; it writes `board_rooflines.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

Precision: TypeAlias = Literal["fp32", "int8"]

# An estimate spans a factor of three: what engines of other makers and days are off by, who never measured this one.
SPREAD = math.sqrt(3)
LEAST_ROWS = 3
LEAST_COVERAGE = 0.8
ROOFLINES_NAME = "board_rooflines.json"

_MS_PER_S = 1e3


@dataclass(frozen=True)
class Roofline:
    """Compute and bandwidth of a board, and what they rest on.

    `rows` counts the published nets they were found from. `coverage` is the share of them whose latency lies in the
    interval that the others give; `typical_error` the median factor by which the others' figures miss. `reason` says
    why there is no estimate, or is None.
    """

    board: str
    precision: Precision
    threads: int
    clock_mhz: int | None
    macs_per_s: float
    bytes_per_s: float
    rows: int
    coverage: float
    typical_error: float
    reason: str | None = None


@dataclass(frozen=True)
class LayerWork:
    """A layer's multiply-accumulates and bytes moved."""

    name: str
    macs: int
    moved_bytes: int


@dataclass(frozen=True)
class Estimate:
    """Milliseconds: the middle and the interval around it; `memory_share` is the part in which memory is waited for."""

    roofline: Roofline
    middle_ms: float
    memory_share: float
    layers_ms: tuple[float, ...]

    @property
    def low_ms(self) -> float:
        """The least it should take."""
        return self.middle_ms / SPREAD

    @property
    def high_ms(self) -> float:
        """The most it should take."""
        return self.middle_ms * SPREAD


@cache
def rooflines() -> tuple[Roofline, ...]:
    """Return what is known of all boards."""
    document: dict[str, Any] = json.loads(Path(__file__).with_name(ROOFLINES_NAME).read_text())
    return tuple(Roofline(**entry) for entry in document["rooflines"])


def roofline_of(board: str, precision: Precision, threads: int) -> Roofline:
    """Return a board's roofline; one with a `reason` and no figures where nothing is known."""
    for each in rooflines():
        if (each.board, each.precision, each.threads) == (board, precision, threads):
            return each
    reason = f"nobody published {precision} with {threads} threads on it"
    return Roofline(board, precision, threads, None, math.nan, math.nan, 0, 0.0, math.nan, reason)


def estimate(layers: Sequence[LayerWork], roofline: Roofline) -> Estimate | None:
    """Return how long a net should take on a board, or None where the roofline gives a reason not to say."""
    if roofline.reason is not None:
        return None
    computing = [layer.macs / roofline.macs_per_s * _MS_PER_S for layer in layers]
    moving = [layer.moved_bytes / roofline.bytes_per_s * _MS_PER_S for layer in layers]
    taken = [max(pair) for pair in zip(computing, moving, strict=True)]
    total = sum(taken)
    waiting = sum(t for t, c, m in zip(taken, computing, moving, strict=True) if m > c)
    return Estimate(roofline, total, waiting / total if total else 0.0, tuple(taken))
