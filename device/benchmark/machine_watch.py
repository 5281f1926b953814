"""The machine's state during a measurement: temperature, clock, throttle flags, and the load of other programs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from edgekit.boards import Conditions, read_conditions
from edgekit.report.document import MachineReading


class MachineWatch:
    """Reads the machine's state every `period_s` seconds of a measurement.

    Args:
        period_s: Seconds between readings.
        batch: Images per iteration.
        read: Reads the machine's state.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        period_s: float,
        batch: int,
        read: Callable[[], Conditions] = read_conditions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._period_s = period_s
        self._batch = batch
        self._read = read
        self._clock = clock
        self._iterations, self._busy_s = 0, 0.0
        self.started_s = self._last_s = clock()
        self.readings: list[MachineReading] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self.started_s

    def update(self, iterations: int, busy_s: float, last: bool = False) -> None:
        """Take a reading if one is due or `last` is true.

        `iterations` is the number of iterations since the start, `busy_s` the time spent in them.
        """
        now_s = self._clock()
        if iterations == self._iterations or (not last and now_s - self._last_s < self._period_s):
            return
        rate = self._batch * (iterations - self._iterations) / max(busy_s - self._busy_s, 1e-9)
        state = self._read()
        self.readings.append(
            MachineReading(
                at_s=round(now_s - self.started_s, 3),
                images_per_s=round(rate, 3),
                temperature_c=state.temperature_c,
                clock_mhz=state.clock_mhz,
                throttle_flags=f"{state.throttling.bits:#x}" if state.throttling else None,
            )
        )
        self._iterations, self._busy_s = iterations, busy_s
        self._last_s = self._clock()


class OtherLoad:
    """Mean number of processors in use by other programs, since this object was created.

    In a virtual machine, processor time that the host gives to other guests counts as used.
    """

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
        """Return the mean number of processors, or None if the kernel does not provide the processors' times."""
        (started_s, busy_s, own_s), (now_s, busy_now_s, own_now_s) = self._started, self._now()
        if busy_s is None or busy_now_s is None or now_s <= started_s:
            return None
        return round(max(0.0, (busy_now_s - busy_s) - (own_now_s - own_s)) / (now_s - started_s), 3)

    def _now(self) -> tuple[float, float | None, float]:
        return self._clock(), busy_processor_s(self._root), self._own_processor_s()


def busy_processor_s(root: Path) -> float | None:
    """Return the busy time of all processors since boot, summed, in seconds; None if it is unknown."""
    try:
        text = (root / "proc/stat").read_text()
    except OSError:
        return None
    match = re.match(r"cpu((?: +\d+){8})", text)
    if match is None:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, match.group(1).split())
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
