"""Background services of a run: health sampling, camera watch, load shedding, and heartbeats."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgekit.boards import read_board
from edgekit.device.controls import Controls
from edgekit.device.detections import FrameResult
from edgekit.device.health.camera_watch import CameraWatch
from edgekit.device.health.load_shedding import LoadLevel, LoadShedder
from edgekit.device.health.sampler import Health, HealthSampler
from edgekit.device.service.notify import HeartbeatSink, find_notifier
from edgekit.device.tracking.face_tracker import Localizer

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
        service = self._root / _SERVICE
        if not service.is_dir() or (service / _SYNCHRONISED).exists():
            return False
        return not any(_has_time(file) for file in self._root.glob("sys/class/rtc/rtc*/since_epoch"))


def _has_time(since_epoch: Path) -> bool:
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
        self._returned: Health | None = None

        def shed(level: LoadLevel) -> None:
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
        latest = self.health()
        return latest.describe() if latest else ""
