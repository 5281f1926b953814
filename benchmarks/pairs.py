"""Comparison of two functions on one machine by pairs of runs; the function that runs first alternates.

A pair's ratio compares runs that follow each other, so a slow phase of the machine affects both; the median over the
pairs is robust against a disturbance of a single run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Median seconds of the first and of the second function; time ratio second / first of each pair; median ratio."""

    first_s: float
    second_s: float
    ratio: float
    ratios: tuple[float, ...]


def time_pairs(
    first: Callable[[int], object],
    second: Callable[[int], object],
    pairs: int,
    clock: Callable[[], float] | None = None,
) -> Pairs:
    """Time `pairs` pairs of calls and return the times.

    Both functions are called with the number of the pair. Call both once before, so that no pair contains their
    warm-up. `clock` returns seconds; default: wall time. On a machine with other load use `time.process_time`.
    """
    now = clock or time.perf_counter
    first_s, second_s = [], []
    for pair in range(pairs):
        order = [(first, first_s), (second, second_s)]
        for function, times_s in reversed(order) if pair % 2 else order:
            started_s = now()
            function(pair)
            times_s.append(now() - started_s)
    ratios = tuple(b / a for a, b in zip(first_s, second_s, strict=True))
    return Pairs(statistics.median(first_s), statistics.median(second_s), statistics.median(ratios), ratios)
