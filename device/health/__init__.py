"""Background services of a run: health sampling, camera watch, load shedding, and heartbeats.

Load is shed on a hot or throttled board, before the firmware lowers the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgekit.boards import Board, read_board
from edgekit.device.controls import Controls
from edgekit.device.detections import FrameResult
from edgekit.device.health.camera_watch import CameraWatch
from edgekit.device.health.sampler import Health, HealthSampler
from edgekit.device.service.notify import HeartbeatSink, find_notifier
from edgekit.device.tracking import Localizer

if TYPE_CHECKING:
    from edgekit.device.sink import Sink


# The folder of systemd-timesyncd while it runs, and the file that it writes there at its first synchronisation. Not
# the flag of the kernel: the call that reads it, adjtimex(2), is forbidden to services (`SystemCallFilter`).
_SERVICE = "run/systemd/timesync"
_SYNCHRONISED = "synchronized"
# 2025-01-01. The hardware clock of a Pi 5 without a battery starts in 1970.
_PLAUSIBLE_UNIX_S = 1_735_689_600


class Clock:
    """The synchronisation of the system clock; once true, it stays true."""

    def __init__(self, root: Path = Path("/")) -> None:
        """`root` is the folder of /run and /sys."""
        self._root = root
        self._synchronised = False

    def is_synchronised(self) -> bool:
        """Return False while systemd-timesyncd runs without the network time, and no hardware clock has the time.

        Without this service, as in a container or with chrony, the clock counts as synchronised.
        """
        self._synchronised = self._synchronised or not self._waits()
        return self._synchronised

    def _waits(self) -> bool:
        """Return whether timesyncd still waits for the network time, and no hardware clock has the time."""
        service = self._root / _SERVICE
        if not service.is_dir() or (service / _SYNCHRONISED).exists():
            return False
        return not any(_has_time(file) for file in self._root.glob("sys/class/rtc/rtc*/since_epoch"))


def _has_time(since_epoch: Path) -> bool:
    """Return whether a hardware clock has a plausible time; `since_epoch` is its file of Unix seconds."""
    with suppress(OSError, ValueError):
        return int(since_epoch.read_text()) >= _PLAUSIBLE_UNIX_S
    return False


class RuntimeMonitor:
    """Samples health, watches the camera and sheds load inside its `with` block.

    >>> with RuntimeMonitor(Path.cwd(), lambda: stream.localizer, print, live=source.live) as monitor:
    ...     stream.run([*sinks, *monitor.sinks(stream.controls)], annotate=monitor.annotated)
    """

    def __init__(
        self,
        folder: Path,
        localizer: Callable[[], Localizer],
        notify: Callable[[str], None],
        *,
        live: bool,
    ) -> None:
        """Prepare sampling and load shedding; the first sample is taken when the block is entered.

        Args:
            folder: Where results are written; the free space of its disk is sampled.
            localizer: Returns the localizer in use; it detects less often, and on smaller images, while load is shed.
            notify: Receives one line for each change of the load level and of the camera's state.
            live: Whether the source is live; only then it is watched, and load is shed: the results of a file do not
                depend on the temperature.
        """
        self._returned: Health | None = None  # by `annotated`

        def shed(level: LoadLevel) -> None:
            """Apply a load level to the detector."""
            if live:
                localizer().set_load_level(level.detect_every_at_least, level.detector_scale)

        self._shedder = LoadShedder(read_board(), notify, shed)
        self._camera = CameraWatch(notify) if live else None
        self._clock = Clock()
        self._sampler = HealthSampler(folder, notify, self._shedder.observe, camera=self._camera)

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sampler.__exit__(*exception)

    def health(self) -> Health | None:
        """Return the newest sample; None before the first."""
        return self._sampler.latest

    def annotated(self, result: FrameResult) -> FrameResult:
        """Return `result` with the newest sample, if it is new, and marked while the clock is not synchronised."""
        if not self._clock.is_synchronised():
            result = replace(result, clock_synchronised=False)
        latest = self.health()
        if latest is None or latest is self._returned:
            return result
        self._returned = latest
        return replace(result, health=latest.as_document())

    def sinks(self, controls: Controls) -> list[Sink]:
        """Return the sinks that watch a live source and send heartbeats to a service manager; they must be the last.

        Heartbeats continue during the pauses of `controls`.
        """
        sinks: list[Sink] = []
        if self._camera is not None:
            controls.while_paused(self._camera.idle)
            sinks.append(self._camera)
        notifier = find_notifier()
        if notifier is not None:
            heartbeats = HeartbeatSink(notifier, self._status)
            controls.while_paused(heartbeats.idle)
            sinks.append(heartbeats)
        return sinks

    def as_document(self) -> dict[str, Any]:
        """Return the summary of all samples and the highest load level, ready for JSON."""
        return self._sampler.summary.as_document() | {"max_load_level": self._shedder.max_level}

    def describe(self) -> str:
        """Return the summary as one line of text; empty if nothing is known."""
        return self._sampler.summary.describe()

    def _status(self) -> str:
        """Return the newest sample as text for the service manager; empty before the first."""
        latest = self.health()
        return latest.describe() if latest else ""


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


@dataclass(eq=False)
class LoadShedder:
    """Derives the load level from health samples: it changes by at most 1 per sample, and with hysteresis.

    Attributes:
        board: On a Raspberry Pi load is shed from 75 °C on; other machines may run hot, and only flags count.
        notify: Receives one line for each change.
        apply: Called with each new level, in the sampler's thread.
        level: The level in effect; may be read from any thread.
        max_level: The highest number of a level so far.
    """

    board: Board
    notify: Callable[[str], None]
    apply: Callable[[LoadLevel], None] = lambda _: None
    level: LoadLevel = LEVELS[0]
    max_level: int = 0

    def __post_init__(self) -> None:
        self._limit_c = _PI_MAX_TEMPERATURE_C if self.board.is_raspberry_pi else float("inf")
        self._changed_s = float("-inf")
        # Time since which a lower level would be enough; None if the current level is required.
        self._calm_since_s: float | None = None

    def observe(self, sample: Health) -> None:
        """Update the level from one health sample, and report a change."""
        now_s, number = sample.monotonic_s, self.level.number
        temperature_c = sample.conditions.temperature_c or 0.0
        target = self._target(sample, temperature_c)
        if target > number:
            self._calm_since_s = None
            if now_s - self._changed_s >= _RISE_S:
                self._change(number + 1, sample)
        elif target == number or temperature_c > self._limit_c - _HYSTERESIS_C:  # this level is required
            self._calm_since_s = None
        elif self._calm_since_s is None:
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= _FALL_S:
            self._calm_since_s = now_s
            self._change(number - 1, sample)

    def _target(self, sample: Health, temperature_c: float) -> int:
        """Return the number of the level to which a sample leads, step by step."""
        throttling = sample.conditions.throttling
        bits = throttling.bits if throttling else 0
        if temperature_c >= self._limit_c or bits & _SLOWED_BITS:
            return len(LEVELS) - 1
        return _WARNING_LEVEL if bits & _WARNING_BITS else 0

    def _change(self, number: int, sample: Health) -> None:
        """Set, apply and report the level `number`; `sample` is the reason."""
        self._changed_s = sample.monotonic_s
        self.level = LEVELS[number]
        self.max_level = max(self.max_level, number)
        self.apply(self.level)
        self.notify(f"{sample.describe()}: load level {number} of {len(LEVELS) - 1}, {self.level.text}")
