"""Background services of a run: health sampling, camera watch, load shedding, and heartbeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgekit.boards import read_board
from edgekit.device.controls import Controls
from edgekit.device.detections import FrameResult
from edgekit.device.frame import Source
from edgekit.device.health.camera_watch import CameraWatch
from edgekit.device.health.clock import Clock
from edgekit.device.health.load_shedding import (
    FRAME_RATE_LEVELS,
    LEVELS,
    LoadLimits,
    LoadShedder,
    PacedSource,
    default_max_temperature_c,
)
from edgekit.device.health.sampler import Health, HealthSampler
from edgekit.device.service.notify import HeartbeatSink, find_notifier
from edgekit.device.tracking.localizer import Localizer

if TYPE_CHECKING:
    from edgekit.device.sink import Sink


class RuntimeMonitor:
    """Samples health, watches the camera and sheds load inside its `with` block.

    >>> with RuntimeMonitor(Path.cwd(), lambda: stream.localizer, print, live=source.live) as monitor:
    ...     stream.run([*sinks, *monitor.sinks(stream.controls)], pace=monitor.paced, annotate=monitor.annotated)
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
            live: Whether the source is live; only then it is watched. The results of a file do not change under load,
                only the frame rate.
        """
        self._returned: Health | None = None
        levels = LEVELS if live and localizer().detector_name != "none" else FRAME_RATE_LEVELS
        self._shedder = LoadShedder(LoadLimits(default_max_temperature_c(read_board())), notify, levels)
        self._shedder.subscribe(
            lambda level: localizer().set_load_level(level.detect_every_at_least, level.detector_scale)
        )
        self._camera = CameraWatch(notify) if live else None
        self._clock = Clock()
        self._sampler = HealthSampler(folder, notify, [self._shedder.observe], camera=self._camera)

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sampler.__exit__(*exception)

    def health(self) -> Health | None:
        """Return the newest sample; None before the first."""
        return self._sampler.latest

    def paced(self, source: Source) -> Source:
        """Return `source` with a frame rate that is reduced at high load levels."""
        return PacedSource(source, lambda: self._shedder.level)

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
