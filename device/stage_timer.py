"""Times of the stages one frame passes through."""

from __future__ import annotations

import time
from collections.abc import Callable


class StageTimer:
    """Splits the time of one frame into named stages: each `mark` ends the stage that ran since the one before.

    A stage that comes more than once has the sum of its times.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last_s = clock()
        self.ms: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """End `stage` now; `ms[stage]` is its duration."""
        now_s = self._clock()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now_s - self._last_s) * 1e3
        self._last_s = now_s

    def skip(self) -> None:
        """Count the time since the last mark to no stage."""
        self._last_s = self._clock()
