"""A power meter's readings: lines of `seconds watts`, and the energy of a stretch of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_UNIX_FROM_S = 1e9
_MAX_READINGS = 1_000_000


@dataclass(frozen=True)
class PowerReading:
    """Watts at a moment, `at_s` seconds after the benchmark's start."""

    at_s: float
    watts: float


def parse_readings(lines: Iterable[str], start_unix_s: float) -> tuple[list[PowerReading], int]:
    """Return the readings, in the order of time, and the number of lines that are none.

    A line is `seconds watts`: Unix time, or counted from the benchmark's start where it is below 10^9. Empty lines
    and those that begin with # are left out; a comma may stand between the two.
    """
    readings: list[PowerReading] = []
    strange = 0
    for line in lines:
        words = line[:200].replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            seconds, watts = (float(word) for word in words)
        except ValueError:
            strange += 1
            continue
        if not (math.isfinite(seconds) and math.isfinite(watts)) or watts < 0 or len(readings) >= _MAX_READINGS:
            strange += 1
            continue
        readings.append(PowerReading(seconds - start_unix_s if seconds >= _UNIX_FROM_S else seconds, watts))
    return sorted(readings, key=lambda reading: reading.at_s), strange


def mean_watts(readings: Sequence[PowerReading], from_s: float, to_s: float) -> float | None:
    """Return the mean power from `from_s` to `to_s`, straight lines between readings.

    None where fewer than two readings lie within, or the readings do not reach from one end to the other within two of
    their own intervals.
    """
    times = np.array([reading.at_s for reading in readings])
    watts = np.array([reading.watts for reading in readings])
    inside = (times >= from_s) & (times <= to_s)
    if inside.sum() < 2 or to_s <= from_s:
        return None
    gap = float(np.diff(times[inside]).max())
    if times[inside][0] - from_s > 2 * gap or to_s - times[inside][-1] > 2 * gap:
        return None
    moments = np.concatenate([[from_s], times[inside], [to_s]])
    values = np.interp(moments, times, watts)
    return float(((values[1:] + values[:-1]) / 2 * np.diff(moments)).sum() / (to_s - from_s))
