"""Less work before the firmware makes it slow work: how much a run asks of a hot or throttled board."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from edgekit.boards import Board
from edgekit.device.frame import Frame, Source
from edgekit.device.health.sampler import Health


@dataclass(frozen=True)
class LoadLevel:
    """How much work is done; level 0 is all of it.

    Attributes:
        number: 0, 1, … the higher the less.
        detect_every_at_least: No more than one frame in so many is searched for faces; the others are followed.
        detector_scale: The detector's picture is this share of its usual size.
        frame_share: So many of the usual frames a second are worked on.
        words: What is done less, for people.
    """

    number: int
    detect_every_at_least: int
    detector_scale: float
    frame_share: float
    words: str


LEVELS = (
    LoadLevel(0, 1, 1.0, 1.0, "full load"),
    LoadLevel(1, 10, 1.0, 1.0, "detecting in one frame of 10"),
    LoadLevel(2, 20, 0.75, 1.0, "detecting in one frame of 20, on a smaller picture"),
    LoadLevel(3, 20, 0.5, 0.5, "detecting in one frame of 20, on a picture of half the size, at half the frame rate"),
)

# The firmware of every Raspberry Pi slows down from 80 °C on; a 3B+ also at 60 °C, by a seventh, and says so by a flag.
_PI_MAX_TEMPERATURE_C = 75.0

# Flags (edgekit.boards.Throttling) that mean much less speed, and those that only announce it.
_SLOWED_BITS = 1 << 1 | 1 << 2
_WARNING_BITS = 1 << 0 | 1 << 3
# A camera that gave nothing for a while is no reason to rest as long, nor to be late for SIGTERM.
_LONGEST_REST_S = 0.5
# Announcements take the load down no further than this level.
_WARNING_LEVEL = 1


@dataclass(frozen=True)
class LoadLimits:
    """When to do less.

    Attributes:
        max_temperature_c: The ceiling; None: only throttle flags count.
        hysteresis_c: More is done again only so far below the ceiling.
        rise_s: From one step down in load to the next: heat follows with delay.
        fall_s: So long it must have been calm before each step back.
    """

    max_temperature_c: float | None
    hysteresis_c: float = 5.0
    rise_s: float = 10.0
    fall_s: float = 30.0


@dataclass(frozen=True)
class LoadState:
    """The level number, when it last changed, and since when it could be lower; monotonic seconds."""

    level: int = 0
    changed_s: float | None = None
    calm_since_s: float | None = None


def next_state(state: LoadState, sample: Health, limits: LoadLimits) -> LoadState:
    """Return the state after a sample: at most one level up or down, never to and fro around the ceiling."""
    now_s = sample.monotonic_s
    wanted = _wanted(sample, limits)
    if wanted > state.level:
        waited = state.changed_s is None or now_s - state.changed_s >= limits.rise_s
        return LoadState(state.level + 1, now_s) if waited else replace(state, calm_since_s=None)
    if wanted == state.level or _near(sample, limits):
        return replace(state, calm_since_s=None)
    if state.calm_since_s is None:
        return replace(state, calm_since_s=now_s)
    if now_s - state.calm_since_s < limits.fall_s:
        return state
    return LoadState(state.level - 1, now_s, now_s)


def default_max_temperature_c(board: Board) -> float | None:
    """Return the ceiling for a machine: one for Raspberry Pis, none for others, which are built to run hot."""
    return _PI_MAX_TEMPERATURE_C if board.is_raspberry_pi else None


class PacedSource:
    """A source whose frames are asked for less often: after each, so much rest as the level asks for."""

    def __init__(self, source: Source, level: Callable[[], LoadLevel]) -> None:
        """Pace `source`, which is entered and left with this one."""
        self._source = source
        self._level = level

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.__exit__(*exception)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the source's frames, at full load without any delay."""
        asked_s = time.monotonic()
        for frame in self._source:
            yield frame
            share = self._level().frame_share
            if share < 1:
                # Waiting for the frame counts too: half the share is half the rate, also of an idle pipeline.
                time.sleep(min((time.monotonic() - asked_s) * (1 / share - 1), _LONGEST_REST_S))
            asked_s = time.monotonic()

    @property
    def name(self) -> str:
        """The source's name."""
        return self._source.name

    @property
    def fps(self) -> float | None:
        """The source's frame rate, at full load."""
        return self._source.fps

    @property
    def frame_count(self) -> int | None:
        """The source's number of frames."""
        return self._source.frame_count

    @property
    def live(self) -> bool:
        """Whether the source is live."""
        return self._source.live

    @property
    def dropped(self) -> int:
        """The frames that the source gave up."""
        return self._source.dropped

    @property
    def skipped(self) -> int:
        """The pictures that the source could not read."""
        return self._source.skipped

    def stop(self) -> None:
        """End the iteration before its next frame."""
        self._source.stop()


class LoadShedder:
    """Follows the samples; `level` may be read from any thread at any time."""

    def __init__(self, limits: LoadLimits, notify: Callable[[str], None]) -> None:
        """Start at full load; `notify` is told of every change."""
        self._limits = limits
        self._notify = notify
        self._followers: list[Callable[[LoadLevel], None]] = []
        self._state = LoadState()
        self.level = LEVELS[0]
        self.highest = 0

    def follow(self, change: Callable[[LoadLevel], None]) -> None:
        """Call `change` with every new level, in the sampler's thread."""
        self._followers.append(change)

    def observe(self, sample: Health) -> None:
        """Take a sample; the sampler's watcher."""
        before = self._state.level
        self._state = next_state(self._state, sample, self._limits)
        if self._state.level == before:
            return
        self.level = LEVELS[self._state.level]
        self.highest = max(self.highest, self.level.number)
        for change in self._followers:
            change(self.level)
        reason = _reason(sample, self._limits)
        self._notify(f"{reason}: load level {self.level.number} of {len(LEVELS) - 1}, {self.level.words}")


def _wanted(sample: Health, limits: LoadLimits) -> int:
    bits = sample.conditions.throttling.bits if sample.conditions.throttling else 0
    temperature_c, ceiling_c = sample.conditions.temperature_c, limits.max_temperature_c
    hot = temperature_c is not None and ceiling_c is not None and temperature_c >= ceiling_c
    if hot or bits & _SLOWED_BITS:
        return len(LEVELS) - 1
    return _WARNING_LEVEL if bits & _WARNING_BITS else 0


def _near(sample: Health, limits: LoadLimits) -> bool:
    temperature_c, ceiling_c = sample.conditions.temperature_c, limits.max_temperature_c
    return temperature_c is not None and ceiling_c is not None and temperature_c > ceiling_c - limits.hysteresis_c


def _reason(sample: Health, limits: LoadLimits) -> str:
    now = sample.conditions
    parts = []
    if now.temperature_c is not None:
        ceiling = "" if limits.max_temperature_c is None else f" (ceiling {limits.max_temperature_c:g} °C)"
        parts.append(f"{now.temperature_c:.1f} °C{ceiling}")
    if now.throttling is not None:
        parts.append(", ".join(now.throttling.now) or "not throttled")
    return ", ".join(parts) or "the board"
