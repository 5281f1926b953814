"""Two works against each other on one machine: pairs that alternate which goes first.

A pair's ratio compares neighbours in time, so what slows the machine for a while slows both; medians over the pairs
leave out what slowed one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pairs:
    """Median seconds of the first and the second work; the second's over the first's in each pair, and their median."""

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
    """Return what `pairs` pairs took; both are called with the pair's number, and should have warmed up before.

    `clock` gives seconds; default: the wall's. On a machine that has other work, `time.process_time` tells more.
    """
    now = clock or time.perf_counter
    first_s, second_s = [], []
    for pair in range(pairs):
        order = [(first, first_s), (second, second_s)]
        for work, times_s in reversed(order) if pair % 2 else order:
            started_s = now()
            work(pair)
            times_s.append(now() - started_s)
    ratios = tuple(b / a for a, b in zip(first_s, second_s, strict=True))
    return Pairs(statistics.median(first_s), statistics.median(second_s), statistics.median(ratios), ratios)
