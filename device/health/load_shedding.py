"""Load shedding: less work on a hot or throttled board, before the firmware lowers the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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

# Flags of edgekit.boards.Throttling: those of a lowered clock, and those that precede one.
_SLOWED_BITS = 1 << 1 | 1 << 2
_WARNING_BITS = 1 << 0 | 1 << 3
# Upper bound of the pause after a frame, so that a long wait for the camera is not doubled and SIGTERM is not delayed.
_MAX_PAUSE_S = 0.5
# Warning flags alone raise the level no further than this.
_WARNING_LEVEL = 1


@dataclass(frozen=True)
class LoadLimits:
    """Thresholds and times of load shedding.

    Attributes:
        max_temperature_c: Temperature from which load is shed; None: only throttle flags count.
        hysteresis_c: The level falls only below `max_temperature_c - hysteresis_c`.
        rise_s: Shortest time between two rises of the level, because the temperature follows with a delay.
        fall_s: Time without a reason for load shedding before each fall of the level.
    """

    max_temperature_c: float | None
    hysteresis_c: float = 5.0
    rise_s: float = 10.0
    fall_s: float = 30.0


@dataclass(frozen=True)
class LoadState:
    """The number of the load level, and two times in monotonic seconds from which the next level is derived.

    `changed_s` is the time of the level's last change. `calm_since_s` is the time since which a lower level would be
    enough; None if the current level is required.
    """

    level: int = 0
    changed_s: float | None = None
    calm_since_s: float | None = None


def next_state(state: LoadState, sample: Health, limits: LoadLimits) -> LoadState:
    """Return the state after a sample: the level changes by at most 1, and with hysteresis."""
    now_s = sample.monotonic_s
    target = _target_level(sample, limits)
    if target > state.level:
        waited = state.changed_s is None or now_s - state.changed_s >= limits.rise_s
        return LoadState(state.level + 1, now_s) if waited else replace(state, calm_since_s=None)
    if target == state.level or _is_near_limit(sample, limits):
        return replace(state, calm_since_s=None)
    if state.calm_since_s is None:
        return replace(state, calm_since_s=now_s)
    if now_s - state.calm_since_s < limits.fall_s:
        return state
    return LoadState(state.level - 1, now_s, now_s)


def default_max_temperature_c(board: Board) -> float | None:
    """Return the default of `max_temperature_c`: 75 °C on a Raspberry Pi, None on other machines, which may run hot."""
    return _PI_MAX_TEMPERATURE_C if board.is_raspberry_pi else None


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
    """Derives the load level from health samples; `level` may be read from any thread."""

    def __init__(self, limits: LoadLimits, notify: Callable[[str], None], levels: Sequence[LoadLevel] = LEVELS) -> None:
        """Start at full load, `levels[0]`; `notify` receives one line for each change."""
        self._limits = limits
        self._notify = notify
        self._subscribers: list[Callable[[LoadLevel], None]] = []
        self._state = LoadState()
        self._levels = levels
        self.level = levels[0]
        self.max_level = 0

    def subscribe(self, change: Callable[[LoadLevel], None]) -> None:
        """Call `change` with every new level, in the sampler's thread."""
        self._subscribers.append(change)

    def observe(self, sample: Health) -> None:
        """Update the level from one health sample; report a change and pass the new level to the subscribers."""
        before = self._state.level
        self._state = next_state(self._state, sample, self._limits)
        if self._state.level == before:
            return
        self.level = self._levels[self._state.level]
        self.max_level = max(self.max_level, self.level.number)
        for change in self._subscribers:
            change(self.level)
        reason = _reason(sample, self._limits)
        self._notify(f"{reason}: load level {self.level.number} of {len(LEVELS) - 1}, {self.level.text}")


def _target_level(sample: Health, limits: LoadLimits) -> int:
    bits = sample.conditions.throttling.bits if sample.conditions.throttling else 0
    temperature_c, limit_c = sample.conditions.temperature_c, limits.max_temperature_c
    hot = temperature_c is not None and limit_c is not None and temperature_c >= limit_c
    if hot or bits & _SLOWED_BITS:
        return len(LEVELS) - 1
    return _WARNING_LEVEL if bits & _WARNING_BITS else 0


def _is_near_limit(sample: Health, limits: LoadLimits) -> bool:
    temperature_c, limit_c = sample.conditions.temperature_c, limits.max_temperature_c
    return temperature_c is not None and limit_c is not None and temperature_c > limit_c - limits.hysteresis_c


def _reason(sample: Health, limits: LoadLimits) -> str:
    now = sample.conditions
    parts = []
    if now.temperature_c is not None:
        limit = "" if limits.max_temperature_c is None else f" (limit {limits.max_temperature_c:g} °C)"
        parts.append(f"{now.temperature_c:.1f} °C{limit}")
    if now.throttling is not None:
        parts.append(", ".join(now.throttling.now) or "not throttled")
    return ", ".join(parts) or "the board"
