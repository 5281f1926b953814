"""Readings of a power meter, lines of `seconds watts`, and the mean power over an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgekit.files import require_file

# Smaller times count from the start of the benchmark, larger ones are Unix time.
_MIN_UNIX_S = 1e9


class PowerReading(NamedTuple):
    """Power in watts, `at_s` seconds after the start of the benchmark."""

    at_s: float
    watts: float


def parse_readings(lines: Iterable[str], start_unix_s: float) -> tuple[list[PowerReading], int]:
    """Return the readings in the order of time, and the number of lines that cannot be read.

    A line is `seconds watts` or `seconds,watts`. Seconds are Unix time, or count from the start of the benchmark if
    they are below 10^9. Empty lines and lines that begin with # are skipped.
    """
    readings: list[PowerReading] = []
    words = [line.replace(",", " ").split() for line in lines]
    given = [each for each in words if each and not each[0].startswith("#")]
    for each in given:
        try:
            at_s, watts = map(float, each)
        except ValueError:
            continue
        if math.isfinite(at_s) and 0 <= watts < math.inf:
            readings.append(PowerReading(at_s - (start_unix_s if at_s >= _MIN_UNIX_S else 0), watts))
    return sorted(readings), len(given) - len(readings)


def mean_watts(readings: Sequence[PowerReading], from_s: float, to_s: float) -> float | None:
    """Return the mean power from `from_s` to `to_s` in watts, interpolated linearly between readings.

    The result is None if the readings do not cover the interval: fewer than two of them lie inside, or the time without
    a reading at its start or end is longer than twice the largest gap between those inside.
    """
    inside = np.array([reading for reading in readings if from_s <= reading.at_s <= to_s])
    if len(inside) < 2:
        return None
    times_s, watts = inside.T
    steps_s = np.diff(times_s)
    if not steps_s.any() or max(times_s[0] - from_s, to_s - times_s[-1]) > 2 * steps_s.max():
        return None
    return float(((watts[1:] + watts[:-1]) / 2 * steps_s).sum() / steps_s.sum())


def power_meter(path: Path, warn: Callable[[str], None]) -> Callable[[float], list[PowerReading]]:
    """Return a function that reads the meter's file; it takes the Unix time of the start of the benchmark.

    Raises:
        InputError: The file does not exist.
    """
    require_file(path, "power file")

    def readings(start_unix_s: float) -> list[PowerReading]:
        text = path.read_text(errors="replace") if path.is_file() else ""  # the measurements are kept without it
        found, unreadable = parse_readings(text.splitlines(), start_unix_s)
        if unreadable or not found:
            warn(f"power file '{path}' has {len(found)} readings, and {unreadable} lines that are not `seconds watts`")
        return found

    return readings
