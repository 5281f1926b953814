"""A warning, once per training, if other programs use the processor's cores."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit.models.callbacks import Notify

_STAT = Path("/proc/stat")
_MEASURE_S = 5.0
# Share of all cores that other programs may use without a warning.
_TOLERATED = 0.25
# Columns of /proc/stat that are idle time: idle and iowait.
_IDLE = (3, 4)
# Guest time is part of user time.
_COLUMNS = 8


class ContentionWatch:
    """Measures over the first steps how many cores other programs use, and reports it if they are too many."""

    def __init__(self, notify: Notify, busy_s: Callable[[], float | None] | None = None) -> None:
        """Start to measure; `busy_s` returns the CPU time in seconds that all programs together have used."""
        self._notify = notify
        self._busy_s = busy_s or busy_seconds
        self._start = self._now()

    def check(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        """Report if at least 5 s have passed since the start; later calls do nothing."""
        if self._start is None:
            return
        began, busy, own = self._start
        duration = elapsed() - began
        if duration < _MEASURE_S:
            return
        self._start, now = None, self._busy_s()
        if now is None:
            return
        cores = os.cpu_count() or 1
        others = (now - busy - (_own_seconds() - own)) / duration
        if others > _TOLERATED * cores:
            self._notify(f"other programs use {others:.1f} of {cores} cores: the training is slower than it could be")

    def _now(self) -> tuple[float, float, float] | None:
        busy = self._busy_s()
        return None if busy is None else (time.monotonic(), busy, _own_seconds())


def busy_seconds() -> float | None:
    """Return the CPU time in seconds that all programs have used since boot; None where it is not known."""
    try:
        fields = _STAT.read_text().split("\n", 1)[0].split()[1 : _COLUMNS + 1]
        return sum(int(field) for index, field in enumerate(fields) if index not in _IDLE) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


def _own_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def watched(on_step: Callable[[Any], None] | None, notify: Notify) -> Callable[[Any], None]:
    """Return `on_step` with a `ContentionWatch` that starts at the first step."""
    watches: list[ContentionWatch] = []

    def call(report: Any) -> None:
        if not watches:
            watches.append(ContentionWatch(notify))
        watches[0].check()
        if on_step:
            on_step(report)

    return call
