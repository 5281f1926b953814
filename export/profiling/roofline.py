"""Latency estimates per board: one roofline per layer, fitted to published measurements.

A layer takes max(MACs / compute, bytes / bandwidth) (Williams, Waterman, Patterson: Roofline, CACM 2009). A net takes
the sum of its layers' times. Bytes are counted without reuse in a cache: this count predicts published latencies better
than all other counts that were tried.

`benchmarks/export/board_estimates.py` fits compute and bandwidth per board, number of threads and precision, computes
the leave-one-out errors, and writes `board_rooflines.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from edgekit.text import counted

Precision: TypeAlias = Literal["fp32", "int8"]

# An estimate spans a factor of three, the spread between engines and versions in the published latencies.
SPREAD = math.sqrt(3)
ROOFLINES_NAME = "board_rooflines.json"

_MS_PER_S = 1e3


@dataclass(frozen=True)
class Roofline:
    """Compute and bandwidth of a board, and the quality of their fit to published latencies.

    `rows` is the number of published nets in the fit. Each net's latency is also predicted by a fit to the other nets:
    `coverage` is the share of nets whose latency is inside the predicted interval, `typical_error` the median factor
    between latency and prediction. `reason` states why the roofline gives no estimate; None if it gives one.
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
    """Multiply-accumulates and bytes moved of a layer."""

    name: str
    macs: int
    moved_bytes: int


@dataclass(frozen=True)
class Estimate:
    """Latency estimate in ms; `memory_share` is the share of the time in layers bound by memory bandwidth."""

    roofline: Roofline
    middle_ms: float
    memory_share: float
    layers_ms: tuple[float, ...]

    @property
    def low_ms(self) -> float:
        """Lower end of the estimate's interval."""
        return self.middle_ms / SPREAD

    @property
    def high_ms(self) -> float:
        """Upper end of the estimate's interval."""
        return self.middle_ms * SPREAD


@cache
def rooflines() -> tuple[Roofline, ...]:
    """Return the rooflines of all boards."""
    document: dict[str, Any] = json.loads(Path(__file__).with_name(ROOFLINES_NAME).read_text())
    return tuple(Roofline(**entry) for entry in document["rooflines"])


def roofline_of(board: str, precision: Precision, threads: int) -> Roofline:
    """Return a board's roofline; without published latencies its `reason` is set and its numbers are NaN."""
    for each in rooflines():
        if (each.board, each.precision, each.threads) == (board, precision, threads):
            return each
    reason = f"no latency of {precision} with {counted(threads, 'thread')} is published for it"
    return Roofline(board, precision, threads, None, math.nan, math.nan, 0, 0.0, math.nan, reason)


def estimate(layers: Sequence[LayerWork], roofline: Roofline) -> Estimate:
    """Return the estimated latency of a net, by a roofline without `reason`."""
    computing = [layer.macs / roofline.macs_per_s * _MS_PER_S for layer in layers]
    moving = [layer.moved_bytes / roofline.bytes_per_s * _MS_PER_S for layer in layers]
    taken = [max(pair) for pair in zip(computing, moving, strict=True)]
    total = sum(taken)
    waiting = sum(t for t, c, m in zip(taken, computing, moving, strict=True) if m > c)
    return Estimate(roofline, total, waiting / total if total else 0.0, tuple(taken))
