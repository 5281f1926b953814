"""Stage times of one frame."""

from __future__ import annotations

import time
from collections.abc import Callable


class StageTimer:
    """Measures the stages of one frame: each `mark` ends the stage that began at the previous mark.

    A stage that is marked more than once has the sum of its times.

        timer = StageTimer()
        faces = detector.detect(image_bgr)
        timer.mark("detect")
        print(timer.ms)  # {'detect': 11.4}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last_s = clock()
        self.ms: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """End `stage` now and add its duration in milliseconds to `ms[stage]`."""
        now_s = self._clock()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now_s - self._last_s) * 1e3
        self._last_s = now_s
