"""What the machine does while it is measured: temperature, clock, throttle flags, and other programs' share."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit.boards import Conditions, read_conditions


@dataclass(frozen=True)
class Reading:
    """One look at the machine, between two iterations, and the rate since the one before.

    `at_s` counts from the start of the measurement. `throttle_flags` is the firmware's number, hexadecimal.
    """

    at_s: float
    images_per_s: float
    temperature_c: float | None
    clock_mhz: float | None
    throttle_flags: str | None


class Watch:
    """Looks at the machine every `period_s` seconds of a measurement; looking is in no iteration's time."""

    def __init__(
        self,
        period_s: float,
        batch: int,
        look: Callable[[], Conditions] = read_conditions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._period_s = period_s
        self._batch = batch
        self._look = look
        self._clock = clock
        self._iterations, self._busy_s = 0, 0.0
        self.started_s = self._last_s = clock()
        self.readings: list[Reading] = []

    def tick(self, iterations: int, busy_s: float, last: bool = False) -> None:
        """Take a reading if it is time, or `last`; the counts are those since the start."""
        now_s = self._clock()
        if not last and now_s - self._last_s < self._period_s:
            return
        if iterations == self._iterations:
            return
        rate = self._batch * (iterations - self._iterations) / max(busy_s - self._busy_s, 1e-9)
        now = self._look()
        flags = f"{now.throttling.bits:#x}" if now.throttling else None
        self.readings.append(
            Reading(round(now_s - self.started_s, 3), round(rate, 3), now.temperature_c, now.clock_mhz, flags)
        )
        self._iterations, self._busy_s = iterations, busy_s
        self._last_s = self._clock()


class OthersLoad:
    """How many processors other processes (and, on a virtual machine, other guests) kept busy since this was made."""

    def __init__(
        self,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        own_processor_s: Callable[[], float] = lambda: sum(os.times()[:4]),
    ) -> None:
        self._root = root
        self._clock = clock
        self._own_processor_s = own_processor_s
        self._started = self._now()

    def processors(self) -> float | None:
        """Return it, or None where the kernel does not tell."""
        (started_s, busy_s, own_s), (now_s, busy_now_s, own_now_s) = self._started, self._now()
        if busy_s is None or busy_now_s is None or now_s <= started_s:
            return None
        return round(max(0.0, (busy_now_s - busy_s) - (own_now_s - own_s)) / (now_s - started_s), 3)

    def _now(self) -> tuple[float, float | None, float]:
        return self._clock(), busy_processor_s(self._root), self._own_processor_s()


def busy_processor_s(root: Path) -> float | None:
    """Return the seconds that all processors together have not been idle since boot, or None."""
    try:
        text = (root / "proc/stat").read_text()
    except OSError:
        return None
    match = re.match(r"cpu((?: +\d+){8})", text)
    if match is None:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, match.group(1).split())
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
