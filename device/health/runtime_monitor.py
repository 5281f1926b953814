"""What a run has beside its work: its health sampled, its load kept within bounds, its manager told that it lives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from edgekit.boards import read_board
from edgekit.device.frame import Source
from edgekit.device.health.load_shedding import (
    LoadLevel,
    LoadLimits,
    LoadShedder,
    PacedSource,
    default_max_temperature_c,
)
from edgekit.device.health.sampler import Health, HealthSampler
from edgekit.device.service.notify import HeartbeatSink, find_notifier
from edgekit.device.sink import Sink
from edgekit.device.tracking.face_tracker import FaceTracker


class RuntimeMonitor:
    """Looks after a run, in a `with` block around it."""

    def __init__(
        self, folder: Path, max_temperature_c: float | None, face_tracker: FaceTracker, notify: Callable[[str], None]
    ) -> None:
        """Prepare.

        Args:
            folder: Where results are written: its disk is watched.
            max_temperature_c: From here on less is done; default: what suits the board, none for a PC.
            face_tracker: What does less then.
            notify: Told of every change of load.
        """
        ceiling_c = max_temperature_c if max_temperature_c is not None else default_max_temperature_c(read_board())
        self._told: Health | None = None
        self._shedder = LoadShedder(LoadLimits(ceiling_c), notify)
        self._shedder.follow(lambda level: _ease(face_tracker, level))
        self._sampler = HealthSampler(folder, notify, [self._shedder.observe])

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sampler.__exit__(*exception)

    def health(self) -> Health | None:
        """Return the newest sample, None before the first."""
        return self._sampler.latest()

    def paced(self, source: Source) -> Source:
        """Return `source` at a lower frame rate whenever the load has to be lower."""
        return PacedSource(source, lambda: self._shedder.level)

    def news(self) -> dict[str, Any] | None:
        """Return the newest sample ready for JSON, once; None until there is another."""
        latest = self.health()
        if latest is None or latest is self._told:
            return None
        self._told = latest
        return latest.as_document()

    def sinks(self) -> list[Sink]:
        """Return the sinks that tell a service's manager of finished frames; they belong behind all others."""
        notifier = find_notifier()
        return [HeartbeatSink(notifier, self._state)] if notifier else []

    def as_document(self) -> dict[str, Any]:
        """Return what the samples amount to and the highest load level, ready for JSON."""
        return self._sampler.summary().as_document() | {"max_load_level": self._shedder.highest}

    def describe(self) -> str:
        """Return the same as one line for people, empty where nothing is known."""
        return self._sampler.summary().describe()

    def _state(self) -> str:
        latest = self.health()
        return latest.describe() if latest else ""


def _ease(face_tracker: FaceTracker, level: LoadLevel) -> None:
    face_tracker.set_load_level(level.detect_every_at_least, level.detector_scale)
