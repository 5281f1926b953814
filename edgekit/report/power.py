"""Readings of a power meter, lines of `seconds watts`, and the mean power over an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekit.files import require_file

# Smaller times count from the start of the benchmark, larger ones are Unix time.
_MIN_UNIX_S = 1e9
_MAX_READINGS = 1_000_000


@dataclass(frozen=True)
class PowerReading:
    """Power in watts, `at_s` seconds after the start of the benchmark."""

    at_s: float
    watts: float


def parse_readings(lines: Iterable[str], start_unix_s: float) -> tuple[list[PowerReading], int]:
    """Return the readings in the order of time, and the number of lines that cannot be read.

    A line is `seconds watts` or `seconds,watts`. Seconds are Unix time, or count from the start of the benchmark if
    they are below 10^9. Empty lines and lines that begin with # are skipped.

    Args:
        lines: The meter's output.
        start_unix_s: Unix time of the start of the benchmark.
    """
    readings: list[PowerReading] = []
    unreadable = 0
    for line in lines:
        words = line[:200].replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            seconds, watts = (float(word) for word in words)
        except ValueError:
            unreadable += 1
            continue
        if not (math.isfinite(seconds) and math.isfinite(watts)) or watts < 0 or len(readings) >= _MAX_READINGS:
            unreadable += 1
            continue
        readings.append(PowerReading(seconds - start_unix_s if seconds >= _MIN_UNIX_S else seconds, watts))
    return sorted(readings, key=lambda reading: reading.at_s), unreadable


def mean_watts(readings: Sequence[PowerReading], from_s: float, to_s: float) -> float | None:
    """Return the mean power from `from_s` to `to_s` in watts, interpolated linearly between readings.

    The result is None if the readings do not cover the interval: fewer than two of them lie inside, or the time without
    a reading at its start or end is longer than twice the largest gap between those inside.
    """
    times = np.array([reading.at_s for reading in readings])
    watts = np.array([reading.watts for reading in readings])
    inside = (times >= from_s) & (times <= to_s)
    if inside.sum() < 2 or to_s <= from_s:
        return None
    gap = float(np.diff(times[inside]).max())
    if times[inside][0] - from_s > 2 * gap or to_s - times[inside][-1] > 2 * gap:
        return None
    times_s = np.concatenate([[from_s], times[inside], [to_s]])
    values = np.interp(times_s, times, watts)
    return float(((values[1:] + values[:-1]) / 2 * np.diff(times_s)).sum() / (to_s - from_s))


def power_meter(path: Path, warn: Callable[[str], None]) -> Callable[[float], list[PowerReading]]:
    """Return a function that reads the meter's file; it takes the Unix time of the start of the benchmark.

    Raises:
        InputError: The file does not exist.
    """
    require_file(path, "power file")

    def readings(start_unix_s: float) -> list[PowerReading]:
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError as error:
            lines = []  # the measurements are kept
            warn(f"power file '{path}' cannot be read: {error.strerror}")
        found, unreadable = parse_readings(lines, start_unix_s)
        if unreadable:
            warn(f"power file '{path}': {unreadable} lines are not `seconds watts`")
        if not found:
            warn(f"power file '{path}' has no reading")
        return found

    return readings
