"""Derives events from results and posts them to outlets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from edgekit.device.detections import FrameResult
from edgekit.device.events import EventDetector, EventRules, Outlet
from edgekit.device.frame import Frame
from edgekit.device.sink import Sink
from edgekit.device.sinks.snapshots import EventSnapshots


class EventSink(Sink):
    """Applies event rules to every frame and posts the events to all outlets, in order, with snapshots if wanted."""

    def __init__(
        self,
        rules: EventRules,
        outlets: Sequence[Outlet],
        presentation_time_s: Callable[[Frame], float] = lambda frame: frame.monotonic_s,
        snapshots: EventSnapshots | None = None,
        is_camera_usable: Callable[[], bool] = lambda: True,
    ) -> None:
        self._detector = EventDetector(rules)
        self._presentation_time_s = presentation_time_s
        self._outlets = outlets
        self._snapshots = snapshots
        self._is_camera_usable = is_camera_usable
        self.accounts = () if snapshots is None else (snapshots.account,)
        self.events = 0

    def __enter__(self) -> Self:
        if self._snapshots is not None:
            self._snapshots.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._snapshots is not None:
            self._snapshots.__exit__(*exception)

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Post the frame's events; none while the camera is frozen, dark or covered."""
        if self._snapshots is not None:
            self._snapshots.update(frame, result)
        if not self._is_camera_usable():
            return
        for event in self._detector.update(result, self._presentation_time_s(frame)):
            self.events += 1
            if self._snapshots is not None:
                event = self._snapshots.take(event, frame, result)
            for outlet in self._outlets:
                outlet.post(event)
