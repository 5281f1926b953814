"""Background services of a run: health sampling, load shedding, and heartbeats to the service manager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgekit.boards import read_board
from edgekit.device.controls import Controls
from edgekit.device.frame import Source
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
    """Samples health and sheds load inside its `with` block.

    >>> with RuntimeMonitor(Path.cwd(), None, localizer, print, live=source.live) as monitor:
    ...     stream.run([*sinks, *monitor.sinks(stream.controls)], pace=monitor.paced, health=monitor.new_sample)
    """

    def __init__(
        self,
        folder: Path,
        max_temperature_c: float | None,
        localizer: Localizer,
        notify: Callable[[str], None],
        *,
        live: bool,
    ) -> None:
        """Prepare sampling and load shedding; the first sample is taken when the block is entered.

        Args:
            folder: Where results are written; the free space of its disk is sampled.
            max_temperature_c: Temperature from which load is shed; None: the board's default, none on a PC.
            localizer: Detects less often, and on smaller images, while load is shed.
            notify: Receives one line for each change of the load level.
            live: Whether the source is live. The results of a file do not change under load, only the frame rate.
        """
        limit_c = max_temperature_c if max_temperature_c is not None else default_max_temperature_c(read_board())
        self._returned: Health | None = None
        levels = LEVELS if live and localizer.detector_name != "none" else FRAME_RATE_LEVELS
        self._shedder = LoadShedder(LoadLimits(limit_c), notify, levels)
        self._shedder.subscribe(
            lambda level: localizer.set_load_level(level.detect_every_at_least, level.detector_scale)
        )
        self._sampler = HealthSampler(folder, notify, [self._shedder.observe])

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

    def new_sample(self) -> dict[str, Any] | None:
        """Return the newest sample, ready for JSON; None if the previous call has returned it."""
        latest = self.health()
        if latest is None or latest is self._returned:
            return None
        self._returned = latest
        return latest.as_document()

    def sinks(self, controls: Controls) -> list[Sink]:
        """Return the sink that sends heartbeats, if a service manager started this process; it must be the last one.

        Heartbeats continue during the pauses of `controls`.
        """
        notifier = find_notifier()
        if notifier is None:
            return []
        heartbeats = HeartbeatSink(notifier, self._status)
        controls.while_paused(heartbeats.idle)
        return [heartbeats]

    def as_document(self) -> dict[str, Any]:
        """Return the summary of all samples and the highest load level, ready for JSON."""
        return self._sampler.summary.as_document() | {"max_load_level": self._shedder.max_level}

    def describe(self) -> str:
        """Return the summary as one line of text; empty if nothing is known."""
        return self._sampler.summary.describe()

    def _status(self) -> str:
        latest = self.health()
        return latest.describe() if latest else ""
