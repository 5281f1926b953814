"""Load shedding: less work on a hot or throttled board, before the firmware lowers the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekit.boards import Board
from edgekit.device.health.sampler import Health


@dataclass(frozen=True)
class LoadLevel:
    """One level of load shedding: the amount of work per frame.

    Attributes:
        number: 0 is full load; a higher number is less work.
        detect_every_at_least: Smallest interval between two detections, in frames; faces are tracked in between.
        detector_scale: Factor for the detector's input size, at most 1.
        text: Description of the level.
    """

    number: int
    detect_every_at_least: int
    detector_scale: float
    text: str


LEVELS = (
    LoadLevel(0, 1, 1.0, "full load"),
    LoadLevel(1, 10, 1.0, "detection in 1 of 10 frames"),
    LoadLevel(2, 20, 0.75, "detection in 1 of 20 frames, on a smaller image"),
    LoadLevel(3, 20, 0.5, "detection in 1 of 20 frames, on an image of half the size"),
)

# The firmware of every Raspberry Pi lowers the clock at 80 °C; that of a 3B+ also at 60 °C, from 1.4 to 1.2 GHz, and
# sets a flag.
_PI_MAX_TEMPERATURE_C = 75.0
# The level falls only below this much less.
_HYSTERESIS_C = 5.0
# Shortest time between two rises of the level, because the temperature follows with a delay.
_RISE_S = 10.0
# Time without a reason for load shedding before each fall of the level.
_FALL_S = 30.0

# Flags of edgekit.boards.Throttling: those of a lowered clock, and those that precede one.
_SLOWED_BITS = 1 << 1 | 1 << 2
_WARNING_BITS = 1 << 0 | 1 << 3
# Warning flags alone raise the level no further than this.
_WARNING_LEVEL = 1


class LoadShedder:
    """Derives the load level from health samples: it changes by at most 1 per sample, and with hysteresis.

    Attributes:
        level: The level in effect; may be read from any thread.
        max_level: The highest number of a level so far.
    """

    def __init__(
        self,
        board: Board,
        notify: Callable[[str], None],
        apply: Callable[[LoadLevel], None] = lambda _: None,
    ) -> None:
        """Start at full load.

        Args:
            board: On a Raspberry Pi load is shed from 75 °C on; other machines may run hot, and only flags count.
            notify: Receives one line for each change.
            apply: Called with each new level, in the sampler's thread.
        """
        self._limit_c = _PI_MAX_TEMPERATURE_C if board.is_raspberry_pi else float("inf")
        self._notify = notify
        self._apply = apply
        self._changed_s = float("-inf")
        # Time since which a lower level would be enough; None if the current level is required.
        self._calm_since_s: float | None = None
        self.level = LEVELS[0]
        self.max_level = 0

    def observe(self, sample: Health) -> None:
        """Update the level from one health sample, and report a change."""
        now_s, number = sample.monotonic_s, self.level.number
        temperature_c = sample.conditions.temperature_c or 0.0
        target = self._target(sample, temperature_c)
        if target > number:
            self._calm_since_s = None
            if now_s - self._changed_s >= _RISE_S:
                self._change(number + 1, sample)
        elif target == number or temperature_c > self._limit_c - _HYSTERESIS_C:
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= _FALL_S:
            self._calm_since_s = now_s
            self._change(number - 1, sample)

    def _target(self, sample: Health, temperature_c: float) -> int:
        throttling = sample.conditions.throttling
        bits = throttling.bits if throttling else 0
        if temperature_c >= self._limit_c or bits & _SLOWED_BITS:
            return len(LEVELS) - 1
        return _WARNING_LEVEL if bits & _WARNING_BITS else 0

    def _change(self, number: int, sample: Health) -> None:
        self._changed_s = sample.monotonic_s
        self.level = LEVELS[number]
        self.max_level = max(self.max_level, number)
        self._apply(self.level)
        self._notify(f"{sample.describe()}: load level {number} of {len(LEVELS) - 1}, {self.level.text}")
