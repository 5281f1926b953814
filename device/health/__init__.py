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
        """Return whether the system clock is right.

        It is wrong only while systemd-timesyncd waits for the network time and the board has no hardware clock with the
        time. Without this service, as in a container or with chrony, the clock counts as synchronised.
        """
        if not self._synchronised:
            service = self._root / _SERVICE
            is_waiting = service.is_dir() and not (service / _SYNCHRONISED).exists()
            hardware_clocks = self._root.glob("sys/class/rtc/rtc*/since_epoch")
            self._synchronised = not is_waiting or any(_has_time(clock) for clock in hardware_clocks)
        return self._synchronised


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
        self, folder: Path, localizer: Callable[[], Localizer], notify: Callable[[str], None], *, live: bool
    ) -> None:
        """Prepare sampling and load shedding; the first sample is taken when the block is entered.

        Args:
            folder: Where results are written; the free space of its disk is sampled.
            localizer: Returns the localizer in use; it detects less often, and on smaller images, while load is shed.
            notify: Receives one line for each change of the load level and of the camera's state.
            live: Whether the source is live. Only then its images are watched and load is shed, because the results of
                a file must not depend on the temperature.
        """
        self._localizer = localizer
        self._live = live
        self._clock = Clock()  # whether the system's clock is synchronised
        self._camera = CameraWatch(notify) if live else None
        self._shedder = LoadShedder(read_board(), notify, self._set_load_level)
        self._sampler = HealthSampler(folder, notify, self._shedder.observe, camera=self._camera)
        self._returned: Health | None = None  # the latest sample that `annotated` has added to a result

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sampler.__exit__(*exception)

    def _set_load_level(self, level: LoadLevel) -> None:
        """Let the detector of a live source work less per frame."""
        if self._live:
            self._localizer().set_load_level(level.detect_every_at_least, level.detector_scale)

    def health(self) -> Health | None:
        """Return the newest sample; None before the first."""
        return self._sampler.latest

    def annotated(self, result: FrameResult) -> FrameResult:
        """Return `result` with the newest health sample and the state of the clock.

        A sample is added to one result only: the first one after it.
        """
        if not self._clock.is_synchronised():
            result = replace(result, clock_synchronised=False)
        latest = self.health()
        if latest is None or latest is self._returned:
            return result
        self._returned = latest
        return replace(result, health=latest.as_document())

    def sinks(self, controls: Controls) -> list[Sink]:
        """Return the sink that watches a live source's images, and the one that sends heartbeats to systemd.

        They must be the last sinks of a run, so that a heartbeat means that all other sinks have worked. Without a live
        source or systemd, the sink is left out. `controls` calls `idle` of both while the run is paused.
        """
        sinks: list[CameraWatch | HeartbeatSink] = []
        if self._camera is not None:
            sinks.append(self._camera)
        notifier = find_notifier()
        if notifier is not None:
            sinks.append(HeartbeatSink(notifier, self._status))  # which adds the health to the service's status
        for sink in sinks:
            controls.while_paused(sink.idle)
        return [*sinks]  # of the type `list[Sink]`

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
# The level falls only at temperatures at least this far below the limit.
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
        """Raise or lower the load level by one step, or keep it, as one health sample requires.

        The level rises at most every `_RISE_S`. It falls when a lower level has been enough for `_FALL_S`.
        """
        now_s, current = sample.monotonic_s, self.level.number
        temperature_c = sample.conditions.temperature_c or 0.0  # an unknown temperature counts as cool
        required = self._required_level(sample, temperature_c)
        if required > current:
            self._calm_since_s = None
            if now_s - self._changed_s >= _RISE_S:
                self._change(current + 1, sample)
        elif required == current or temperature_c > self._limit_c - _HYSTERESIS_C:  # the level stays
            self._calm_since_s = None
        elif self._calm_since_s is None:  # a lower level is enough from now on
            self._calm_since_s = now_s
        elif now_s - self._calm_since_s >= _FALL_S:
            self._calm_since_s = now_s  # before the next step down, the same time passes again
            self._change(current - 1, sample)

    def _required_level(self, sample: Health, temperature_c: float) -> int:
        """Return the number of the load level that temperature and throttle flags of a sample require.

        It is the highest level if the board is hot or its clock is lowered, and a low one if a flag warns of this.
        """
        throttling = sample.conditions.throttling
        bits = throttling.bits if throttling else 0
        if temperature_c >= self._limit_c or bits & _SLOWED_BITS:
            return len(LEVELS) - 1
        return _WARNING_LEVEL if bits & _WARNING_BITS else 0

    def _change(self, number: int, sample: Health) -> None:
        """Set the level to `number`, apply it to the detector and report it; `sample` is the reason."""
        self._changed_s = sample.monotonic_s
        self.level = LEVELS[number]
        self.max_level = max(self.max_level, number)
        self.apply(self.level)
        self.notify(f"{sample.describe()}: load level {number} of {len(LEVELS) - 1}, {self.level.text}")
