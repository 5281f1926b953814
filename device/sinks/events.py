"""Derives events from results and posts them to outlets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.device.detections import FrameResult
from edgekit.device.events import EventDetector, EventRules, Outlet
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink


class EventSink(Sink):
    """Applies event rules to every frame and posts the events to all outlets, in order."""

    def __init__(
        self,
        rules: EventRules,
        outlets: Sequence[Outlet],
        presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s,
    ) -> None:
        self._detector = EventDetector(rules)
        self._presentation_time_s = presentation_time_s
        self._outlets = outlets
        self.events = 0

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Post the frame's events."""
        for event in self._detector.update(result, self._presentation_time_s(frame)):
            self.events += 1
            for outlet in self._outlets:
                outlet.post(event)
