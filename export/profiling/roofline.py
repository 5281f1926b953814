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
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from edgekit.known_boards import KnownBoard

Precision: TypeAlias = Literal["fp32", "int8"]
T = TypeVar("T")

# An estimate spans a factor of three, the spread between engines and versions in the published latencies.
SPREAD = math.sqrt(3)
ROOFLINES_NAME = "board_rooflines.json"


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
class Estimate:
    """Latency estimate in ms; `memory_share` is the share of the time in layers bound by memory bandwidth."""

    roofline: Roofline
    middle_ms: float
    memory_share: float

    @property
    def low_ms(self) -> float:
        """Lower end of the estimate's interval."""
        return self.middle_ms / SPREAD

    @property
    def high_ms(self) -> float:
        """Upper end of the estimate's interval."""
        return self.middle_ms * SPREAD


@dataclass(frozen=True)
class BoardEstimate(Generic[T]):
    """Estimate of the model, or of the whole loop, on a board; without an `estimate`, `reason` states why."""

    board: KnownBoard
    threads: int
    estimate: T | None
    reason: str | None = None


@cache
def rooflines() -> tuple[Roofline, ...]:
    """Return the rooflines of all boards."""
    document: dict[str, Any] = json.loads(Path(__file__).with_name(ROOFLINES_NAME).read_text())
    return tuple(Roofline(**entry) for entry in document["rooflines"])


def roofline_of(board: str, precision: Precision, threads: int) -> Roofline:
    """Return the roofline of a known board, for one or four threads."""
    return next(
        each for each in rooflines() if (each.board, each.precision, each.threads) == (board, precision, threads)
    )


def estimate(macs: Sequence[int], moved_bytes: Sequence[int], roofline: Roofline) -> Estimate:
    """Estimate the latency of a net: each layer takes the longer of the times of its computation and memory traffic.

    `macs` and `moved_bytes` are counts per layer; `roofline` has the board's rates.
    """
    total_ms = memory_ms = 0.0
    for layer_macs, layer_bytes in zip(macs, moved_bytes, strict=True):
        computing_ms = 1e3 * layer_macs / roofline.macs_per_s
        moving_ms = 1e3 * layer_bytes / roofline.bytes_per_s
        total_ms += max(computing_ms, moving_ms)
        memory_ms += moving_ms if moving_ms > computing_ms else 0
    return Estimate(roofline, total_ms, memory_ms / total_ms if total_ms else 0.0)
