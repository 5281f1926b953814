"""Load shedding: less work on a hot or throttled board, before the firmware lowers the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from edgekit.boards import Board
from edgekit.device.frame import Frame, Source
from edgekit.device.health.sampler import Health


@dataclass(frozen=True)
class LoadLevel:
    """One level of load shedding: the amount of work per frame, and the frame rate.

    Attributes:
        number: 0 is full load; a higher number is less work.
        detect_every_at_least: Smallest interval between two detections, in frames; faces are tracked in between.
        detector_scale: Factor for the detector's input size, at most 1.
        frame_share: Factor for the frame rate, at most 1.
        text: Description of the level.
    """

    number: int
    detect_every_at_least: int
    detector_scale: float
    frame_share: float
    text: str


LEVELS = (
    LoadLevel(0, 1, 1.0, 1.0, "full load"),
    LoadLevel(1, 10, 1.0, 1.0, "detection in 1 of 10 frames"),
    LoadLevel(2, 20, 0.75, 1.0, "detection in 1 of 20 frames, on a smaller image"),
    LoadLevel(3, 20, 0.5, 0.5, "detection in 1 of 20 frames, on an image of half the size, at half the frame rate"),
)

# As many levels for a run that may reduce its frame rate only: one without a detector, or of a file, whose results must
# not depend on the temperature.
FRAME_RATE_LEVELS = (
    LEVELS[0],
    LoadLevel(1, 1, 1.0, 0.75, "three quarters of the frame rate"),
    LoadLevel(2, 1, 1.0, 0.5, "half the frame rate"),
    LoadLevel(3, 1, 1.0, 0.25, "a quarter of the frame rate"),
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
# Upper bound of the pause after a frame, so that a long wait for the camera is not doubled and SIGTERM is not delayed.
_MAX_PAUSE_S = 0.5
# Warning flags alone raise the level no further than this.
_WARNING_LEVEL = 1


class PacedSource:
    """Source that pauses after each frame at load levels with a reduced frame rate."""

    def __init__(self, source: Source, level: Callable[[], LoadLevel]) -> None:
        """Wrap `source`, which is entered and exited together with this one."""
        self._source = source
        self._level = level

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.__exit__(*exception)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the source's frames, each followed by a pause if the load level reduces the frame rate."""
        requested_s = time.monotonic()
        for frame in self._source:
            yield frame
            share = self._level().frame_share
            if share < 1:
                # The wait for the frame counts, so that a share of 1/2 is half the rate even if the pipeline is idle.
                time.sleep(min((time.monotonic() - requested_s) * (1 / share - 1), _MAX_PAUSE_S))
            requested_s = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute (`fps`, `dropped`, `stop`, …) from the wrapped source."""
        return getattr(self._source, name)


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
        levels: Sequence[LoadLevel] = LEVELS,
        apply: Callable[[LoadLevel], None] = lambda _: None,
    ) -> None:
        """Start at full load, `levels[0]`.

        Args:
            board: On a Raspberry Pi load is shed from 75 °C on; other machines may run hot, and only flags count.
            notify: Receives one line for each change.
            levels: The levels.
            apply: Called with each new level, in the sampler's thread.
        """
        self._limit_c = _PI_MAX_TEMPERATURE_C if board.is_raspberry_pi else float("inf")
        self._notify = notify
        self._levels = levels
        self._apply = apply
        self._changed_s = float("-inf")
        # Time since which a lower level would be enough; None if the current level is required.
        self._calm_since_s: float | None = None
        self.level = levels[0]
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
        self.level = self._levels[number]
        self.max_level = max(self.max_level, number)
        self._apply(self.level)
        now, parts = sample.conditions, []
        if now.temperature_c is not None:
            limit = "" if self._limit_c == float("inf") else f" (limit {self._limit_c:g} °C)"
            parts.append(f"{now.temperature_c:.1f} °C{limit}")
        if now.throttling is not None:
            parts.append(", ".join(now.throttling.now) or "not throttled")
        reason = ", ".join(parts) or "the board"
        self._notify(f"{reason}: load level {number} of {len(LEVELS) - 1}, {self.level.text}")
