"""Events out of results, handed to whoever sends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.device.detections import FrameResult
from edgekit.device.events import EventDetector, EventRules, Outlet
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink


class EventSink(Sink):
    """Applies the rules to every frame and posts what happened to all outlets, in order."""

    def __init__(
        self,
        rules: EventRules,
        outlets: Sequence[Outlet],
        presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s,
    ) -> None:
        self._detector = EventDetector(rules)
        self._picture_time = presentation_time_s
        self._outlets = outlets
        self.events = 0

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Post the frame's events."""
        for event in self._detector.update(result, self._picture_time(frame)):
            self.events += 1
            for outlet in self._outlets:
                outlet.post(event)
