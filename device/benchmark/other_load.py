"""The load of other programs during a measurement."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path


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
        self._stat = root / "proc/stat"
        self._clock = clock
        self._own_processor_s = own_processor_s
        self._started = self._now()

    def processors(self) -> float | None:
        """Return the mean number of processors, or None if the kernel does not provide the processors' times."""
        (started_s, before_s), (now_s, after_s) = self._started, self._now()
        if before_s is None or after_s is None or now_s <= started_s:
            return None
        return round(max(0.0, after_s - before_s) / (now_s - started_s), 3)

    def _now(self) -> tuple[float, float | None]:
        """Return the time and the busy time of all processors since boot, without this process's own, in seconds."""
        match = re.match(r"cpu((?: +\d+){8})", self._stat.read_text()) if self._stat.exists() else None
        if match is None:
            return self._clock(), None
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, match.group(1).split())
        busy_s = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return self._clock(), busy_s - self._own_processor_s()
